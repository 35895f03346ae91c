"""Differences between systems trained with several seeds, over all users and over slices, with words for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

import numpy as np

from reckg.arrays.ragged_rows import Rows, take_rows
from reckg.evaluation.protocol import HeldOut
from reckg.evaluation.slices import popularity_groups
from reckg.graph.shuffle import ShuffleCounts
from reckg.metrics.ranking import ranking_metrics
from reckg.metrics.significance import Difference, Interval, bootstrap_interval, holm, paired_difference

METRIC: Final = "ndcg@10"  # decides; the other is shown beside it
RECALL: Final = "recall@20"
LEVEL = 0.05


class SeedInterval(Interval):
    """An interval over users of their means over the training seeds, and the mean of each seed."""

    by_seed: list[float]


class SeedDifference(Difference):
    """A difference over users, and that of each seed.

    Args:
        lift: the difference over the other's mean; None if the mean is 0.
    """

    by_seed: list[float]
    lift: float | None


SliceFigures = TypedDict("SliceFigures", {"ndcg@10": SeedInterval, "recall@20": SeedInterval})
SliceDifferences = TypedDict("SliceDifferences", {"ndcg@10": SeedDifference, "recall@20": SeedDifference})


class Judged(SliceDifferences):
    """Differences with the judgement of METRIC's: better, worse or no clear difference."""

    p_holm: NotRequired[float]
    judgement: NotRequired[str]


class VariantComparison(Judged):
    """Two variants over a slice: "<subject> is better than <other> for <slice>", in the table ``name``."""

    name: str
    part: str
    subject: str
    other: str
    ours: str
    theirs: str
    slice: str


class RelationWorth(Judged):
    """The whole graph over the graph without a relation's triples, over all users and by slice."""

    relation: str
    triples: int
    slices: dict[str, SliceDifferences]


Training = TypedDict(
    "Training", {"seed": int, "epochs": int, "best_epoch": int, "valid_ndcg@10": float, "seconds": float}
)


class SliceSection(TypedDict):
    does: str
    users: int
    targets: int


class VariantSection(TypedDict):
    """A variant's figures by slice, and its trainings."""

    does: str
    test: dict[str, SliceFigures]
    training: list[Training]


class AblationReport(TypedDict):
    """The content of ablation.json.

    Args:
        skipped: variants that were left out, and why.
        items_without_vector: by variant.
        shuffle: counts of the first shuffled graph, by relation.
        verdict: sentences.
    """

    format: int
    name: str
    created: str
    version: str
    seeds: list[int]
    bootstrap_samples: int
    users: int
    items: int
    triples: int
    slices: dict[str, SliceSection]
    variants: dict[str, VariantSection]
    comparisons: list[VariantComparison]
    shuffle: dict[str, ShuffleCounts]
    relations: NotRequired[list[RelationWorth]]
    skipped: dict[str, str]
    items_without_vector: dict[str, int]
    verdict: list[str]


@dataclass(frozen=True)
class Slice:
    """A part of the held-out users and items.

    Args:
        name, does: for the report.
        rows: (n,) places among the users of a HeldOut.
        relevant: held-out items that count, a row for each user, none empty.
    """

    name: str
    does: str
    rows: np.ndarray
    relevant: Rows

    def metrics(self, lists: np.ndarray) -> dict[str, np.ndarray]:
        """Computes NDCG@10 and Recall@20, (n,) each.

        Args:
            lists: (users of the HeldOut, >= 20) of a system.
        """
        found = ranking_metrics(lists[self.rows], self.relevant, (10, 20))
        return {name: found[name] for name in (METRIC, RECALL)}


def slices(held: HeldOut, history_length: np.ndarray, train_users: np.ndarray) -> list[Slice]:
    """Makes slices of all users, users with short histories, and long-tail and cold items. Empty ones are left out.

    Args:
        history_length: (n,) training interactions of each user of ``held``.
        train_users: (n_items,) distinct users of each item in training.
    """
    everyone = np.arange(len(held.users))
    shortest = int(np.quantile(history_length, 0.25, method="lower"))
    sparse = np.flatnonzero(history_length <= shortest)
    group = popularity_groups(train_users).group
    found = [
        Slice("all users", "every user with a held-out item that is new to them", everyone, held.relevant),
        Slice(
            "sparse users",
            f"users with at most {shortest} training interactions: the lower quartile, ties included",
            sparse,
            take_rows(held.relevant, sparse),
        ),
        _item_slice(
            "long-tail items",
            "held-out items beyond those that hold the first 80% of the training interactions, cold ones included; "
            "the others do not count",
            held,
            group >= 2,
        ),
        _item_slice("cold items", "held-out items without a training interaction", held, group == 3),
    ]
    return [part for part in found if len(part.rows)]


def _item_slice(name: str, does: str, held: HeldOut, wanted: np.ndarray) -> Slice:
    """Makes a slice of the users with a wanted held-out item, and of these items. wanted: (n_items,) bool."""
    indptr, items = held.relevant
    row = np.repeat(np.arange(len(held.users)), np.diff(indptr))
    mine = wanted[items]
    length = np.bincount(row[mine], minlength=len(held.users))
    rows = np.flatnonzero(length)
    return Slice(name, does, rows, (np.concatenate([[0], np.cumsum(length[rows])]), items[mine]))


def system_figures(part: Slice, by_seed: Sequence[np.ndarray], samples: int, seed: int) -> SliceFigures:
    """Computes a system's metrics, with a bootstrap interval over users of their means over the seeds.

    Args:
        by_seed: lists of each training seed.
        samples: bootstrap samples.
    """
    metrics = [part.metrics(lists) for lists in by_seed]

    def figures(name: str) -> SeedInterval:
        interval = bootstrap_interval(np.mean([m[name] for m in metrics], axis=0), samples, seed)
        return {**interval, "by_seed": [float(m[name].mean()) for m in metrics]}

    return {METRIC: figures(METRIC), RECALL: figures(RECALL)}


def difference(
    part: Slice, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], samples: int, seed: int
) -> SliceDifferences:
    """Compares two systems by their metrics, ours minus theirs.

    Args:
        ours, theirs: lists with the same training seeds in the same order.
        samples: bootstrap samples.
    Returns:
        Paired over users, whose values are averaged over the seeds first.
    """
    pairs = [(part.metrics(a), part.metrics(b)) for a, b in zip(ours, theirs, strict=True)]

    def between(name: str) -> SeedDifference:
        a, b = (np.mean([pair[i][name] for pair in pairs], axis=0) for i in (0, 1))
        found = paired_difference(a, b, samples, seed)
        by_seed = [float((one[name] - other[name]).mean()) for one, other in pairs]
        return {**found, "by_seed": by_seed, "lift": float(found["mean"] / b.mean()) if b.mean() > 0 else None}

    return {METRIC: between(METRIC), RECALL: between(RECALL)}


def judge(comparisons: Sequence[Judged]) -> None:
    """Adds ``p_holm`` and ``judgement`` to comparisons that are made together.

    better or worse: the corrected p is below LEVEL and every seed's difference has the sign; otherwise no clear
        difference.

    Args:
        comparisons: each with a difference under METRIC.
    """
    corrected = holm({str(number): c[METRIC]["p"] for number, c in enumerate(comparisons)})
    for comparison, p in zip(comparisons, corrected.values(), strict=True):
        found = comparison[METRIC]
        comparison["p_holm"] = p
        comparison["judgement"] = "no clear difference"
        for word, sign in (("better", 1), ("worse", -1)):
            if p < LEVEL and all(sign * value > 0 for value in [found["mean"], *found["by_seed"]]):
                comparison["judgement"] = word


def sentences(subject: str, other: str, comparisons: Sequence[VariantComparison]) -> list[str]:
    """Describes judged comparisons: "The true graph is better than a shuffled one for all users (+0.0120 [...])."

    Args:
        subject, other: "the true graph", "a shuffled one".
        comparisons: of these two over slices, judged.
    """
    out = []
    for judgement, words in (
        ("better", "is better than"),
        ("no clear difference", "is no better than"),
        ("worse", "is worse than"),
    ):
        cases = [f"{c['slice']} ({interval(c[METRIC])})" for c in comparisons if c["judgement"] == judgement]
        if cases:
            out.append(f"{subject[0].upper()}{subject[1:]} {words} {other} for {_listed(cases)}.")
    return out


def interval(found: Interval) -> str:
    """Formats a difference with its interval: "+0.0120 [+0.0080, +0.0160]"."""
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
