"""Sections on how the figures were made, and on the exposure of providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reckg.evaluation.comparison import CLEAR, primary_metric
from reckg.evaluation.protocol import HeldOut
from reckg.evaluation.report.contents import Protocol, ProviderRow
from reckg.evaluation.report.words import metric_label
from reckg.metrics.significance import known_intervals


def exposure_section(
    shares: Mapping[str, np.ndarray],
    values: Sequence[str],
    catalog: np.ndarray,
    wanted: np.ndarray,
    samples: int,
    seed: int,
) -> list[ProviderRow]:
    """Makes a row for each provider: its share of the places of every system's lists.

    Args:
        shares: system -> (n, v), of beyond_accuracy.value_exposure.
        values: (v,) names.
        catalog, wanted: (v,) their share of the items, and of the held-out items.
        samples: bootstrap samples.
    """
    named = {s: {str(i): share[:, i] for i in range(len(values))} for s, share in shares.items()}
    found = {system: known_intervals(share, samples, seed) for system, share in named.items()}
    return [
        {
            "name": name,
            "catalogue": float(catalog[i]),
            "held_out": float(wanted[i]),
            "systems": {system: intervals[str(i)] for system, intervals in found.items()},
        }
        for i, name in enumerate(values)
    ]


def protocol_section(  # noqa: PLR0913 - each value is a line of the section
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
    events: Sequence[str] = (),
) -> Protocol:
    """Describes how the figures were made, in words and in numbers.

    Args:
        held: the test part.
        parts: split parts in a user's history.
        ks: cut-offs.
        samples: bootstrap samples.
        budget: settings that every baseline could try; 0: no tuning.
        systems: number of systems that reckg is compared with.
        filters: sentences on the rows that cleaning left out.
        events: the target event types.
    """
    words = [
        *_question_words(held, events),
        f"Full ranking: every system orders all {n_items:,} candidate items for each user; nothing is sampled.",
        f"Split: {split}. Models are fitted on the training part; the validation part chooses settings and labels the "
        "reranker; the test part is read once, for this report.",
        *filters,
        *_history_words(held, parts),
        _tuning_words(budget),
        *_metric_words(primary_metric(ks), samples, seed, systems),
    ]
    return {
        "words": words,
        "ranking": "full",
        "target": held.target,
        "target_event": ", ".join(events) or None,
        "split": split,
        "history": "+".join(parts),
        "excluded": "+".join(held.excluded_parts),
        "candidates": n_items,
        "k": list(ks),
        "primary_metric": primary_metric(ks),
        "bootstrap_samples": samples,
        "seed": seed,
        "tuning_settings": budget,
        "test": dict(held.counts),
    }


def _question_words(held: HeldOut, events: Sequence[str]) -> list[str]:
    """Asks the question of the run: the kind of items, and the event."""
    asked = {
        "new": "which items does a user take for the first time",
        "any": "which items does a user take next, new ones and others",
        "repeat": "which of the items that a user had come again",
    }[held.target]
    event = f"; event: {' or '.join(events)}" if events else ""
    return [f"Question: {asked} (target: {held.target}{event})?"]


def _history_words(held: HeldOut, parts: Sequence[str]) -> list[str]:
    """Describes the users' histories and held-out items."""
    counts = held.counts
    named = {"train": "training", "valid": "validation"}
    history = " and ".join(named[part] for part in parts)
    spared = " and ".join(named[part] for part in held.excluded_parts)
    listed = {
        "new": f"Items that a user took in {spared} are never listed.",
        "any": "Items that a user took before may be listed.",
        "repeat": "Only items that a user took before are listed.",
    }[held.target]
    missed = ""
    if counts["users_without_target"]:  # published figures count them
        share = counts["users"] / (counts["users"] + counts["users_without_target"])
        missed = f" Figures that count them as misses are {share:.3f} times those of this report."
    return [
        f"At test time a user's history holds the {history} interactions. {listed}",
        f"{counts['users']:,} users with {counts['targets']:,} held-out items. Of {counts['interactions']:,} test "
        f"interactions, {counts['repeated']:,} repeat another and {counts['already_seen']:,} are with an item that the "
        f"user already had; {counts['users_without_target']:,} users have no other and are left out.{missed}",
    ]


def _tuning_words(budget: int) -> str:
    """Describes the choice of the baselines' settings."""
    return (
        f"Tuning: each baseline with settings could try {budget} of them, and keeps the one with the best NDCG@10 on "
        "validation (all of a smaller grid; see the settings of the systems)."
        if budget
        else "Tuning: none of the baselines was tuned, for lack of a validation part that they could be tuned on."
    )


def _metric_words(primary: str, samples: int, seed: int, systems: int) -> list[str]:
    """Describes the metrics, the intervals and the p-values."""
    return [
        "Recall@k: found held-out items over all held-out items of the user. Precision@k: over k. NDCG@k: binary, the "
        "ideal list has min(k, held-out) hits. MRR@k: 1 over the rank of the first hit. Hit@k: whether there is one. "
        "MAP@k: precision at every hit, summed over min(k, held-out). Coverage@k: share of the candidates that are in "
        "any user's list.",
        f"Intervals: 95%, {samples:,} bootstrap samples over users (seed {seed}); differences are paired over the same "
        "users. Coverage and the Gini index: jackknife over users, because a bootstrap sample misses a third of the "
        "users and so understates them. The intervals tell nothing about another training seed.",
        f"Several comparisons: p-values of {metric_label(primary)}, the primary metric, are of a paired "
        f"t-test, corrected by Holm's method over the {systems or 'other'} systems that reckg is compared with. A "
        f"difference is called clear if its corrected p is below {CLEAR}: if the corrected interval leaves zero out.",
        "Equal scores are ordered by the item's place in the catalogue. A user without history gets the most popular "
        "items from the baselines.",
    ]
