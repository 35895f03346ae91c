"""The evaluation report: a dictionary of everything measured, written as report.json and report.html."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reckg.evaluation.protocol import HeldOut, ItemGroups, SystemResult
from reckg.evaluation.report_html import metric_label, render_html
from reckg.evaluation.significance import bootstrap_intervals, paired_differences

FORMAT = 1
SYSTEMS = {
    "reckg": ("reckg", "candidates from the index, then reranked: what is served"),
    "model": ("model alone", "inner product of the embeddings over all items, exact"),
    "retrieval": ("retrieval", "the candidates in the order of retrieval, not reranked"),
    "popularity": ("popularity", "users of the item in training, the same list for everyone"),
    "item_knn": ("item-kNN", "cosine of items over their users, nearest neighbours only"),
    "ease": ("EASE", "linear item-item model in closed form"),
    "random": ("random", "an order by chance, another for every user"),
    "text_knn": ("text kNN", "cosine of the item's text with the mean of the texts of the user's items, not trained"),
}
BASELINES = ("popularity", "item_knn", "ease", "random", "text_knn")
HISTORY_EDGES = (0, 1, 5, 10, 20, 50, 100)


def system_section(
    name: str, result: SystemResult, settings: dict[str, Any], samples: int, seed: int
) -> dict[str, Any]:
    """One system's entry: ``test`` holds {"mean", "low", "high"} of every metric."""
    label, does = SYSTEMS.get(name, (name, ""))
    return {
        "label": label,
        "does": does,
        "baseline": name in BASELINES,
        "test": bootstrap_intervals(result.per_user, samples, seed) | result.coverage,
        "settings": settings,
        "seconds": round(result.seconds, 3),
        "short_lists": result.short_lists,
    }


def comparison_section(results: Mapping[str, SystemResult], samples: int, seed: int) -> dict[str, Any]:
    """reckg minus every other system over the same users: system -> metric -> {"mean", "low", "high", "p"}."""
    return {
        name: paired_differences(results["reckg"].per_user, other.per_user, samples, seed)
        for name, other in results.items()
        if name != "reckg"
    }


def history_slices(
    results: Mapping[str, SystemResult], length: np.ndarray, metrics: Sequence[str], samples: int, seed: int
) -> dict[str, Any]:
    """Every system by the length of the user's history at test time; length (n,) in the order of the users."""
    rows = []
    for place, low in enumerate(HISTORY_EDGES):
        above = HISTORY_EDGES[place + 1] if place + 1 < len(HISTORY_EDGES) else None
        inside = (length >= low) & (length < above) if above is not None else length >= low
        if not inside.any():
            continue
        name = f"{low}" if above == low + 1 else f"{low} to {above - 1}" if above is not None else f"{low} and more"
        systems = {
            system: bootstrap_intervals({m: result.per_user[m][inside] for m in metrics}, samples, seed)
            for system, result in results.items()
        }
        rows.append({"name": name, "users": int(inside.sum()), "systems": systems})
    return {
        "title": "By length of the user's history",
        "explanation": "Users grouped by the items in their history at test time.",
        "rows": rows,
    }


def popularity_groups(train_users: np.ndarray) -> ItemGroups:
    """Items as head, middle, tail and cold by their users in training.

    head: the most popular items that together hold the first half of all training interactions; middle: the next
    three tenths; tail: the last fifth; cold: items without any.

    Args:
        train_users: (n_items,) distinct users of each item in training.
    """
    order = np.argsort(-train_users, kind="stable")
    total = max(1.0, float(train_users.sum()))
    before = np.empty(len(train_users))
    before[order] = np.concatenate([[0.0], np.cumsum(train_users[order])[:-1]]) / total
    group = np.digitize(before, [0.5, 0.8])
    group[train_users == 0] = 3
    return ItemGroups(("head", "middle", "tail", "cold"), group.astype(np.int64))


def popularity_slices(
    results: Mapping[str, SystemResult], groups: ItemGroups, samples: int, seed: int
) -> dict[str, Any]:
    """Every system by the popularity of the held-out items, from the results' per_group."""
    rows = []
    for place, name in enumerate(groups.names):
        found = {system: result.per_group[name] for system, result in results.items() if name in result.per_group}
        if not found:
            continue
        systems, users = {}, 0
        for system, values in found.items():
            some = ~np.isnan(next(iter(values.values())))
            users = int(some.sum())
            systems[system] = bootstrap_intervals({m: v[some] for m, v in values.items()}, samples, seed)
        items = int((groups.group == place).sum())
        rows.append({"name": f"{name} ({items:,} items)", "users": users, "systems": systems})
    return {
        "title": "By popularity of the held-out item",
        "explanation": "Only the held-out items of the group count. Head: the most popular items, which hold the first "
        "half of all training interactions; middle: the next three tenths; tail: the last fifth; cold: items without "
        "a training interaction.",
        "rows": rows,
    }


def protocol_section(
    held: HeldOut, parts: Sequence[str], split: str, n_items: int, ks: Sequence[int], samples: int, seed: int
) -> dict[str, Any]:
    """How the figures were made, in words and in numbers."""
    counts = held.counts
    named = {"train": "training", "valid": "validation"}
    history = " and ".join(named[part] for part in parts)
    spared = " and ".join(named[part] for part in held.excluded_parts)
    words = [
        f"Full ranking: every system orders all {n_items:,} candidate items for each user; nothing is sampled.",
        f"Split: {split}. Models are fitted on the training part; the validation part chooses settings and labels the "
        "reranker; the test part is read once, for this report.",
        f"At test time a user's history holds the {history} interactions. Items that a user has in {spared} are "
        "never listed.",
        f"{counts['users']:,} users with {counts['targets']:,} held-out items. Of {counts['interactions']:,} test "
        f"interactions, {counts['repeated']:,} repeat another and {counts['already_seen']:,} are with an item that the "
        f"user already had; {counts['users_without_target']:,} users have no other and are left out.",
        "Recall@k: found held-out items over all held-out items of the user. NDCG@k: binary, the ideal list has "
        "min(k, held-out) hits. MRR@k: 1 over the rank of the first hit. Hit@k: whether there is one. "
        "Coverage@k: share of the candidates that are in any user's list.",
        f"Intervals: 95%, {samples:,} bootstrap samples over users (seed {seed}); differences are paired over the same "
        "users. Coverage: jackknife over users, because a bootstrap sample misses a third of the users and so "
        "understates it. The intervals tell nothing about another training seed.",
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
        "test": dict(counts),
    }


def primary_metric(ks: Sequence[int]) -> str:
    """The metric of the verdict: NDCG@10, or at the lowest cut-off where 10 is none of them."""
    return f"ndcg@{10 if 10 in ks else min(ks)}"


def best_baseline(systems: Mapping[str, Any], metric: str) -> str:
    """The name of the baseline with the highest mean."""
    return max((name for name in BASELINES if name in systems), key=lambda name: systems[name]["test"][metric]["mean"])


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
    if found["low"] > 0:
        opening = f"reckg beats the best baseline, {name}"
    elif found["high"] < 0:
        opening = f"reckg is worse than the best baseline, {name}"
    else:
        opening = f"No clear difference between reckg and the best baseline, {name}"
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


def write_report(report: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Writes report.json and the self-contained report.html into a folder, each beside and renamed into place.

    Args:
        report: ``systems``, ``comparisons`` and ``protocol`` as made by the functions above; further sections
            (``name``, ``cold_items``, ``data``, ``leakage_checks``, ``slices``, ``training``, ``ranker``, ``timing``)
            where known.
        folder: made if missing.
    Returns:
        The report as written: with ``format``, ``verdict`` and ``best_baseline`` in front.
    Raises:
        ValueError: a number is NaN or infinite.
    """
    best = best_baseline(report["systems"], report["protocol"]["primary_metric"])
    complete = {"format": FORMAT, "verdict": verdict(report), "best_baseline": best, **report}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False)
    page = render_html(json.loads(text))
    for name, content in (("report.json", text + "\n"), ("report.html", page)):
        beside = folder / (name + ".part")
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, folder / name)
    return complete
