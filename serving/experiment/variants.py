"""Comparison of variants: assignment of users, random orders and team drafts, with their propensities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from reckg.evaluation.logs.interleaving import draft_propensities, team_draft
from serving.settings import ExperimentSettings, VariantSettings


def variant_of(experiment: ExperimentSettings, user: str) -> VariantSettings:
    """Returns the variant of a user.

    It is the same in every worker and after every restart, as long as names, shares and salt stay the same.

    Args:
        experiment: variants, shares and salt.
        user: raw user id, or for a request without a user anything that stays with its sender.
    """
    variants = experiment.variants
    shares = np.cumsum([variant.share for variant in variants])
    place = int(np.searchsorted(shares, _fraction(experiment.salt, user) * shares[-1], side="right"))
    return variants[min(place, len(variants) - 1)]


def explore_order(items: Sequence[int], explore: int, k: int, request_id: str) -> tuple[list[int], list[float]]:
    """Shuffles the first items of a list and returns k items with their propensities.

    Each of the first N items has probability 1 / N at each of the first N positions. The later items are certain.

    Args:
        items: best first; max(k, explore) items, or all if fewer exist.
        explore: number N of first items to shuffle.
        k: number of items to return.
        request_id: seed of the order.
    """
    head = list(items[:explore])
    order = _generator(request_id).permutation(len(head))
    kept = [*(head[place] for place in order.tolist()), *items[len(head) :]][:k]
    return kept, [1 / len(head) if place < len(head) else 1.0 for place in range(len(kept))]


def interleave(a: Sequence[int], b: Sequence[int], k: int, request_id: str) -> tuple[list[int], list[int], list[float]]:
    """Drafts one list from two rankings.

    Args:
        a: items of ranking 0, best first.
        b: items of ranking 1, best first.
        k: number of items to return.
        request_id: seed of the draft.

    Returns:
        The items, the ranking (0 or 1) that each item came from, and the propensity of each item.
    """
    items, teams = team_draft(a, b, _generator(request_id), k)
    chances = draft_propensities(a, b, k)
    return items.tolist(), teams.tolist(), [chances[item, place] for place, item in enumerate(items.tolist())]


def _fraction(salt: str, user: str) -> float:
    """Hashes a user to a number from 0 to 1."""
    digest = hashlib.blake2b(user.encode(), digest_size=8, key=hashlib.blake2b(salt.encode()).digest()).digest()
    return int.from_bytes(digest, "big") / 2**64


def _generator(request_id: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=16).digest(), "big"))
