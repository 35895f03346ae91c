"""Compressed rows of a ragged table: row r is ``values[indptr[r]:indptr[r + 1]]``."""

from __future__ import annotations

import numpy as np

Rows = tuple[np.ndarray, np.ndarray]  # indptr (n + 1,), item_idx (nnz,)
TABLE = 2**22  # cells; a boolean table of at most this size is cheaper than sorting


def row_positions(indptr: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the values of rows.

    Args:
        indptr: (m + 1,) of the whole table.
        chosen: (n,) row numbers.
    Returns:
        the chosen rows' own indptr (n + 1,), and the positions of their values in the table (nnz,), int64, in the
        order of ``chosen``.
    """
    start = indptr[chosen]
    length = indptr[chosen + 1] - start
    ends = np.zeros(len(length) + 1, dtype=np.int64)
    np.cumsum(length, out=ends[1:])
    positions = np.repeat(start - ends[:-1], length)
    positions += np.arange(len(positions))
    return ends, positions


def rows_of_pairs(user_idx: np.ndarray, item_idx: np.ndarray, n_users: int) -> Rows:
    """Compresses pairs to rows of distinct items, sorted.

    Args:
        user_idx, item_idx: (m,).
    Returns:
        (indptr (n_users + 1,), item_idx).
    """
    stride = int(np.max(item_idx, initial=0)) + 1
    keys = np.unique(np.asarray(user_idx, dtype=np.int64) * stride + item_idx)
    counts = np.bincount(keys // stride, minlength=n_users)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), keys % stride


def join_rows(one: Rows | None, other: Rows | None) -> Rows | None:
    """Appends each row of the second table to the same row of the first. None stands for a table of empty rows."""
    if one is None or other is None:
        return other if one is None else one
    row = np.repeat(np.tile(np.arange(len(one[0]) - 1), 2), np.concatenate([np.diff(one[0]), np.diff(other[0])]))
    order = np.argsort(row, kind="stable")
    return one[0] + other[0], np.concatenate([one[1], other[1]])[order]


def kept_entries(rows: Rows, kept: np.ndarray) -> Rows:
    """Filters the entries of compressed rows by a mask ``kept`` (nnz,)."""
    indptr, values = rows
    return np.concatenate([[0], np.cumsum(kept)])[indptr], values[kept]


def take_rows(rows: Rows, chosen: np.ndarray | slice) -> Rows:
    """Selects rows.

    Args:
        chosen: (n,) row numbers, or a slice with both ends.
    """
    indptr, values = rows
    if isinstance(chosen, slice):
        part = indptr[chosen.start : chosen.stop + 1]
        return part - part[0], values[part[0] : part[-1]]
    ends, positions = row_positions(indptr, chosen)
    return ends, values[positions]


def not_listed(listed: Rows, row: np.ndarray, value: np.ndarray, n_values: int) -> np.ndarray:
    """Finds the pairs that compressed rows do not hold.

    Args:
        listed: the compressed rows, with values in 0..n_values-1.
        row, value: (p,) pairs.
    Returns:
        (p,) bool, true for a pair that is not listed.
    """
    n = len(listed[0]) - 1
    key, listed_key = value, listed[1]
    if n > 1:
        key, listed_key = row * n_values + value, np.repeat(np.arange(n), np.diff(listed[0])) * n_values + listed[1]
    if n * n_values > TABLE:
        return np.asarray(~np.isin(key, listed_key))
    table = np.zeros(n * n_values, dtype=bool)
    table[listed_key] = True
    return np.asarray(~table[key])


def hit_matrix(item_idx: np.ndarray, rows: Rows) -> np.ndarray:
    """Marks the places of lists that hold an item of the list's own row. -1 never does.

    Args:
        item_idx: (n, K).
        rows: compressed rows of n sets.
    Returns:
        (n, K) bool.
    Raises:
        ValueError: an item repeats within a list or within a row.

    >>> import numpy as np
    >>> from reckg.arrays.ragged_rows import hit_matrix
    >>> hit_matrix(np.array([[3, 1, -1]]), (np.array([0, 2]), np.array([1, 5]))).tolist()
    [[False, True, False]]
    """
    n, width = item_idx.shape
    indptr, members = rows
    highest = max(int(item_idx.max(initial=0)), int(members.max(initial=0)))
    stride = highest + 2  # more than n_items, so that a row's padding meets no item of the row before
    lists = item_idx + np.arange(n, dtype=np.int64)[:, None] * stride
    real = item_idx >= 0
    ordered = np.sort(np.where(real, lists, -1 - np.arange(width)), axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ValueError("a ranked list holds an item twice")
    keys = np.sort(np.repeat(np.arange(n, dtype=np.int64), np.diff(indptr)) * stride + members)
    if (keys[1:] == keys[:-1]).any():
        raise ValueError("a row of items holds an item twice")
    if not len(keys):
        return np.zeros((n, width), dtype=bool)
    place = np.minimum(np.searchsorted(keys, lists), len(keys) - 1)
    hits: np.ndarray = keys[place] == lists
    return hits
