"""Arrays that get rows without a copy of the rows before."""

from __future__ import annotations

from typing import Any

import numpy as np


class ExtendedArray:
    """An array of shape (n + m, ...): the n rows of ``base``, then m added rows.

    It is indexed by row numbers as an array is, and returns copies. Its memory grows by the added rows alone, so that
    the base may be large, mapped into memory and shared between processes.
    """

    def __init__(self, base: np.ndarray | ExtendedArray, added: np.ndarray) -> None:
        before = [base.added] if isinstance(base, ExtendedArray) else []
        self.base: np.ndarray = base.base if isinstance(base, ExtendedArray) else base
        self.added: np.ndarray = np.concatenate([*before, added]).astype(self.base.dtype, copy=False)
        self.shape: tuple[int, ...] = (len(self.base) + len(self.added), *self.base.shape[1:])
        self.dtype: np.dtype[Any] = self.base.dtype
        self.ndim: int = self.base.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Selects rows.

        Args:
            key: a row number, an integer array of any shape, or a slice; or a tuple of this and the indices of the
                other axes.
        """
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows, n = np.asarray(rows), len(self.base)
        new = rows >= n
        if not new.any():
            return np.asarray(self.base[(rows, *rest)])
        out = np.asarray(self.base[(np.where(new, 0, rows), *rest)])
        out[new] = self.added[(rows - n)[new], *rest] if rest else self.added[(rows - n)[new]]
        return out

    def take(self, rows: np.ndarray, axis: int = 0) -> np.ndarray:
        """Selects rows, as ``numpy.ndarray.take`` does along axis 0."""
        if axis:
            raise ValueError(f"rows alone can be taken, not along axis {axis}")
        return self.base.take(rows, axis=0) if rows.size == 0 or rows.max() < len(self.base) else self[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Copies all rows into one array."""
        return np.concatenate([self.base, self.added]).astype(dtype or self.dtype, copy=False)


Array = np.ndarray | ExtendedArray
