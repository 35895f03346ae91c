"""ScoredItems: lists returned by retrieval and ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredItems:
    """Ranked lists of n queries, best first.

    Args:
        item_idx: (n, k) int64. A row with fewer than k items ends in -1, and only there.
        score: (n, k) float32, falling along a row. -inf where item_idx is -1.
    """

    item_idx: np.ndarray
    score: np.ndarray


def empty_result(n: int, k: int) -> ScoredItems:
    """Makes (n, k) lists without items: item_idx -1, score -inf."""
    return ScoredItems(np.full((n, k), -1, dtype=np.int64), np.full((n, k), -np.inf, dtype=np.float32))


def resize(found: ScoredItems, k: int) -> ScoredItems:
    """Copies lists into exactly k columns, cut or padded.

    Args:
        found: (n, any number) items.
        k: columns of the copy.
    """
    n, width = found.item_idx.shape
    result = empty_result(n, k)
    result.item_idx[:, : min(k, width)] = found.item_idx[:, :k]
    result.score[:, : min(k, width)] = found.score[:, :k]
    return result
