"""Item-item matrices for ranking: co-occurrence in users' histories, and a linear model (EASE)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History
from reckg.errors import DataError
from reckg.ranking.tables.ease import BLOCK_VALUES, ease_weights, user_item_matrix
from reckg.retrieval.exact import exact_search

Order = Literal["none", "between", "ahead"]

AHEAD = 1 / np.arange(1.0, 6.0)  # weight of a pair by its distance; chosen on validation of two data sets each
BETWEEN = np.exp(-np.arange(20.0) / 3)
BLOCK_ENTRIES = 20_000_000  # most entries of a product's rows that are held at once: about 240 MB
LINEAR_ITEMS = 20_000  # larger catalogs have no linear score: its inverse costs n_items^3, as the baseline EASE's
BASKET_ITEMS = 500  # latest items of an unordered history that are paired, which bounds the work per user


def cooccurrence(history: History, n_items: int, neighbours: int, order: Order) -> sp.csr_matrix:
    """Measures how often two items occur in the same histories, by the cosine of their counts.

    none: c(i, j) users have both, similarity c(i, j) / sqrt(c(i, i) c(j, j)). ahead: only items j after i count, by
    1 / distance, at most 5 steps; of two items with equal times each comes after the other by half. between: both ways,
    by exp(-(distance - 1) / 3), at most 20 steps. The normalisation over item counts is the same.

    Args:
        history: users' items, oldest first; with order none, repeats of an item by a user count once.
        n_items: rows and columns of the result.
        neighbours: most entries of a row, the largest.
        order: none: histories have no order; ahead: the predicted items come after the history; between: within it.
    Returns:
        (n_items, n_items) float32, empty diagonal, values > 0; row i has the items that go with i.
    Raises:
        DataError: an item_idx is not in 0..n_items-1.
    Source: Sarwar et al. 2001, doi:10.1145/371920.372071 (cosine item-item similarity).
    """
    _check_items(history, n_items)
    if order == "none":
        pairs = _pairs_in_baskets(history, n_items)
        count = pairs.diagonal()
    else:
        weights = AHEAD if order == "ahead" else BETWEEN
        pairs = _pairs_in_order(history, n_items, weights)
        pairs = pairs if order == "ahead" else (pairs + pairs.T).tocsr()
        count = np.bincount(history.item_idx, minlength=n_items)
    norm = np.where(count > 0, 1 / np.sqrt(np.maximum(count, 1)), 0).astype(np.float32)
    pairs.setdiag(0)
    similarity = sp.diags(norm) @ pairs @ sp.diags(norm)
    return keep_largest(similarity.tocsr(), neighbours)


def _pairs_in_order(history: History, n_items: int, weights: np.ndarray) -> sp.csr_matrix:
    """Sums weights[distance - 1] of each pair (earlier, later), half of it both ways for a pair with equal times.

    Returns:
        (n_items, n_items) float32.
    """
    user = np.repeat(np.arange(history.n_users), np.diff(history.indptr))
    total = sp.csr_matrix((n_items, n_items), dtype=np.float32)
    for distance, weight in enumerate(weights, start=1):
        same = user[distance:] == user[:-distance]
        left, right = history.item_idx[:-distance][same], history.item_idx[distance:][same]
        tied = (history.timestamp[distance:] == history.timestamp[:-distance])[same]
        values = np.where(tied, weight / 2, weight).astype(np.float32)
        left, right = np.append(left, right[tied]), np.append(right, left[tied])
        values = np.append(values, values[tied])
        total = total + sp.csr_matrix((values, (left, right)), shape=(n_items, n_items))
    return total.tocsr()


def _pairs_in_baskets(history: History, n_items: int) -> sp.csr_matrix:
    """Counts the users that have both items: (n_items, n_items) float32."""
    matrix = user_item_matrix(history, n_items, latest=BASKET_ITEMS)
    return (matrix.T @ matrix).tocsr()


def two_step_walk(history: History, n_items: int, neighbours: int) -> sp.csr_matrix:
    """Computes the ends of walks item -> one of its users -> one of their items, over root popularity of the end.

    Args:
        neighbours: most entries of a row, the largest.
    Returns:
        (n_items, n_items) float32, empty diagonal, values > 0.
    Source: Paudel et al. 2017, RP3beta, doi:10.1145/2955101, with beta 1/2.
    """
    _check_items(history, n_items)
    matrix = user_item_matrix(history, n_items, latest=BASKET_ITEMS)
    users = np.maximum(np.bincount(matrix.indices, minlength=n_items), 1).astype(np.float32)
    items = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    there, back = sp.diags(1 / users) @ matrix.T, sp.diags(1 / items) @ matrix @ sp.diags(users**-0.5)
    return _row_blocks(there.tocsr(), back.tocsr(), neighbours)


def entity_neighbours(entities: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """Compares items by the cosine of their entities' weights.

    Args:
        entities: (I, E) weights >= 0.
        neighbours: most entries of a row, the largest.
    Returns:
        (I, I) float32, empty diagonal, values > 0.
    """
    length = np.sqrt(np.asarray(entities.multiply(entities).sum(axis=1)).ravel())
    unit = (sp.diags(1 / np.where(length > 0, length, 1)) @ entities).astype(np.float32).tocsr()
    return _row_blocks(unit, unit.T.tocsr(), neighbours)


def vector_neighbours(vectors: np.ndarray, neighbours: int) -> sp.csr_matrix:
    """Compares items by the inner product of their unit vectors, exactly.

    Args:
        vectors: (I, d).
        neighbours: most entries of a row, the largest.
    Returns:
        (I, I) float32, empty diagonal, values > 0.
    """
    n = len(vectors)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    itself = np.arange(n + 1), np.arange(n)
    found = exact_search(vectors, vectors, min(neighbours, max(1, n - 1)), seen=itself)
    row, place = np.nonzero((found.item_idx >= 0) & (found.score > 0))
    columns, values = found.item_idx[row, place], found.score[row, place]
    return keep_largest(sp.csr_matrix((values, (row, columns)), shape=(n, n)), neighbours)


def _row_blocks(left: sp.csr_matrix, right: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """Multiplies left @ right without its diagonal, cut to a row's largest, in blocks that bound the memory."""
    n = left.shape[0]
    work = np.concatenate([[0], np.cumsum(np.minimum(left @ np.diff(right.indptr), right.shape[1]))])
    parts, start = [], 0
    while start < n:
        stop = max(start + 1, int(np.searchsorted(work, work[start] + BLOCK_ENTRIES, side="right")) - 1)
        product = (left[start:stop] @ right).tocsr()
        row = np.repeat(np.arange(start, stop), np.diff(product.indptr))
        product.data[row == product.indices] = 0
        parts.append(keep_largest(product, neighbours))
        start = stop
    return sp.vstack(parts, format="csr") if parts else sp.csr_matrix((n, n), dtype=np.float32)


def linear_weights(history: History, n_items: int, regularisation: float, neighbours: int) -> sp.csr_matrix:
    """Fits EASE's item-item weights (see ``ease_weights``), cut to the largest.

    Args:
        history: the users' items.
        n_items: at most 20,000: the inverse costs n_items^3 operations and 4 n_items^2 bytes.
        regularisation: > 0; 200 to 500 suits most data.
        neighbours: most entries of a column, by absolute value.
    Returns:
        (n_items, n_items) float32 csr; a user's scores are the sum of the rows of their items.
    Raises:
        DataError: an item_idx is not in 0..n_items-1, or n_items is over 20,000.
        ValueError: regularisation <= 0.
    """
    _check_items(history, n_items)
    if n_items > LINEAR_ITEMS:
        raise DataError(f"linear weights of {n_items:,} items: at most {LINEAR_ITEMS:,}; leave them out.")
    weights = ease_weights(user_item_matrix(history, n_items), regularisation)
    step = max(1, BLOCK_VALUES // n_items)
    columns = [weights[:, start : start + step].T for start in range(0, n_items, step)]
    return sp.vstack([keep_largest(sp.csr_matrix(part), neighbours) for part in columns], format="csr").T.tocsr()


def keep_largest(matrix: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """Keeps every row's ``neighbours`` entries of largest absolute value; equal ones by the lower column."""
    if neighbours < 1:
        raise ValueError(f"neighbours must be >= 1, got {neighbours}")
    matrix.eliminate_zeros()
    matrix.sort_indices()
    length = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), length)
    if length.max(initial=0) > neighbours:
        order = np.lexsort((matrix.indices, -np.abs(matrix.data), row))
        place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], length)
        keep = np.sort(order[place < neighbours])
    else:
        keep = np.arange(len(row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row[keep], minlength=matrix.shape[0]))])
    return sp.csr_matrix((matrix.data[keep].astype(np.float32), matrix.indices[keep], indptr), shape=matrix.shape)


def _check_items(history: History, n_items: int) -> None:
    if len(history.item_idx) and not 0 <= history.item_idx.min() <= history.item_idx.max() < n_items:
        raise DataError(
            f"the history holds item_idx {history.item_idx.min()} to {history.item_idx.max()}, "
            f"there are {n_items} items: from different runs?"
        )
