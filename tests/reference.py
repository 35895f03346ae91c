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


# ---------------------------------------------------------------------------------------------------------------------
# Diversity after ranking: one list, the papers' greedy searches word for word.
# ---------------------------------------------------------------------------------------------------------------------


def slow_mmr(scores: Sequence[float], vectors: Sequence[Sequence[float]], weight: float, m: int) -> list[int]:
    def likeness(a: Sequence[float], b: Sequence[float]) -> float:
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        return 0.5 + 0.5 * cosine

    chosen: list[int] = []
    while len(chosen) < m:
        worth = {}
        for i in range(len(scores)):
            if i not in chosen:
                nearest = max((likeness(vectors[i], vectors[j]) for j in chosen), default=0.0)
                worth[i] = (1 - weight) * scores[i] - weight * nearest
        chosen.append(max(worth, key=lambda i: worth[i]))
    return chosen


def slow_calibrated(
    scores: Sequence[float], values: Sequence[Sequence[float]], mix: Sequence[float], weight: float, m: int
) -> list[int]:
    def divergence(items: Sequence[int]) -> float:
        some = [values[i] for i in items if sum(values[i]) > 0]
        total = 0.0
        for g, p in enumerate(mix):
            q = sum(row[g] for row in some) / len(some) if some else 0.0
            if p > 0:
                total += p * math.log(p / (0.99 * q + 0.01 * p))
        return total

    chosen: list[int] = []
    while len(chosen) < m:
        worth = {}
        for i in range(len(scores)):
            if i not in chosen:
                worth[i] = (1 - weight) * sum(scores[j] for j in [*chosen, i]) - weight * divergence([*chosen, i])
        chosen.append(max(worth, key=lambda i: worth[i]))
    return chosen
