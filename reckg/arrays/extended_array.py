"""GrownArray: rows behind those of an array that is not copied."""

from __future__ import annotations

from typing import Any

import numpy as np


class GrownArray:
    """(n + m, ...): the n rows of ``base`` and m more. Indexed by row numbers as an array is; what comes out is a copy.

    It grows by what is added alone, so that the base may be large, mapped into memory and shared between processes.
    """

    def __init__(self, base: np.ndarray | GrownArray, more: np.ndarray) -> None:
        before = [base.more] if isinstance(base, GrownArray) else []
        self.base: np.ndarray = base.base if isinstance(base, GrownArray) else base
        self.more: np.ndarray = np.concatenate([*before, more]).astype(self.base.dtype, copy=False)
        self.shape: tuple[int, ...] = (len(self.base) + len(self.more), *self.base.shape[1:])
        self.dtype: np.dtype[Any] = self.base.dtype
        self.ndim: int = self.base.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Rows by number, an array of any shape, or a slice; behind a comma what is taken of each."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows, n = np.asarray(rows), len(self.base)
        new = rows >= n
        if not new.any():
            return np.asarray(self.base[(rows, *rest)])
        out = np.asarray(self.base[(np.where(new, 0, rows), *rest)])
        out[new] = self.more[(rows - n)[new], *rest] if rest else self.more[(rows - n)[new]]
        return out

    def take(self, rows: np.ndarray, axis: int = 0) -> np.ndarray:
        """As an array's, of rows."""
        if axis:
            raise ValueError(f"rows alone can be taken, not along axis {axis}")
        return self.base.take(rows, axis=0) if rows.size == 0 or rows.max() < len(self.base) else self[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows, copied."""
        return np.concatenate([self.base, self.more]).astype(dtype or self.dtype, copy=False)


Array = np.ndarray | GrownArray
