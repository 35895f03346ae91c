"""Item-item matrices for ranking: co-occurrence in users' histories, and a linear model (EASE)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History
from reckg.errors import DataError
from reckg.ranking.linear import BLOCK_VALUES, ease_weights, user_item_matrix

WINDOW = 5  # steps within which two items of an ordered history count as a pair
LINEAR_ITEMS = 20_000
BASKET_ITEMS = 500  # the latest items of an unordered history that are paired; bounds the work to this squared per user


def cooccurrence(history: History, n_items: int, neighbours: int, ordered: bool) -> sp.csr_matrix:
    """How often two items occur in the same histories, by the cosine of their counts.

    Unordered: c(i, j) users have both, similarity c(i, j) / sqrt(c(i, i) c(j, j)). Ordered: a pair counts
    1 / distance where the two lie at most 5 steps apart in a history; the same normalisation over item counts.

    Args:
        history: users' items, oldest first; repeats of an item by a user count once where unordered.
        n_items: rows and columns of the result.
        neighbours: entries kept of a row at most, the largest.
        ordered: whether the order within a history means something.
    Returns:
        (n_items, n_items) float32, symmetric before it is cut to the neighbours, empty diagonal, values > 0.
    Raises:
        DataError: an item_idx is not in 0..n_items-1.
    Source: Sarwar et al. 2001, doi:10.1145/371920.372071 (cosine item-item similarity).
    """
    _check_items(history, n_items)
    pairs = _pairs_in_order(history, n_items) if ordered else _pairs_in_baskets(history, n_items)
    count = np.bincount(history.item_idx, minlength=n_items) if ordered else pairs.diagonal()
    norm = np.where(count > 0, 1 / np.sqrt(np.maximum(count, 1)), 0).astype(np.float32)
    pairs.setdiag(0)
    similarity = sp.diags(norm) @ pairs @ sp.diags(norm)
    return keep_largest(similarity.tocsr(), neighbours)


def _pairs_in_order(history: History, n_items: int) -> sp.csr_matrix:
    """(n_items, n_items) float32: sum of 1 / distance over the pairs within the window, both ways."""
    user = np.repeat(np.arange(history.n_users), np.diff(history.indptr))
    total = sp.csr_matrix((n_items, n_items), dtype=np.float32)
    for distance in range(1, WINDOW + 1):
        same = user[distance:] == user[:-distance]
        left, right = history.item_idx[:-distance][same], history.item_idx[distance:][same]
        weight = np.full(len(left), 1 / distance, dtype=np.float32)
        total = total + sp.csr_matrix((weight, (left, right)), shape=(n_items, n_items))
    return (total + total.T).tocsr()


def _pairs_in_baskets(history: History, n_items: int) -> sp.csr_matrix:
    """(n_items, n_items) float32: users that have both items."""
    matrix = user_item_matrix(history, n_items, latest=BASKET_ITEMS)
    return (matrix.T @ matrix).tocsr()


def linear_weights(history: History, n_items: int, regularisation: float, neighbours: int) -> sp.csr_matrix:
    """EASE's item-item weights (see ``ease_weights``), cut to the largest.

    Args:
        history: the users' items.
        n_items: at most 20,000: the inverse costs n_items^3 operations and 4 n_items^2 bytes.
        regularisation: > 0; 200 to 500 suits most data.
        neighbours: entries kept of a column at most, those of the largest absolute value.
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
    """Every row's ``neighbours`` entries of the largest absolute value; equal ones by the lower column."""
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
