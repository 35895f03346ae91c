"""ScoredItems: what retrieval and ranking return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredItems:
    """Ranked lists of n queries, best first.

    item_idx (n, k) int64, score (n, k) float32 with score falling along a row. Where fewer than k items
    exist, the rest of the row is item_idx -1 and score -inf; nothing else ever is negative.
    """

    item_idx: np.ndarray
    score: np.ndarray
