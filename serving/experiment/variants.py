"""Comparing variants: who gets which, lists in an order by chance, and team drafts, each with its propensities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from reckg.evaluation.logs.interleaving import draft_propensities, team_draft
from serving.settings import ExperimentSettings, VariantSettings


def variant_of(experiment: ExperimentSettings, user: str) -> VariantSettings:
    """The variant of a user: the same in every worker and after every restart, as long as names, shares and salt are.

    Args:
        user: the raw user id; of a request without one, anything that stays with its sender.
    """
    variants = experiment.variants
    shares = np.cumsum([variant.share for variant in variants])
    place = int(np.searchsorted(shares, _fraction(experiment.salt, user) * shares[-1], side="right"))
    return variants[min(place, len(variants) - 1)]


def explored(items: Sequence[int], explore: int, k: int, request_id: str) -> tuple[list[int], list[float]]:
    """The k items of an answer whose first ``explore`` are in an order by chance, and each one's propensity.

    Every one of the first N has the probability 1 / N of every place among the first N; what follows is certain.

    Args:
        items: best first, at least max(k, explore) where so many exist.
        request_id: the order is drawn from it.
    """
    head = list(items[:explore])
    order = _chance(request_id).permutation(len(head))
    shown = [*(head[place] for place in order.tolist()), *items[len(head) :]][:k]
    return shown, [1 / len(head) if place < len(head) else 1.0 for place in range(len(shown))]


def interleaved(
    a: Sequence[int], b: Sequence[int], k: int, request_id: str
) -> tuple[list[int], list[int], list[float]]:
    """One list of two rankings: its items, which of the two (0 or 1) put each there, and each one's propensity."""
    items, teams = team_draft(a, b, _chance(request_id), k)
    chances = draft_propensities(a, b, k)
    return items.tolist(), teams.tolist(), [chances[item, place] for place, item in enumerate(items.tolist())]


def _fraction(salt: str, user: str) -> float:
    """A number from 0 to 1 that looks random."""
    digest = hashlib.blake2b(user.encode(), digest_size=8, key=hashlib.blake2b(salt.encode()).digest()).digest()
    return int.from_bytes(digest, "big") / 2**64


def _chance(request_id: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=16).digest(), "big"))
