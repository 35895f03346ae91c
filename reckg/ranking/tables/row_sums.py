"""Sums of rows of a sparse matrix, a sum per query, with the same bits for a query alone and in a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from reckg.arrays.extended_matrix import ExtendedMatrix
from reckg.arrays.ragged_rows import Rows, not_listed, row_positions
from reckg.retrieval.exact import write_best
from reckg.retrieval.scored_items import ScoredItems, empty_result

Matrix: TypeAlias = sp.csr_matrix | ExtendedMatrix

FEW_ENTRIES = 2**16  # up to here NumPy beats SciPy's product, which costs more per call
ABOVE_ZERO = np.nextafter(0.0, 1.0)
SPARSE = 16  # columns per entry from which on only occurring columns are held


@dataclass(frozen=True)
class RowSums:
    """The sums of n queries under w weightings.

    Args:
        values: (w, n, u) float64.
        columns: (u,) the columns of the values, sorted; None: all n_columns.
    """

    values: np.ndarray
    columns: np.ndarray | None
    n_columns: int

    def at(self, columns: np.ndarray) -> np.ndarray:
        """Looks up the sums of each query at its columns.

        Args:
            columns: (n, c).
        Returns:
            (w, n, c).
        """
        return self.of(np.arange(self.values.shape[1])[:, None], columns)

    def of(self, query: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Looks up the sums of pairs of a query and a column.

        Returns:
            (w, ...), in the shape of the columns.
        """
        w, n, width = self.values.shape
        flat = self.values.reshape(w, n * width)
        start: Any = query * width if n > 1 else 0
        if self.columns is None:
            sums: np.ndarray = flat.take(start + column, axis=1)
            return sums
        if not width:
            return np.zeros((w, *column.shape))
        place = np.minimum(np.searchsorted(self.columns, column), width - 1)
        return np.where(self.columns[place] == column, flat.take(start + place, axis=1), 0.0)

    def top(self, weighting: int, k: int, blocked: Rows | None, allowed: np.ndarray | None = None) -> ScoredItems:
        """Finds the columns of the largest sums above 0, equal ones by the lower column.

        Args:
            weighting: index of a weighting.
            blocked: compressed rows of the columns that each query leaves out.
            allowed: (columns,) bool, the only candidates.
        Returns:
            (n, k).
        """
        sums = self.values[weighting]
        n, width = sums.shape
        if allowed is not None:
            sums = np.where(allowed if self.columns is None else allowed[self.columns], sums, 0)
        spare = 0 if blocked is None else int((blocked[0][1:] - blocked[0][:-1]).max(initial=0))
        place = np.flatnonzero(sums >= np.maximum(_floor(sums, k + spare), ABOVE_ZERO))
        score = sums.ravel()[place].astype(np.float32)
        query, column = np.divmod(place, width) if n > 1 else (np.zeros_like(place), place)
        if self.columns is not None:
            column = self.columns[column]
        if spare and blocked is not None:
            fresh = not_listed(blocked, query, column, self.n_columns)
            query, column, score = query[fresh], column[fresh], score[fresh]
        found = empty_result(n, k)
        write_best(found, 0, query, column, score)
        return found


def _floor(sums: np.ndarray, k: int) -> np.ndarray:
    """Bounds every row's k-th largest sum from below: the k-th of the largest sums of k or more groups. (n, 1)."""
    n, width = sums.shape
    if k >= width:
        return np.zeros((n, 1))
    size = max(1, width // (4 * k))
    groups = width // size
    best = sums[:, : groups * size].reshape(n, size, groups).max(axis=1)
    return np.partition(best, groups - k, axis=1)[:, [groups - k]]


def row_sums(matrix: Matrix, query: np.ndarray, row: np.ndarray, weights: Sequence[np.ndarray], n: int) -> RowSums:
    """Sums rows of a matrix for each query, each times its weight.

    Args:
        matrix: (m, columns).
        query, row: (h,) the row that a query takes, queries rising.
        weights: w weightings (h,), each with sums of its own.
        n: number of queries.
    """
    columns = matrix.shape[1]
    if isinstance(matrix, ExtendedMatrix):
        if matrix.lengths(row).sum() > FEW_ENTRIES:
            return RowSums(_product(matrix, query, row, weights, n), None, columns)
        place, column, value = matrix.entries(row)
        spread: Callable[[np.ndarray], np.ndarray] = lambda of_rows: of_rows[place]  # noqa: E731
    else:
        ends, position = row_positions(matrix.indptr, row)
        if len(position) > FEW_ENTRIES:
            return RowSums(_product(matrix, query, row, weights, n), None, columns)
        length, column, value = ends[1:] - ends[:-1], matrix.indices.take(position), matrix.data.take(position)
        spread = lambda of_rows: np.repeat(of_rows, length)  # noqa: E731
    touched, width = None, columns
    if n * columns > SPARSE * len(column):
        touched, column = np.unique(column, return_inverse=True)
        width = len(touched)
    key = column.astype(np.int64) if n == 1 else spread(query * width) + column
    sums = [np.bincount(key, value * spread(weight), minlength=n * width) for weight in weights]
    values = np.concatenate(sums, dtype=np.float64) if len(column) else np.zeros(len(weights) * n * width)
    return RowSums(values.reshape(len(weights), n, width), touched, columns)


def _product(matrix: Matrix, query: np.ndarray, row: np.ndarray, weights: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Sums by a sparse product: (w, n, columns). Entries of an extension are added last, like its rows."""
    if isinstance(matrix, ExtendedMatrix):
        out = np.zeros((len(weights), n, matrix.shape[1]))
        old = row < matrix.base.shape[0]
        of_old = [weight[old] for weight in weights]
        out[:, :, : matrix.base.shape[1]] = _product(matrix.base, query[old], row[old], of_old, n)
        place, column, value = matrix.read_added_entries(row)
        for sums, weight in zip(out, weights, strict=True):
            np.add.at(sums, (query[place], column), value * weight[place])
        return out
    length = np.bincount(query, minlength=n)
    indptr = np.concatenate([[0], np.cumsum(np.tile(length, len(weights)))])
    parts = np.concatenate(weights), np.tile(row, len(weights)), indptr
    left = sp.csr_matrix(parts, shape=(len(weights) * n, matrix.shape[0]))
    product: np.ndarray = (left @ matrix).toarray().reshape(len(weights), n, matrix.shape[1])
    return product


def row_entries(matrix: Matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists the entries of rows, one row after the other.

    Args:
        rows: (r,).
    Returns:
        Number of entries of each row (r,), columns and values, each (e,).
    """
    if isinstance(matrix, ExtendedMatrix):
        place, column, value = matrix.entries(rows)
        order = np.argsort(place, kind="stable")
        return np.bincount(place, minlength=len(rows)), column[order], value[order]
    ends, position = row_positions(matrix.indptr, rows)
    return ends[1:] - ends[:-1], matrix.indices.take(position), matrix.data.take(position)
