"""Slow, obvious versions of what the library does fast; the tests ask both for the same answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

# ---------------------------------------------------------------------------------------------------------------------
# Ranking metrics: Python lists and sets, one user, one loop.
# ---------------------------------------------------------------------------------------------------------------------


def slow_recall(ranked: Sequence[int], relevant: set[int], k: int) -> float:
    return len([item for item in ranked[:k] if item in relevant]) / len(relevant)


def slow_hit(ranked: Sequence[int], relevant: set[int], k: int) -> float:
    return 1.0 if any(item in relevant for item in ranked[:k]) else 0.0


def slow_mrr(ranked: Sequence[int], relevant: set[int], k: int) -> float:
    for place, item in enumerate(ranked[:k], start=1):
        if item in relevant:
            return 1.0 / place
    return 0.0


def slow_ndcg(ranked: Sequence[int], relevant: set[int], k: int) -> float:
    gain = 0.0
    for place, item in enumerate(ranked[:k], start=1):
        if item in relevant:
            gain += 1.0 / math.log2(place + 1)
    ideal = 0.0
    for place in range(1, min(k, len(relevant)) + 1):
        ideal += 1.0 / math.log2(place + 1)
    return gain / ideal


def slow_coverage(lists: Sequence[Sequence[int]], n_items: int, k: int) -> float:
    shown: set[int] = set()
    for ranked in lists:
        shown.update(item for item in ranked[:k] if item >= 0)
    return len(shown) / n_items


def slow_top_items(scores: Sequence[float], seen: set[int], k: int) -> list[int]:
    """Item indices by falling score, equal scores by lower index, without the seen."""
    allowed = [item for item in range(len(scores)) if item not in seen]
    return sorted(allowed, key=lambda item: (-scores[item], item))[:k]
