"""The evaluation report: a dictionary of everything measured, written as report.json, report.md and report.html.

The dictionary, as `write_report` takes it; every interval is {"mean", "low", "high"}, 95% over users:

    systems       name -> label, does, baseline, settings, seconds, short_lists; test: metric@k -> interval;
                  beyond: figure -> interval with "users" (see beyond_accuracy.user_figures), gini, coverage, entropy
    comparisons   name -> metric@k -> interval of reckg minus the system, p; p_holm for the primary metric
    protocol      of `protocol_section`
    beyond        k, likeness, column; exposure: of `exposure_section`, where there is a provider column
    slices        name -> of report_slices; worst: of report_slices.worst_slices
    cold_items    of cold_items.cold_items_section, where the items are split
    samples       of samples.sample_section
    ranker        the ranker's info; shap: of ranker_explained.explain_ranker
    index         of index_curve.index_section
    leakage_checks, data, training, timing, configuration

    diversity     optional: what reranking for diversity costs. words: list of sentences; k; rows: a list of
                  {"strategy", "settings": text or {name: value}, "ndcg": interval, "price": interval of the strategy's
                  NDCG minus that of the list as ranked (paired), "diversity": interval, "miscalibration": interval or
                  None, "exposure": interval or None (of the providers' Gini index, or the share that the limit is on)},
                  in the order in which they are to be shown; the first is the list as ranked.

``systems`` and ``protocol`` and ``comparisons`` must be there, all else where it is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reckg.evaluation.protocol import HeldOut, SystemResult
from reckg.evaluation.report.html import render_html
from reckg.evaluation.report.markdown import render_markdown
from reckg.evaluation.report.words import metric_label
from reckg.files.atomic_folder import write_atomically
from reckg.metrics.significance import Resampled, holm, known_intervals, paired_t_test, resample

FORMAT = 2
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
    "source_popular": (
        "source: popular",
        "the most popular items, of the latest fifth of the interactions where times are known",
    ),
    "popularity": ("popularity", "users of the item so far, the same list for everyone"),
    "popularity_recent": ("recent popularity", "users of the item among the latest interactions"),
    "item_knn": ("item-kNN", "cosine of items over their users, nearest neighbours only"),
    "ease": ("EASE", "linear item-item model in closed form"),
    "als": ("ALS", "matrix factorisation for implicit feedback, by the library implicit"),
    "random": ("random", "an order by chance, another for every user"),
    "text_knn": ("text kNN", "cosine of the item's text with the mean of the texts of the user's items, not trained"),
}
BASELINES = ("popularity", "popularity_recent", "item_knn", "ease", "als", "random", "text_knn")
CLEAR = 0.05  # corrected p below which a difference is said to be one


def system_section(
    name: str, result: SystemResult, settings: dict[str, Any], samples: int, seed: int, drawn: Resampled | None = None
) -> dict[str, Any]:
    """One system's entry: ``test`` holds {"mean", "low", "high"} of every metric.

    Args:
        drawn: of the result's per_user, where it has been resampled.
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
    results: Mapping[str, SystemResult], settings: Mapping[str, dict[str, Any]], metric: str, samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections ``systems`` and ``comparisons``: each system is resampled once, the same users for all.

    ``p`` is the bootstrap's, as in significance.paired_differences; ``p_holm``, for ``metric`` alone, Student's paired
    t-test with Holm's correction over all comparisons: the bootstrap's own p has a floor that the correction would
    multiply.
    """
    systems, drawn = {}, {}
    for name, result in results.items():
        drawn[name] = resample(result.per_user, samples, seed)
        systems[name] = system_section(name, result, settings[name], samples, seed, drawn[name])
    others = [name for name in results if name != "reckg"]
    ours = results["reckg"].per_user
    corrected = holm({name: paired_t_test(ours[metric], results[name].per_user[metric]) for name in others})
    comparisons: dict[str, Any] = {}
    for name in others:
        comparisons[name] = {m: _minus(drawn["reckg"], drawn[name], m) for m in ours if m in drawn[name].mean}
        comparisons[name][metric]["p_holm"] = corrected[name]
    return systems, comparisons


def _minus(a: Resampled, b: Resampled, metric: str) -> dict[str, float]:
    means = a.samples[metric] - b.samples[metric]
    low, high = np.quantile(means, [0.025, 0.975])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2.0 * (beyond + 1) / (len(means) + 1))
    return {"mean": a.mean[metric] - b.mean[metric], "low": float(low), "high": float(high), "p": p}


def exposure_section(
    shares: Mapping[str, np.ndarray],
    values: Sequence[str],
    catalogue: np.ndarray,
    wanted: np.ndarray,
    samples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each provider: its share of the places of every system's lists.

    Args:
        shares: system -> (n, v), of beyond_accuracy.value_exposure.
        values: (v,) names. catalogue, wanted: (v,) their share of the items, and of the held-out items.
    """
    named = {s: {str(i): share[:, i] for i in range(len(values))} for s, share in shares.items()}
    found = {system: known_intervals(share, samples, seed) for system, share in named.items()}
    return [
        {
            "name": name,
            "catalogue": float(catalogue[i]),
            "held_out": float(wanted[i]),
            "systems": {system: intervals[str(i)] for system, intervals in found.items()},
        }
        for i, name in enumerate(values)
    ]


def protocol_section(
    held: HeldOut,
    parts: Sequence[str],
    split: str,
    n_items: int,
    ks: Sequence[int],
    samples: int,
    seed: int,
    *,
    budget: int = 0,
    systems: int = 0,
    filters: Sequence[str] = (),
) -> dict[str, Any]:
    """How the figures were made, in words and in numbers.

    Args:
        budget: settings that every baseline could try; 0: none was tuned.
        systems: that reckg is compared with.
        filters: sentences on what cleaning left out.
    """
    counts = held.counts
    named = {"train": "training", "valid": "validation"}
    history = " and ".join(named[part] for part in parts)
    spared = " and ".join(named[part] for part in held.excluded_parts)
    tuned = (
        f"Tuning: each baseline with settings could try {budget} of them, and keeps the one with the best NDCG@10 on "
        "validation (all of a smaller grid; see the settings of the systems)."
        if budget
        else "Tuning: none of the baselines was tuned, for lack of a validation part that they could be tuned on."
    )
    words = [
        f"Full ranking: every system orders all {n_items:,} candidate items for each user; nothing is sampled.",
        f"Split: {split}. Models are fitted on the training part; the validation part chooses settings and labels the "
        "reranker; the test part is read once, for this report.",
        *filters,
        f"At test time a user's history holds the {history} interactions. Items that a user has in {spared} are "
        "never listed.",
        f"{counts['users']:,} users with {counts['targets']:,} held-out items. Of {counts['interactions']:,} test "
        f"interactions, {counts['repeated']:,} repeat another and {counts['already_seen']:,} are with an item that the "
        f"user already had; {counts['users_without_target']:,} users have no other and are left out.",
        tuned,
        "Recall@k: found held-out items over all held-out items of the user. Precision@k: over k. NDCG@k: binary, the "
        "ideal list has min(k, held-out) hits. MRR@k: 1 over the rank of the first hit. Hit@k: whether there is one. "
        "MAP@k: precision at every hit, summed over min(k, held-out). Coverage@k: share of the candidates that are in "
        "any user's list.",
        f"Intervals: 95%, {samples:,} bootstrap samples over users (seed {seed}); differences are paired over the same "
        "users. Coverage and the Gini index: jackknife over users, because a bootstrap sample misses a third of the "
        "users and so understates them. The intervals tell nothing about another training seed.",
        f"Several comparisons: p-values of {metric_label(primary_metric(ks))}, the primary metric, are of a paired "
        f"t-test, corrected by Holm's method over the {systems or 'other'} systems that reckg is compared with. A "
        f"difference is called clear where the interval leaves zero out and the corrected p is below {CLEAR}.",
        "Equal scores are ordered by the item's place in the catalogue. A user without history gets the most popular "
        "items from the baselines.",
    ]
    return {
        "words": words,
        "ranking": "full",
        "split": split,
        "history": "+".join(parts),
        "excluded": "+".join(held.excluded_parts),
        "candidates": n_items,
        "k": list(ks),
        "primary_metric": primary_metric(ks),
        "bootstrap_samples": samples,
        "seed": seed,
        "tuning_settings": budget,
        "test": dict(counts),
    }


def primary_metric(ks: Sequence[int]) -> str:
    """The metric of the verdict: NDCG@10, or at the lowest cut-off where 10 is none of them."""
    return f"ndcg@{10 if 10 in ks else min(ks)}"


def best_baseline(systems: Mapping[str, Any], metric: str) -> str:
    """The name of the baseline with the highest mean."""
    return max((name for name in BASELINES if name in systems), key=lambda name: systems[name]["test"][metric]["mean"])


def judgement(difference: Mapping[str, float]) -> int:
    """1: clearly better, -1: clearly worse, 0: neither, by the interval and, where there is one, the corrected p."""
    if difference.get("p_holm", 0.0) >= CLEAR:
        return 0
    return 1 if difference["low"] > 0 else -1 if difference["high"] < 0 else 0


def verdict(report: Mapping[str, Any]) -> str:
    """One plain sentence: does reckg beat the best baseline? A failed leakage check comes first.

    Where the items are split, it is about the ranking among new items.
    """
    metric = report["protocol"]["primary_metric"]
    part = report.get("cold_items", report)
    systems = part["systems"]
    best = best_baseline(systems, metric)
    found = part["comparisons"][best][metric]
    ours, theirs = systems["reckg"]["test"][metric]["mean"], systems[best]["test"][metric]["mean"]
    name = systems[best]["label"]
    opening = {
        1: f"reckg beats the best baseline, {name}",
        -1: f"reckg is worse than the best baseline, {name}",
        0: f"No clear difference between reckg and the best baseline, {name}",
    }[judgement(found)]
    users = report["protocol"]["test"]["users"]
    among = f", among {part['new_items']:,} new items" if "cold_items" in report else ""
    sentence = (
        f"{opening}: {metric_label(metric)} {ours:.4f} against {theirs:.4f}, a difference of {found['mean']:+.4f} "
        f"(95% interval {found['low']:+.4f} to {found['high']:+.4f}, paired over {users:,} users{among})."
    )
    failed = [check["name"] for check in report.get("leakage_checks", []) if check["passed"] is False]
    if failed:
        sentence = (
            f"Do not trust these figures: {len(failed)} leakage check(s) failed ({'; '.join(failed)}). {sentence}"
        )
    return sentence


def mood(report: Mapping[str, Any]) -> int:
    """The judgement that the verdict is about; -1 where a leakage check failed."""
    if any(check["passed"] is False for check in report.get("leakage_checks") or []):
        return -1
    part, metric = report.get("cold_items", report), report["protocol"]["primary_metric"]
    return judgement(part["comparisons"][best_baseline(part["systems"], metric)][metric])


def write_report(report: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Writes report.json, report.md and the self-contained report.html, each beside and renamed into place.

    Args:
        report: the dictionary that this module's docstring describes.
        folder: made if missing.
    Returns:
        The report as written: with ``format``, ``verdict``, ``mood`` and ``best_baseline`` in front.
    Raises:
        ValueError: a number is NaN or infinite.
    """
    best = best_baseline(report["systems"], report["protocol"]["primary_metric"])
    first = {"format": FORMAT, "verdict": verdict(report), "mood": mood(report), "best_baseline": best}
    complete = {**first, **report}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False)
    read = json.loads(text)
    written = {"report.json": text + "\n", "report.md": render_markdown(read), "report.html": render_html(read)}
    for name, content in written.items():
        write_atomically(folder / name, content)
    return complete
