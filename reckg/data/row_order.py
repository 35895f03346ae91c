"""The order of many rows by several whole numbers, packed into one, which sorts several times faster."""

from __future__ import annotations

import numpy as np
import polars as pl

LARGEST = 2**63 - 1


def row_order(*keys: np.ndarray) -> np.ndarray:
    """(n,) int64: the rows by the first key, then by the next, equal ones as they come. keys: (n,) whole numbers."""
    n = len(keys[0])
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    lowest = [int(key.min()) for key in keys]
    spans = [int(key.max()) - low + 1 for key, low in zip(keys, lowest, strict=True)]
    total = 1
    for span in spans:
        total *= span
    if total > LARGEST:
        return np.lexsort(keys[::-1])
    packed = np.zeros(n, dtype=np.int64)
    for key, low, span in zip(keys, lowest, spans, strict=True):
        packed *= span
        packed += key
        packed -= low
    if total * n > LARGEST:
        return pl.DataFrame({"key": packed}).select(pl.arg_sort_by("key", maintain_order=True))["key"].to_numpy()
    packed *= n
    packed += np.arange(n)
    return pl.Series(packed).sort().to_numpy() % n
