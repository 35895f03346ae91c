"""GrownMatrix: more rows, columns and entries on a sparse matrix that is not copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from reckg.arrays.ragged_rows import row_positions


@dataclass(frozen=True, eq=False)
class GrownMatrix:
    """``base`` (n, c) csr and more entries, of its rows and of others, in the order in which they were added.

    shape: of the whole. row (e,) rising, column and value (e,): the more entries.
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
        """(r,) entries of each of (r,) rows."""
        inside = np.minimum(rows, self.base.shape[0] - 1)
        base = np.where(rows == inside, self.base.indptr[inside + 1] - self.base.indptr[inside], 0)
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        return np.asarray(base + last - first)

    def entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(place in ``rows``, column, value), each (e,): those of the base, then the others."""
        inside = np.flatnonzero(rows < self.base.shape[0])
        ends, position = row_positions(self.base.indptr, rows[inside])
        of_base = np.repeat(inside, np.diff(ends)), self.base.indices[position], self.base.data[position]
        place, column, value = (np.concatenate(parts) for parts in zip(of_base, self.added_entries(rows), strict=True))
        return place, column, value

    def added_entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of ``entries`` those that the base does not have."""
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        ends = np.concatenate([[0], np.cumsum(last - first)])
        position = np.arange(ends[-1]) - np.repeat(ends[:-1] - first, last - first)
        place = np.repeat(np.arange(len(rows)), last - first)
        dtypes = self.base.indices.dtype, self.base.data.dtype
        return place, self.column[position].astype(dtypes[0]), self.value[position].astype(dtypes[1])


def grown_matrix(
    matrix: sp.csr_matrix | GrownMatrix,
    shape: tuple[int, int],
    row: np.ndarray | None = None,
    column: np.ndarray | None = None,
    value: np.ndarray | None = None,
) -> GrownMatrix:
    """The matrix at a larger shape, with (e,) more entries."""
    nothing = np.empty(0, dtype=np.int64)
    old = matrix if isinstance(matrix, GrownMatrix) else GrownMatrix(matrix, shape, nothing, nothing, np.empty(0))
    if row is None or column is None or value is None:
        return GrownMatrix(old.base, shape, old.row, old.column, old.value)
    rows = np.concatenate([old.row, row])
    order = np.argsort(rows, kind="stable")
    columns, values = np.concatenate([old.column, column]), np.concatenate([old.value, value])
    return GrownMatrix(old.base, shape, rows[order], columns[order], values[order])
