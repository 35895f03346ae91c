"""The baselines beside the model in every report: popularity, item-kNN and EASE; ALS is in ``als.py``.

Each is fitted on training interactions and scores the items for a history that is given later, so that the same fit
serves validation and test. Recent popularity is counted in all known interactions. Interactions are binary here:
repeats and weights are ignored. A user without history gets the order of popularity from all baselines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy import sparse

from reckg.data.history import History
from reckg.errors import DataError
from reckg.evaluation.protocol import HeldOut, Recommend, SystemSettings
from reckg.ranking.tables.ease import ease_weights, inverse_precision, user_item_matrix
from reckg.retrieval.scored_items import ScoredItems

BLOCK_VALUES = 8_000_000  # scores held at once: 32 MB of float32, about 200 MB with their order
PAIRS_AT_ONCE = 4_000_000  # item pairs held at once in the search of neighbours: about 200 MB
Neighbours = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # item, neighbour, cosine, rank from 0


class Baseline(Protocol):
    """A fitted baseline. The report prints ``settings``."""

    @property
    def settings(self) -> SystemSettings: ...

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        """Scores all items for (b,) users with the given history: (b, n_items) float32, higher is better."""


@dataclass(frozen=True)
class Popularity:
    """Number of an item's users in training.

    Args:
        count: (n_items,) float32.
    """

    count: np.ndarray
    settings: SystemSettings = field(default_factory=dict)

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        return np.tile(self.count, (len(user_idx), 1))


@dataclass(frozen=True)
class ItemKnn:
    """Sum of an item's cosines with those of the user's items that are its nearest neighbours.

    Args:
        transition: (n_items, n_items) sparse float32: row j, column i holds the cosine if j is a neighbour of i.
    """

    transition: sparse.csr_matrix
    count: np.ndarray
    settings: SystemSettings

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        matrix = user_item_matrix(history, len(self.count), user_idx=user_idx)
        return _popularity_without_history((matrix @ self.transition).toarray(), matrix, self.count)


@dataclass(frozen=True)
class Ease:
    """The user's binary row times a dense item-item matrix with zero diagonal.

    Args:
        weights: (m, m) float32.
        modelled: (m,) int64: the items of the matrix. Every other item scores 0.
    """

    weights: np.ndarray
    modelled: np.ndarray
    count: np.ndarray
    settings: SystemSettings

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        matrix = user_item_matrix(history, len(self.count), user_idx=user_idx)
        if len(self.modelled) == len(self.count):
            out = matrix @ self.weights
        else:
            out = np.zeros((len(user_idx), len(self.count)), dtype=np.float32)
            out[:, self.modelled] = matrix[:, self.modelled] @ self.weights
        return _popularity_without_history(out, matrix, self.count)


def fit_popularity(train: History, n_items: int) -> Popularity:
    """Counts the distinct users of every item."""
    count = np.asarray(user_item_matrix(train, n_items).sum(axis=0), dtype=np.float32).ravel()
    return Popularity(count, {"score": "users of the item so far"})


def fit_recent_popularity(known: History, n_items: int, *, share: float = 0.1) -> Popularity:
    """Counts popularity among the latest interactions. Equal items are ordered by their overall popularity.

    Args:
        known: with times that are comparable between users.
        share: of the interactions that count, in (0, 1]; interactions at the time of the first one count too.
    Raises:
        ValueError: share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of recent interactions must be in (0, 1], got {share}")
    whole = fit_popularity(known, n_items).count
    user = np.repeat(np.arange(known.n_users), np.diff(known.indptr))
    n = len(known.timestamp)
    first = np.partition(known.timestamp, n - max(1, int(n * share)))[n - max(1, int(n * share))] if n else 0
    late = known.timestamp >= first
    pairs = np.unique(user[late] * n_items + known.item_idx[late])
    count = np.bincount(pairs % n_items, minlength=n_items) + whole / (whole.max(initial=0) + 1)
    days = (int(known.timestamp.max()) - int(first)) / 86_400 if n else 0.0
    return Popularity(count.astype(np.float32), {"share": share, "days": round(days, 1)})


def fit_item_knn(train: History, n_items: int, *, neighbours: int = 100, shrink: float = 0.0) -> ItemKnn:
    """Fits item-kNN with the cosine c_ij / (sqrt(c_i c_j) + shrink).

    Args:
        neighbours: number of neighbours of an item.
        shrink: lowers the cosines of rare items.
    Source: Sarwar et al. 2001, doi:10.1145/371920.372071; the shrink term as in Bell & Koren 2007.
    """
    table = nearest(user_item_matrix(train, n_items), neighbours, shrink)
    return knn_of(table, fit_popularity(train, n_items).count, neighbours, shrink)


def fit_ease(train: History, n_items: int, *, regularisation: float = 300.0, max_items: int = 20_000) -> Ease:
    """Fits EASE (see ``ease_weights``) over the catalog, or its most popular items.

    Args:
        train: training interactions.
        n_items: items of the catalog.
        regularisation: lambda, > 0.
        max_items: with more items, only the most popular are modelled; the others score 0.
    Raises:
        ValueError: regularisation <= 0 or max_items < 1.
    """
    if max_items < 1:
        raise ValueError(f"EASE needs max_items >= 1, got {max_items}")
    count = fit_popularity(train, n_items).count
    modelled = np.sort(np.argsort(-count, kind="stable")[:max_items])
    matrix = user_item_matrix(train, n_items)
    if len(modelled) < n_items:
        matrix = matrix[:, modelled]
    weights = ease_weights(matrix, regularisation)
    settings = {
        "lambda": regularisation,
        "items_modelled": len(modelled),
        "items_scored_zero": n_items - len(modelled),
        "inverse_in": np.dtype(inverse_precision(len(modelled))).name,
    }
    return Ease(weights, modelled.astype(np.int64), count, settings)


def recommend_by_scores(model: Baseline, history: History, held: HeldOut, n_items: int, k: int) -> Recommend:
    """Makes a baseline a system to evaluate: the top k of its scores among the items that lists may hold.

    Users are scored in sub-blocks, so that no more than `BLOCK_VALUES` scores exist at once.

    Args:
        history: as of the time of the lists.
        held: the users.
    """
    indptr, items = held.excluded
    block = max(1, BLOCK_VALUES // max(1, n_items))

    def recommend(user_idx: np.ndarray) -> ScoredItems:
        row = np.searchsorted(held.users, user_idx)
        parts = []
        for start in range(0, len(user_idx), block):
            scores = model.scores(history, user_idx[start : start + block])
            for local, r in enumerate(row[start : start + block]):
                scores[local, items[indptr[r] : indptr[r + 1]]] = -np.inf
                if held.only is not None:
                    other = np.ones(n_items, dtype=bool)
                    other[held.only[1][held.only[0][r] : held.only[0][r + 1]]] = False
                    scores[local, other] = -np.inf
            parts.append(top_items(scores, k))
        return ScoredItems(
            np.concatenate([part.item_idx for part in parts]), np.concatenate([part.score for part in parts])
        )

    return recommend


def top_items(scores: np.ndarray, k: int) -> ScoredItems:
    """Finds the k best columns of every row, best first, ties by the lower item_idx.

    Args:
        scores: (b, n_items) float32; -inf marks an item that must not be listed.
        k: places of the lists.
    Returns:
        (b, k); padded with -1 and -inf if a row has fewer than k items.
    Raises:
        DataError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise DataError(f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN.")
    n, n_items = scores.shape
    width = min(k, n_items)
    # One integer orders by score, then by lower item: the float's bits made monotone, above the complement of the item.
    bits = (np.ascontiguousarray(scores, dtype=np.float32) + np.float32(0.0)).view(np.uint32)
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.uint64(0xFFFFFFFF) - np.arange(n_items, dtype=np.uint64)
    if width < n_items:
        keys.partition(n_items - width, axis=1)
    best = np.sort(keys[:, n_items - width :], axis=1)[:, ::-1]
    item_idx = np.full((n, k), -1, dtype=np.int64)
    score = np.full((n, k), -np.inf, dtype=np.float32)
    item_idx[:, :width] = (np.uint64(0xFFFFFFFF) - (best & np.uint64(0xFFFFFFFF))).astype(np.int64)
    score[:, :width] = np.take_along_axis(scores, item_idx[:, :width], axis=1)
    item_idx[np.isneginf(score)] = -1
    return ScoredItems(item_idx, score)


def _popularity_without_history(scores: np.ndarray, matrix: sparse.csr_matrix, count: np.ndarray) -> np.ndarray:
    scores[np.diff(matrix.indptr) == 0] = count
    return scores


def nearest(matrix: sparse.csr_matrix, neighbours: int, shrink: float) -> Neighbours:
    """Finds the nearest neighbours of every item.

    Args:
        matrix: (users, items) of ones.
        neighbours: number for each item.
        shrink: as in fit_item_knn.
    Returns:
        item, neighbour, cosine and rank, by item, then falling cosine, then neighbour.
    """
    n_items = matrix.shape[1]
    columns = matrix.T.tocsr()
    norm = np.sqrt(np.diff(columns.indptr).astype(np.float64))
    # Row i of X'X has at most as many entries as i's users have interactions: blocks are cut to bound the memory.
    bound = np.minimum(columns @ np.diff(matrix.indptr), n_items)
    edges = np.flatnonzero(np.diff(np.cumsum(bound) // PAIRS_AT_ONCE, prepend=0)).tolist()
    parts = []
    for lo, hi in zip([0, *edges], [*edges, n_items], strict=True):
        product = (columns[lo:hi] @ matrix).tocoo()
        row, other = product.row.astype(np.int64) + lo, product.col.astype(np.int64)
        off = row != other
        row, other = row[off], other[off]
        value = (product.data[off] / (norm[row] * norm[other] + shrink)).astype(np.float32)
        order = np.lexsort((other, -value, row))
        row, other, value = row[order], other[order], value[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        near = rank < neighbours
        parts.append((row[near], other[near], value[near], rank[near]))
    row, other, value, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    return row, other, value, rank


def knn_of(table: Neighbours, count: np.ndarray, neighbours: int, shrink: float) -> ItemKnn:
    item, other, value, rank = table
    near = rank < neighbours
    shape = (len(count), len(count))
    transition = sparse.csr_matrix((value[near], (other[near], item[near])), shape=shape)
    return ItemKnn(transition, count, {"neighbours": neighbours, "shrink": shrink})
