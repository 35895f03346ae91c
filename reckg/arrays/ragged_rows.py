"""Compressed rows: row r of a ragged table is ``values[indptr[r]:indptr[r + 1]]``."""

from __future__ import annotations

import numpy as np

Rows = tuple[np.ndarray, np.ndarray]  # indptr (n + 1,), item_idx (nnz,)
TABLE = 2**22  # cells up to which a table of what is listed is cheaper than sorting


def row_positions(indptr: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows ``which`` (n,), in that order: their own indptr (n + 1,), and the positions of their values, int64."""
    start = indptr[which]
    length = indptr[which + 1] - start
    ends = np.zeros(len(length) + 1, dtype=np.int64)
    np.cumsum(length, out=ends[1:])
    positions = np.repeat(start - ends[:-1], length)
    positions += np.arange(len(positions))
    return ends, positions


def joined_rows(one: Rows | None, other: Rows | None) -> Rows | None:
    """The rows of two as one: each row's values of the first, then those of the second. None is no value anywhere."""
    if one is None or other is None:
        return other if one is None else one
    row = np.repeat(np.tile(np.arange(len(one[0]) - 1), 2), np.concatenate([np.diff(one[0]), np.diff(other[0])]))
    order = np.argsort(row, kind="stable")
    return one[0] + other[0], np.concatenate([one[1], other[1]])[order]


def kept_entries(rows: Rows, kept: np.ndarray) -> Rows:
    """The rows with those entries alone where ``kept`` (nnz,) is true."""
    indptr, values = rows
    return np.concatenate([[0], np.cumsum(kept)])[indptr], values[kept]


def take_rows(rows: Rows, which: np.ndarray | slice) -> Rows:
    """The rows ``which``: (n,) row numbers, in that order, or a slice."""
    indptr, values = rows
    if isinstance(which, slice):
        part = indptr[which.start : which.stop + 1]
        return part - part[0], values[part[0] : part[-1]]
    ends, positions = row_positions(indptr, which)
    return ends, values[positions]


def not_listed(listed: Rows, row: np.ndarray, value: np.ndarray, n_values: int) -> np.ndarray:
    """(p,) bool: which of the pairs (row, value), values 0..n_values-1, are not in the compressed rows."""
    n = len(listed[0]) - 1
    key, listed_key = value, listed[1]
    if n > 1:
        key, listed_key = row * n_values + value, np.repeat(np.arange(n), np.diff(listed[0])) * n_values + listed[1]
    if n * n_values > TABLE:
        return ~np.isin(key, listed_key)
    table = np.zeros(n * n_values, dtype=bool)
    table[listed_key] = True
    return ~table[key]
