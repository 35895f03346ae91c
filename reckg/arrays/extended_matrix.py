"""Sparse matrices that get rows, columns and entries without a copy of the entries before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from reckg.arrays.ragged_rows import row_positions


@dataclass(frozen=True, eq=False)
class ExtendedMatrix:
    """A csr matrix ``base`` of shape (n, c) with e added entries, of its own rows or of new ones.

    Attributes:
        shape: the shape with the added rows and columns.
        row: (e,) rows of the added entries, rising; entries of the same row keep the order of their addition.
        column, value: (e,) columns and values of the added entries.
    """

    base: sp.csr_matrix
    shape: tuple[int, int]
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray

    @property
    def nnz(self) -> int:
        return int(self.base.nnz) + len(self.row)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Counts the entries of rows.

        Args:
            rows: (r,) row numbers.
        Returns:
            (r,) counts.
        """
        inside = np.minimum(rows, self.base.shape[0] - 1)
        base = np.where(rows == inside, self.base.indptr[inside + 1] - self.base.indptr[inside], 0)
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        return np.asarray(base + last - first)

    def entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads the entries of rows: those of the base, then the added ones.

        Args:
            rows: (r,) row numbers.
        Returns:
            (place in ``rows``, column, value), each (e,).
        """
        inside = np.flatnonzero(rows < self.base.shape[0])
        ends, position = row_positions(self.base.indptr, rows[inside])
        of_base = np.repeat(inside, np.diff(ends)), self.base.indices[position], self.base.data[position]
        place, column, value = (
            np.concatenate(parts) for parts in zip(of_base, self.read_added_entries(rows), strict=True)
        )
        return place, column, value

    def read_added_entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads the added entries of rows, in the form of ``entries``."""
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        ends = np.concatenate([[0], np.cumsum(last - first)])
        position = np.arange(ends[-1]) - np.repeat(ends[:-1] - first, last - first)
        place = np.repeat(np.arange(len(rows)), last - first)
        dtypes = self.base.indices.dtype, self.base.data.dtype
        return place, self.column[position].astype(dtypes[0]), self.value[position].astype(dtypes[1])


def extend_matrix(
    matrix: sp.csr_matrix | ExtendedMatrix,
    shape: tuple[int, int],
    row: np.ndarray | None = None,
    column: np.ndarray | None = None,
    value: np.ndarray | None = None,
) -> ExtendedMatrix:
    """Extends a matrix.

    Args:
        matrix: the matrix, extended before or not; it stays as it is.
        shape: the new shape, at least as large.
        row, column, value: (e,) entries to add; None adds none.
    """
    nothing = np.empty(0, dtype=np.int64)
    old = matrix if isinstance(matrix, ExtendedMatrix) else ExtendedMatrix(matrix, shape, nothing, nothing, np.empty(0))
    if row is None or column is None or value is None:
        return ExtendedMatrix(old.base, shape, old.row, old.column, old.value)
    rows = np.concatenate([old.row, row])
    order = np.argsort(rows, kind="stable")
    columns, values = np.concatenate([old.column, column]), np.concatenate([old.value, value])
    return ExtendedMatrix(old.base, shape, rows[order], columns[order], values[order])
