"""Ranking features of (user, candidate item) pairs: the only extractor, for training, batch and server alike.

Everything is computed from a history as it stood at one time (``FeatureTables``) and the retrieved candidates. What
does not exist (an item without entities, a time feature without times) is NaN, which LightGBM handles itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from reckg.compressed_rows import row_positions
from reckg.data.history import History
from reckg.errors import DataError
from reckg.ranking.tables import ITEM_COLUMNS, USER_COLUMNS, FeatureTables
from reckg.retrieval.scored_items import ScoredItems

FEATURES: tuple[str, ...] = (
    "retrieval_score",
    "retrieval_rank",  # 0 is the best candidate
    "cooccurrence",  # summed over the history
    "cooccurrence_recent",  # the same, the latest items counting most; ordered histories only
    "linear",  # the linear model's score
    "popularity",  # log(1 + interactions)
    "recent_popularity",  # the same of the latest tenth of all interactions; times only
    "popularity_trend",  # recent against overall popularity; times only
    "item_age",  # log(1 + days since the first interaction); times only
    "history_length",  # log(1 + the user's interactions)
    "user_recency",  # log(1 + days since the user's last interaction); times only
    "shared_entities",  # mean rarity-weighted entities shared with an item of the history
    "shared_entities_recent",  # the same, the latest items counting most; ordered histories only
    "last_similarity",  # cosine of the candidate's vector and the last item's; ordered histories with vectors only
    "entity_count",  # log(1 + entities of the item)
    "number_distance",  # standardised number columns: mean distance from the user's mean
)

DECAY = 0.7  # weight of an item of the history against the one after it, in the recent features
LATEST = 500  # items of a history that count at most, the latest
FEW_ENTRIES = 2**16
CELLS_AT_ONCE = 2**22  # cells of a block's working arrays


def extract_features(
    tables: FeatureTables, history: History, user_idx: np.ndarray, candidates: ScoredItems
) -> np.ndarray:
    """The features of every candidate of every user.

    A row depends on its user and the user's candidates alone, not on the rest of the batch.

    Args:
        history: the same that the tables were built of.
        user_idx: (n,) int64.
        candidates: (n, c) in retrieval order.
    Returns:
        (n * c, F) float32, user by user; columns as FEATURES. Rows of padding are NaN throughout.
    Raises:
        DataError: user_idx and candidates differ in length, or a user or an item is not in the tables.
    """
    user_idx = np.asarray(user_idx, dtype=np.int64)
    n, c = candidates.item_idx.shape
    _check_request(tables, history, user_idx, candidates)
    features = np.full((n, c, len(FEATURES)), np.nan, dtype=np.float32)
    block = max(1, CELLS_AT_ONCE // max(len(tables.items), tables.entities.shape[1], c * len(FEATURES)))
    for start in range(0, n if len(tables.items) else 0, block):
        rows = slice(start, start + block)
        item_idx = np.maximum(candidates.item_idx[rows], 0)
        _extract_block(tables, history, user_idx[rows], item_idx, candidates.score[rows], features[rows])
    features[candidates.item_idx < 0] = np.nan
    return features.reshape(n * c, len(FEATURES))


def _check_request(tables: FeatureTables, history: History, user_idx: np.ndarray, candidates: ScoredItems) -> None:
    shape = candidates.item_idx.shape
    if shape != candidates.score.shape or shape[:1] != user_idx.shape:
        raise DataError(f"features of {len(user_idx)} users for candidates of the shape {shape}: they do not fit.")
    if history.n_users != len(tables.users):
        raise DataError(f"history of {history.n_users} users, tables of {len(tables.users)}: from different runs?")
    for name, values, size, low in (
        ("user", user_idx, len(tables.users), 0),
        ("item", candidates.item_idx, len(tables.items), -1),
    ):
        if values.size and not low <= values.min() <= values.max() < size:
            raise DataError(f"{name}_idx {values.min()} to {values.max()}: the tables have {size} {name}s.")


@dataclass(frozen=True)
class _Events:
    """The latest items of a block's histories. query (h,): the row in the block; item (h,); recent (h,): DECAY^age."""

    query: np.ndarray
    item: np.ndarray
    recent: np.ndarray
    n: int

    def weights(self, ordered: bool) -> np.ndarray:
        """(1, h): ones; (2, h) where the history has an order: ones, and the recent weights."""
        return np.stack([np.ones(len(self.item)), self.recent] if ordered else [np.ones(len(self.item))])


def _events(history: History, user_idx: np.ndarray) -> _Events:
    indptr, positions = history.rows(user_idx)
    length = np.diff(indptr)
    age = np.repeat(indptr[1:], length) - np.arange(len(positions)) - 1
    latest = age < LATEST
    return _Events(
        query=np.repeat(np.arange(len(user_idx)), length)[latest],
        item=history.item_idx[positions[latest]],
        recent=DECAY ** age[latest].astype(np.float64),
        n=len(user_idx),
    )


def _extract_block(
    tables: FeatureTables,
    history: History,
    user_idx: np.ndarray,
    item_idx: np.ndarray,
    score: np.ndarray,
    out: np.ndarray,
) -> None:
    """Writes the features of a block of users into ``out`` (b, c, F). Padding is taken for item 0 here."""
    events = _events(history, user_idx)
    columns: dict[str, Any] = {
        "retrieval_score": score,
        "retrieval_rank": np.arange(item_idx.shape[1], dtype=np.float32)[None, :],
    }
    for position, name in enumerate(USER_COLUMNS):
        columns[name] = tables.users[user_idx, position][:, None]
    for position, name in enumerate(ITEM_COLUMNS):
        columns[name] = tables.items[item_idx, position]
    overall, weights = events.weights(False), events.weights(tables.ordered)
    scores = item_scores(tables.cooccurrence, events, weights, item_idx)
    columns |= zip(("cooccurrence", "cooccurrence_recent"), scores, strict=False)
    shared = shared_entities(tables.entities, events, weights, item_idx)
    columns |= zip(("shared_entities", "shared_entities_recent"), shared, strict=False)
    if tables.linear is not None:
        columns["linear"] = item_scores(tables.linear, events, overall, item_idx)[0]
    if tables.ordered and tables.vectors is not None:
        columns["last_similarity"] = last_similarity(tables.vectors, history, user_idx, item_idx)
    columns["number_distance"] = number_distance(tables.numbers, events, item_idx)
    for position, name in enumerate(FEATURES):
        if name in columns:
            out[:, :, position] = columns[name]


def item_scores(matrix: sp.csr_matrix, events: _Events, weights: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
    """(w, b, c): sum over the user's items h of weight(h) matrix[h, candidate], for each row of ``weights`` (w, h)."""
    scores = _user_sums(matrix, events, weights)
    return scores[:, np.arange(events.n)[:, None], item_idx]


def shared_entities(entities: sp.csr_matrix, events: _Events, weights: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
    """(w, b, c): rarity of the entities that the candidate shares with an item of the history, in the weighted mean.

    For each row of ``weights`` (w, h). NaN for candidates without entities and users without history.
    """
    n, c = item_idx.shape
    profile = _user_sums(entities, events, weights)  # of an entity: its rarity times the weight of its owners
    pair, column, _ = _entries(entities, item_idx.ravel())
    known = (entities.indptr[item_idx + 1] > entities.indptr[item_idx]) & (np.bincount(events.query, minlength=n) > 0)[
        :, None
    ]
    result = np.full((len(weights), n, c), np.nan)
    for number, weight in enumerate(weights):
        total = np.bincount(events.query, weight, minlength=n)
        sums = np.bincount(pair, profile[number, pair // c, column], minlength=n * c).reshape(n, c)
        result[number] = np.where(known, sums / np.where(total > 0, total, 1)[:, None], np.nan)
    return result


def _user_sums(matrix: sp.csr_matrix, events: _Events, weights: np.ndarray) -> np.ndarray:
    """(w, b, columns) float64: sum over the user's items h of weight(h) matrix[h], for each row of (w, h) weights.

    Two ways to the same bits: scipy's product has a price per call that a single request would feel.
    """
    columns = matrix.shape[1]
    shape = (len(weights), events.n, columns)
    if (matrix.indptr[events.item + 1] - matrix.indptr[events.item]).sum() <= FEW_ENTRIES:
        event, column, value = _entries(matrix, events.item)
        key = events.query[event] * columns + column
        sums = [np.bincount(key, value * weight[event], minlength=events.n * columns) for weight in weights]
        return np.stack(sums).reshape(shape)
    length = np.bincount(events.query, minlength=events.n)
    indptr = np.concatenate([[0], np.cumsum(np.tile(length, len(weights)))])
    items = np.tile(events.item, len(weights))
    rows = sp.csr_matrix((weights.ravel(), items, indptr), shape=(len(weights) * events.n, matrix.shape[0]))
    return (rows @ matrix).toarray().reshape(shape)


def last_similarity(vectors: np.ndarray, history: History, user_idx: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
    """(b, c): cosine of the candidate and the last item of the user's history; NaN without one."""
    result = np.full(item_idx.shape, np.nan)
    end = history.indptr[user_idx + 1]
    some = end > history.indptr[user_idx]
    last = vectors[history.item_idx[end[some] - 1]].astype(np.float32)
    result[some] = np.einsum("bd,bcd->bc", last, vectors[item_idx[some]].astype(np.float32))
    return result


def number_distance(numbers: np.ndarray, events: _Events, item_idx: np.ndarray) -> np.ndarray:
    """(b, c): |candidate - mean of the user's history| of the standardised numbers, averaged over the known columns."""
    total = np.zeros(item_idx.shape)
    count = np.zeros(item_idx.shape)
    for column in numbers.T:
        value = column[events.item]
        known = np.isfinite(value)
        weight = np.bincount(events.query[known], minlength=events.n)
        mean = np.bincount(events.query[known], value[known], minlength=events.n) / np.maximum(weight, 1)
        distance = np.abs(column[item_idx] - mean[:, None])
        usable = np.isfinite(distance) & (weight > 0)[:, None]
        total += np.where(usable, distance, 0)
        count += usable
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _entries(matrix: sp.csr_matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of (r,) rows: (place in ``rows``, column, value), each (e,)."""
    ends, position = row_positions(matrix.indptr, rows)
    place = np.repeat(np.arange(len(rows)), np.diff(ends))
    return place, matrix.indices[position].astype(np.int64), matrix.data[position]
