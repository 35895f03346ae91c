"""Sums of rows of a sparse matrix, one sum a query, with the same bits for a query alone and in a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from reckg.compressed_rows import Rows, row_positions
from reckg.ranking.grown_matrix import GrownMatrix
from reckg.retrieval.exact import empty_result, write_best
from reckg.retrieval.scored_items import ScoredItems

Matrix = sp.csr_matrix | GrownMatrix

FEW_ENTRIES = 2**16  # up to here NumPy beats scipy's product, which has a price per call
SPARSE = 16  # columns an entry from which on only those that occur are held


@dataclass(frozen=True)
class RowSums:
    """values (w, n, u) float64 of n queries under w weightings; columns (u,): which, sorted; None: all of them."""

    values: np.ndarray
    columns: np.ndarray | None

    def at(self, weighting: int, columns: np.ndarray) -> np.ndarray:
        """(n, c): the sums of each query at its (n, c) columns."""
        return self.of(weighting, np.arange(self.values.shape[1])[:, None], columns)

    def of(self, weighting: int, query: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The sums of pairs of a query and a column, in the shape of the columns."""
        if self.columns is None:
            return self.values[weighting, query, column]
        if not len(self.columns):
            return np.zeros(column.shape)
        place = np.minimum(np.searchsorted(self.columns, column), len(self.columns) - 1)
        return np.where(self.columns[place] == column, self.values[weighting, query, place], 0.0)

    def top(self, weighting: int, k: int, blocked: Rows | None, allowed: np.ndarray | None = None) -> ScoredItems:
        """(n, k): the columns of the largest sums above 0, equal ones by the lower column.

        blocked: compressed rows of the columns that each query leaves out. allowed: (columns,) bool, the only ones.
        """
        sums = self.values[weighting].copy()
        n, width = sums.shape
        if blocked is not None and width:
            query, column = np.repeat(np.arange(n), np.diff(blocked[0])), blocked[1]
            if self.columns is not None:
                place = np.minimum(np.searchsorted(self.columns, column), width - 1)
                there = self.columns[place] == column
                query, column = query[there], place[there]
            sums[query, column] = 0
        if allowed is not None:
            sums[:, ~(allowed if self.columns is None else allowed[self.columns])] = 0
        query, column = np.nonzero((sums >= _floor(sums, k)) & (sums > 0))
        found = empty_result(n, k)
        score = sums[query, column].astype(np.float32)
        write_best(found, 0, query, column if self.columns is None else self.columns[column], score)
        return found


def _floor(sums: np.ndarray, k: int) -> np.ndarray:
    """(n, 1): no more than the k-th largest of every row: the k-th of the largest of at least k groups of columns."""
    n, width = sums.shape
    if k >= width:
        return np.zeros((n, 1))
    size = max(1, width // (4 * k))
    groups = width // size
    best = sums[:, : groups * size].reshape(n, size, groups).max(axis=1)
    return np.partition(best, groups - k, axis=1)[:, [groups - k]]


def row_sums(matrix: Matrix, query: np.ndarray, row: np.ndarray, weights: np.ndarray, n: int) -> RowSums:
    """Of each of n queries the sum of its rows of a (m, columns) matrix, each times its weight.

    Args:
        query, row: (h,) which query takes which row, queries rising.
        weights: (w, h): weightings, each of which gives sums of its own.
    """
    columns = matrix.shape[1]
    lengths = matrix.lengths(row) if isinstance(matrix, GrownMatrix) else matrix.indptr[row + 1] - matrix.indptr[row]
    entries = int(lengths.sum())
    if entries > FEW_ENTRIES:
        return RowSums(_product(matrix, query, row, weights, n), None)
    place, column, value = row_entries(matrix, row)
    touched = None
    if n * columns > SPARSE * entries:
        touched, column = np.unique(column, return_inverse=True)
        columns = len(touched)
    key = column if n == 1 else query[place] * columns + column
    sums = [np.bincount(key, value * weight[place], minlength=n * columns) for weight in weights]
    return RowSums(np.stack(sums).reshape(len(weights), n, columns), touched)


def _product(matrix: Matrix, query: np.ndarray, row: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    """(w, n, columns) the sums by a sparse product; what a matrix has grown by is added last, as row_entries has it."""
    if isinstance(matrix, GrownMatrix):
        out = np.zeros((len(weights), n, matrix.shape[1]))
        old = row < matrix.base.shape[0]
        out[:, :, : matrix.base.shape[1]] = _product(matrix.base, query[old], row[old], weights[:, old], n)
        place, column, value = matrix.added_entries(row)
        for sums, weight in zip(out, weights, strict=True):
            np.add.at(sums, (query[place], column), value * weight[place])
        return out
    length = np.bincount(query, minlength=n)
    indptr = np.concatenate([[0], np.cumsum(np.tile(length, len(weights)))])
    parts = weights.ravel(), np.tile(row, len(weights)), indptr
    left = sp.csr_matrix(parts, shape=(len(weights) * n, matrix.shape[0]))
    return (left @ matrix).toarray().reshape(len(weights), n, matrix.shape[1])


def row_entries(matrix: Matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of (r,) rows: (place in ``rows``, column, value), each (e,)."""
    if isinstance(matrix, GrownMatrix):
        return matrix.entries(rows)
    ends, position = row_positions(matrix.indptr, rows)
    place = np.repeat(np.arange(len(rows)), np.diff(ends))
    return place, matrix.indices[position], matrix.data[position]
