"""Ranking features of (user, candidate item) pairs: the only extractor, for training, batch and server alike.

Everything is computed from a history as it stood at one time (``FeatureTables``) and the retrieved candidates. What
does not exist (an item without entities, a time feature without times) is NaN, which LightGBM handles itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reckg.data.history import History
from reckg.errors import ArtifactError, DataError
from reckg.file_hash import file_sha256
from reckg.ranking.columns import (
    item_age,
    item_popularity,
    rarity,
    standardised,
    unit_length,
    user_recency,
)
from reckg.ranking.item_item import cooccurrence, linear_weights
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

FORMAT_VERSION = 1
DECAY = 0.7  # weight of an item of the history against the one after it, in the recent features
LATEST = 500  # items of a history that count at most, the latest
LINEAR_ITEMS = 5_000  # catalogues above this have no linear score: its inverse costs n_items^3
LINEAR_REGULARISATION = 300.0
LINEAR_ENTRIES = 2_000_000  # the linear model's pruning costs accuracy; small catalogues keep it whole
FEW_ENTRIES = 2**16
CELLS_AT_ONCE = 2**22  # cells of a block's working arrays

ITEM_COLUMNS = ("popularity", "recent_popularity", "popularity_trend", "item_age", "entity_count")
USER_COLUMNS = ("history_length", "user_recency")


@dataclass(frozen=True)
class FeatureTables:
    """What features need beside the history: everything as of one state of the history.

    users (U, 2) and items (I, 5) float32: USER_COLUMNS and ITEM_COLUMNS. numbers (I, Fn) float32: standardised, NaN
    where unknown. entities (I, E) csr: the rarity weight of each of an item's entities. cooccurrence and linear
    (I, I) csr; linear None above LINEAR_ITEMS items. vectors (I, d) float16: the items' vectors at unit length, or
    None. ordered: whether the order within a history means something.
    """

    users: np.ndarray
    items: np.ndarray
    numbers: np.ndarray
    entities: sp.csr_matrix
    cooccurrence: sp.csr_matrix
    linear: sp.csr_matrix | None
    vectors: np.ndarray | None
    ordered: bool

    def save(self, folder: Path) -> None:
        """Writes ``features.safetensors`` and ``features.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"users": self.users, "items": self.items, "numbers": self.numbers}
        if self.vectors is not None:
            tensors["vectors"] = self.vectors
        for name in ("entities", "cooccurrence", "linear"):
            matrix = getattr(self, name)
            if matrix is not None:
                tensors |= {
                    f"{name}.indptr": matrix.indptr.astype(np.int64),
                    f"{name}.indices": matrix.indices.astype(np.int32),
                    f"{name}.data": matrix.data.astype(np.float32),
                }
        path = folder / "features.safetensors"
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
        description = {
            "format_version": FORMAT_VERSION,
            "features": list(FEATURES),
            "n_users": len(self.users),
            "n_items": len(self.items),
            "n_entities": self.entities.shape[1],
            "linear": self.linear is not None,
            "ordered": self.ordered,
            "sha256": file_sha256(path),
        }
        (folder / "features.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_feature_tables(folder: Path) -> FeatureTables:
    """Reads what ``FeatureTables.save`` wrote.

    Raises:
        ArtifactError: a file is missing, was changed, or is of another version.
    """
    path = folder / "features.safetensors"
    again = "Run 'reckg rank' again."
    try:
        description = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        version, names, found = description["format_version"], description["features"], file_sha256(path)
        if (version, names) != (FORMAT_VERSION, list(FEATURES)):
            raise ArtifactError(
                f"{folder} holds {len(names)} features of format {version}; this version of reckg computes other ones, "
                f"{len(FEATURES)} of format {FORMAT_VERSION}. {again}"
            )
        if found != description["sha256"]:
            raise ArtifactError(f"{path} is damaged: its sha256 is {found[:12]}, features.json says otherwise. {again}")
        tensors = load_file(path)
        n_items = description["n_items"]
        linear = _matrix(tensors, "linear", (n_items, n_items)) if description["linear"] else None
        return FeatureTables(
            users=tensors["users"],
            items=tensors["items"],
            numbers=tensors["numbers"],
            entities=_matrix(tensors, "entities", (n_items, description["n_entities"])),
            cooccurrence=_matrix(tensors, "cooccurrence", (n_items, n_items)),
            linear=linear,
            vectors=tensors.get("vectors"),
            ordered=description["ordered"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(
            f"feature tables in {folder} cannot be read ({type(error).__name__}: {error}). {again}"
        ) from error


def _matrix(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, int]) -> sp.csr_matrix:
    parts = tuple(tensors[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    matrix = sp.csr_matrix(parts, shape=shape)
    matrix.check_format(full_check=True)
    return matrix


def build_feature_tables(
    history: History,
    *,
    n_users: int,
    n_items: int,
    item_entities: sp.csr_matrix,
    numbers: np.ndarray,
    now: int | None,
    neighbours: int,
    ordered: bool,
    item_vectors: np.ndarray | None = None,
    linear_items: int = LINEAR_ITEMS,
) -> FeatureTables:
    """The tables of a history as it stands.

    Args:
        history: of n_users users; nothing later than ``now``.
        item_entities: (n_items, E): non-zero where the item has the entity.
        numbers: (n_items, Fn) float: number columns, NaN where unknown; Fn may be 0.
        now: epoch seconds, the time of the state; None where the data has no times, or only an order.
        neighbours: entries kept of a row of the co-occurrence matrix.
        ordered: whether the order within a history means something.
        item_vectors: (n_items, d), of the same state; None where there are none, for every state of a run alike.
        linear_items: the linear model is left out (its feature is NaN) in larger catalogues.
    Raises:
        DataError: shapes do not fit, or an interaction is later than ``now``.
    """
    numbers = np.asarray(numbers, dtype=np.float32)
    _check_shapes(history, n_users, n_items, item_entities, numbers, item_vectors)
    if now is not None and len(history.timestamp) and history.timestamp.max() > now:
        late = int((history.timestamp > now).sum())
        raise DataError(
            f"{late} of {len(history.timestamp)} interactions are later than the time of the features "
            f"({int(history.timestamp.max())} > {now}): they would leak into the ranker."
        )
    entities = sp.csr_matrix(item_entities, dtype=np.float32)
    entities.eliminate_zeros()
    entities.sort_indices()
    linear = None
    if n_items <= linear_items:
        kept = max(neighbours, LINEAR_ENTRIES // max(1, n_items))
        linear = linear_weights(history, n_items, LINEAR_REGULARISATION, kept)
    return FeatureTables(
        users=np.column_stack([np.log1p(np.diff(history.indptr)), user_recency(history, now)]).astype(np.float32),
        items=np.column_stack(
            [
                *item_popularity(history, n_items, now),
                item_age(history, n_items, now),
                np.log1p(np.diff(entities.indptr)),
            ]
        ).astype(np.float32),
        numbers=standardised(numbers),
        entities=rarity(entities),
        cooccurrence=cooccurrence(history, n_items, neighbours, ordered),
        linear=linear,
        vectors=None if item_vectors is None else unit_length(item_vectors),
        ordered=ordered,
    )


def _check_shapes(
    history: History,
    n_users: int,
    n_items: int,
    item_entities: sp.csr_matrix,
    numbers: np.ndarray,
    item_vectors: np.ndarray | None,
) -> None:
    if item_vectors is not None and (item_vectors.ndim != 2 or len(item_vectors) != n_items):
        raise DataError(f"features of {n_items} items: their vectors have the shape {item_vectors.shape}.")
    found = (history.n_users, item_entities.shape[0], numbers.ndim, len(numbers))
    if found != (n_users, n_items, 2, n_items):
        raise DataError(
            f"features of {n_users} users and {n_items} items: the history has {found[0]} users, the entities' matrix "
            f"{found[1]} items, the numbers the shape {numbers.shape}. Run 'reckg build-graph' again."
        )


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
    start = matrix.indptr[rows].astype(np.int64)
    length = matrix.indptr[rows + 1] - start
    place = np.repeat(np.arange(len(rows)), length)
    position = np.arange(len(place)) - np.repeat(np.cumsum(length) - length - start, length)
    return place, matrix.indices[position].astype(np.int64), matrix.data[position]
