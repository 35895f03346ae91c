"""Slow, obvious versions of the library's fast functions. Tests compare the results of both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

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


def slow_precision(ranked: Sequence[int], relevant: set[int], k: int) -> float:
    return len([item for item in ranked[:k] if item in relevant]) / k


def slow_map(ranked: Sequence[int], relevant: set[int], k: int) -> float:
    total = 0.0
    for place, item in enumerate(ranked[:k], start=1):
        if item in relevant:
            total += slow_precision(ranked, relevant, place)
    return total / min(k, len(relevant))


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


# ---------------------------------------------------------------------------------------------------------------------
# Metrics of RecBole 1.2 for a set of full lists (recbole/evaluator/metrics.py) at a cut-off, described independently:
# means over users for the metrics above, which it defines alike; and the following of the lists together.
# ---------------------------------------------------------------------------------------------------------------------


def slow_average_popularity(lists: Sequence[Sequence[int]], count: dict[int, int]) -> float:
    """Training interactions of the shown items, the mean within a list, then over the lists."""
    return sum(sum(count.get(item, 0) for item in ranked) / len(ranked) for ranked in lists) / len(lists)


def slow_entropy(lists: Sequence[Sequence[int]]) -> float:
    """Entropy in nats of the shown items' shares of the places, over the number of different items shown."""
    places = [item for ranked in lists for item in ranked]
    shares = [places.count(item) / len(places) for item in set(places)]
    return -sum(share * math.log(share) for share in shares) / len(shares)


def slow_gini(lists: Sequence[Sequence[int]], n_items: int) -> float:
    """Gini index of the places over all n_items items, as the mean difference of all pairs over twice the mean."""
    places = [item for ranked in lists for item in ranked]
    counts = [places.count(item) for item in range(n_items)]
    differences = sum(abs(a - b) for a in counts for b in counts)
    return differences / (2 * n_items * sum(counts))


def slow_tail_share(lists: Sequence[Sequence[int]], tail: set[int]) -> float:
    return sum(sum(item in tail for item in ranked) / len(ranked) for ranked in lists) / len(lists)


def slow_tail_items(count: dict[int, int], ratio: float) -> set[int]:
    """The least popular ratio of the items of training, equal ones by lower item, one at least."""
    ordered = sorted(count, key=lambda item: (count[item], item))
    return set(ordered[: max(int(len(ordered) * ratio), 1)])


def slow_intra_list_diversity(vectors: Sequence[Sequence[float]]) -> float:
    """Mean of 1 - cosine over the pairs of different vectors, none of them zero."""
    total, pairs = 0.0, 0
    for a in range(len(vectors)):
        for b in range(a):
            dot = sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))
            total += 1 - dot / math.sqrt(sum(x * x for x in vectors[a]) * sum(y * y for y in vectors[b]))
            pairs += 1
    return total / pairs


def slow_miscalibration(history: Sequence[set[str]], ranked: Sequence[set[str]], smoothing: float = 0.01) -> float:
    """Steck 2018: KL of the list's mix of values from the history's, an item's values having equal parts of it."""

    def mix(items: Sequence[set[str]]) -> dict[str, float]:
        share: dict[str, float] = {}
        for values in items:
            for value in values:
                share[value] = share.get(value, 0.0) + 1 / len(values)
        return {value: mass / sum(share.values()) for value, mass in share.items()}

    p, q = mix(history), mix(ranked)
    return sum(p[v] * math.log(p[v] / ((1 - smoothing) * q.get(v, 0.0) + smoothing * p[v])) for v in p)


# ---------------------------------------------------------------------------------------------------------------------
# Counterfactual estimates of a mean reward, one value each.
# ---------------------------------------------------------------------------------------------------------------------


def ips(reward: np.ndarray, weight: np.ndarray) -> float:
    """Inverse propensity scoring: the mean of weight x reward over (n,) rows. Unbiased without clipping.

    Source: Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446.
    """
    return float(np.mean(weight * reward))


def snips(reward: np.ndarray, weight: np.ndarray) -> float:
    """Self-normalised IPS: the weighted mean of the (n,) rewards, never outside their range; NaN where no row counts.

    Source: Swaminathan & Joachims 2015, The self-normalized estimator for counterfactual learning, NeurIPS.
    """
    total = float(np.sum(weight))
    return float(np.sum(weight * reward)) / total if total > 0 else float("nan")


def doubly_robust(reward: np.ndarray, weight: np.ndarray, shown: np.ndarray, wanted: np.ndarray) -> float:
    """The reward model's estimate for the system's items, corrected by its weighted errors on the shown ones.

    Right where the propensities are, whatever the model says; and where the model is, whatever the propensities say.

    Args:
        reward, weight: (n,) of the shown items.
        shown: (n,) the model's reward of the shown items, by a model that did not see them.
        wanted: (n,) the model's reward of the items that the system would show instead, 0 without an item.
    Source: Dudik, Langford & Li 2011, arXiv:1103.4601.
    """
    return float(np.mean(wanted + weight * (reward - shown)))


def recall_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Share of one user's held-out items that are in the first k places.

    Args:
        ranked: (n,) int item_idx, best first, no repeats; -1 is padding.
        relevant: (m,) int held-out item_idx, distinct, m >= 1.
        k: cut-off, k >= 1.
    Returns:
        hits / m, in [0, 1]. It stays below 1 where m > k.
    Raises:
        ValueError: m == 0 or k < 1.
    """
    return float(_hits(ranked, relevant, k).sum() / len(relevant))


def ndcg_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Binary NDCG@k of one user's ranked list.

    Args:
        ranked: (n,) int item_idx, best first, no repeats; -1 is padding.
        relevant: (m,) int held-out item_idx, distinct, m >= 1.
        k: cut-off, k >= 1.
    Returns:
        Value in [0, 1]. The ideal list has min(k, m) hits: every held-out item counts, not only the retrieved.
    Raises:
        ValueError: m == 0 or k < 1.
    Source: Järvelin & Kekäläinen 2002, doi:10.1145/582415.582418.
    """
    hits = _hits(ranked, relevant, k)
    discount = _log_discount(k)
    return float(hits @ discount[: len(hits)] / discount[: min(k, len(relevant))].sum())


def mrr_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """1 / rank of the first hit in the first k places, 0 without one. Arguments and errors as in `recall_at_k`."""
    places = np.flatnonzero(_hits(ranked, relevant, k))
    return 1.0 / float(places[0] + 1) if len(places) else 0.0


def hit_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """1 where the first k places hold a held-out item, else 0. Arguments and errors as in `recall_at_k`."""
    return float(_hits(ranked, relevant, k).any())


def map_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Average precision at k: precision at the rank of every hit, summed and divided by min(k, m).

    The ideal list has average precision 1, also where more items are held out than the list has places. (TREC divides
    by m alone; the mean over users is MAP.) Arguments and errors as in `recall_at_k`.
    """
    hits = _hits(ranked, relevant, k)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / min(k, len(relevant)))


def precision_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """hits / k, also where the list is shorter than k. Arguments and errors as in `recall_at_k`."""
    return float(_hits(ranked, relevant, k).sum() / k)


def _hits(ranked: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if len(relevant) == 0:
        raise ValueError("no held-out item: the metric is undefined for this user")
    top = np.asarray(ranked)[:k]
    return np.isin(top, relevant) & (top >= 0)


def _log_discount(k: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, k + 2))
