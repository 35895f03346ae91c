"""Sections of the compared systems, and the judgement of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from reckg.evaluation.protocol import SystemResult, SystemSettings
from reckg.metrics.significance import Difference, Interval, Resampled, holm, paired_t_test, resample, t_interval

SYSTEMS = {
    "reckg": ("reckg", "candidates, then reranked: what is served"),
    "retrieval": ("retrieval", "the candidates in the order of retrieval, not reranked"),
    "model": ("model alone", "inner product of the embeddings over all items, exact"),
    "source_profile": ("source: profile", "the graph's vectors of the history's items, the latest counting most"),
    "source_cooccurrence": ("source: co-occurrence", "items next to those of the history in other histories"),
    "source_walk": ("source: walk", "two steps from the history: item, user, item"),
    "source_entities": ("source: entities", "items that share rare attributes with the history"),
    "source_text": ("source: text", "items whose text is like that of the history"),
    "source_linear": ("source: linear", "EASE at the ranker's usual settings"),
    "source_factors": ("source: factors", "weighted matrix factorisation at the ranker's usual settings"),
    "source_own": ("source: own", "items of the user's history, the most frequent and recent first"),
    "source_popular": (
        "source: popular",
        "the most popular items, of the latest fifth of the interactions where times are known",
    ),
    "popularity": ("popularity", "users of the item so far, the same list for everyone"),
    "popularity_recent": ("recent popularity", "users of the item among the latest interactions"),
    "personal_frequency": ("personal frequency", "what the user took most often and most recently, then popularity"),
    "item_knn": ("item-kNN", "cosine of items over their users, nearest neighbours only"),
    "ease": ("EASE", "linear item-item model in closed form"),
    "als": ("ALS", "matrix factorisation for implicit feedback, by the library implicit"),
    "random": ("random", "an order by chance, another for every user"),
    "text_knn": ("text kNN", "cosine of the item's text with the mean of the texts of the user's items, not trained"),
}
BASELINES = ("popularity", "popularity_recent", "personal_frequency", "item_knn", "ease", "als", "random", "text_knn")
CLEAR = 0.05  # corrected p of a clear difference
BeyondFigures = dict[str, Interval | float]  # figures beside accuracy; "entropy" is a number without an interval


class SystemSection(TypedDict):
    """A system in the report.

    Args:
        label, does: its name and what it does.
        test: by metric.
        seconds: time in which the lists were made.
        short_lists: users with fewer items than places.
        all: recall and exposure in the ranking of all items, for a system among new items.
    """

    label: str
    does: str
    baseline: bool
    test: dict[str, Interval]
    settings: SystemSettings
    seconds: float
    short_lists: int
    beyond: NotRequired[BeyondFigures]
    all: NotRequired[dict[str, Interval]]


class Comparison(Difference):
    """A difference. The primary metric's is also corrected for the number of systems.

    Args:
        p_holm: of Student's paired t-test, corrected by Holm's method.
        corrected_low, corrected_high: interval that leaves zero out where p_holm is below CLEAR.
    """

    p_holm: NotRequired[float]
    corrected_low: NotRequired[float]
    corrected_high: NotRequired[float]


Comparisons = dict[str, dict[str, Comparison]]  # system -> metric -> reckg minus the system


def system_section(
    name: str, result: SystemResult, settings: SystemSettings, samples: int, seed: int, drawn: Resampled | None = None
) -> SystemSection:
    """Makes a system's entry.

    Args:
        drawn: the result's per_user, if it was resampled already.
    """
    label, does = SYSTEMS.get(name, (name.replace("_", " "), ""))
    drawn = drawn or resample(result.per_user, samples, seed)
    return {
        "label": label,
        "does": does,
        "baseline": name in BASELINES,
        "test": drawn.intervals() | result.coverage,
        "settings": settings,
        "seconds": round(result.seconds, 3),
        "short_lists": result.short_lists,
    }


def systems_and_comparisons(
    results: Mapping[str, SystemResult], settings: Mapping[str, SystemSettings], metric: str, samples: int, seed: int
) -> tuple[dict[str, SystemSection], Comparisons]:
    """Makes the sections ``systems`` and ``comparisons``. Each system is resampled once, with the same users.

    ``p`` is the bootstrap's, as in significance.paired_differences. ``p_holm``, for ``metric`` alone, is Student's
    paired t-test with Holm's correction over all comparisons, because the bootstrap's own p has a floor that the
    correction would multiply.

    Args:
        results, settings: by system.
        metric: the primary one.
    """
    systems, drawn = {}, {}
    for name, result in results.items():
        drawn[name] = resample(result.per_user, samples, seed)
        systems[name] = system_section(name, result, settings[name], samples, seed, drawn[name])
    others = [name for name in results if name != "reckg"]
    ours = results["reckg"].per_user
    single = {name: paired_t_test(ours[metric], results[name].per_user[metric]) for name in others}
    corrected = holm(single)
    comparisons: Comparisons = {}
    for name in others:
        comparisons[name] = {m: _minus(drawn["reckg"], drawn[name], m) for m in ours if m in drawn[name].mean}
        found = comparisons[name][metric]
        found["p_holm"] = corrected[name]
        error = CLEAR * single[name] / corrected[name] if single[name] > 0 else CLEAR / len(others)
        low, high = t_interval(ours[metric], results[name].per_user[metric], error)
        found["corrected_low"], found["corrected_high"] = low, high
    return systems, comparisons


def _minus(a: Resampled, b: Resampled, metric: str) -> Comparison:
    means = a.samples[metric] - b.samples[metric]
    low, high = np.quantile(means, [0.025, 0.975])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2.0 * (beyond + 1) / (len(means) + 1))
    return {"mean": a.mean[metric] - b.mean[metric], "low": float(low), "high": float(high), "p": p}


def primary_metric(ks: Sequence[int]) -> str:
    """Chooses the metric of the verdict: NDCG@10, or at the lowest cut-off if 10 is not among them."""
    return f"ndcg@{10 if 10 in ks else min(ks)}"


def best_baseline(systems: Mapping[str, SystemSection], metric: str) -> str:
    """Finds the baseline with the highest mean."""
    return max((name for name in BASELINES if name in systems), key=lambda name: systems[name]["test"][metric]["mean"])


def judgement(difference: Comparison) -> int:
    """Judges a difference by its interval, the corrected one if there is one: 1 better, -1 worse, 0 neither."""
    low, high = difference.get("corrected_low", difference["low"]), difference.get("corrected_high", difference["high"])
    return 1 if low > 0 else -1 if high < 0 else 0
