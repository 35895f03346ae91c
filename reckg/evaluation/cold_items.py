"""New items: rankings among them alone, their share of places, and the baselines that can place them.

If whole items are kept from training, systems that know an item by its users alone cannot tell the new ones apart. Ties
of this kind are broken by chance, differently for every user: a system without knowledge does as well as the random
order, and no better for the luck of a place in the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np

from reckg.data.history import History
from reckg.evaluation.baselines import BLOCK_VALUES
from reckg.evaluation.comparison import (
    Comparisons,
    SystemSection,
    best_baseline,
    primary_metric,
    systems_and_comparisons,
)
from reckg.evaluation.protocol import HeldOut, Recommend, SystemResult, SystemSettings, evaluate_system
from reckg.metrics.significance import bootstrap_intervals
from reckg.ranking.tables.ease import user_item_matrix
from reckg.retrieval.scored_items import ScoredItems

Scores = Callable[[np.ndarray], np.ndarray]  # (b,) user_idx to (b, n_items) float32; -inf: not listed


class NewItemCounts(TypedDict):
    """Counts of new items, in the test part and in the validation part, and of interactions with the former."""

    new_items: int
    other_new_items: int
    items: int
    new_interactions: int
    interactions: int


class ColdItems(NewItemCounts):
    """The report's ``cold_items``: the systems ranked among the test part's new items alone."""

    words: list[str]
    users: int
    share_of_catalogue: float
    share_of_interactions: float
    systems: dict[str, SystemSection]
    comparisons: Comparisons
    best_baseline: str


@dataclass(frozen=True)
class RandomOrder:
    """A baseline: n_items in a random order for every user, independent of the other users."""

    n_items: int
    seed: int

    @property
    def settings(self) -> SystemSettings:
        return {"seed": self.seed}

    def scores(self, history: History | None, user_idx: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng((self.seed, user)).random(self.n_items, np.float32) for user in user_idx.tolist()]
        return np.array(rows, dtype=np.float32).reshape(len(user_idx), self.n_items)


@dataclass(frozen=True)
class TextKnn:
    """A baseline: the cosine of an item's text vector with the mean over the user's distinct items.

    Args:
        vectors: (n_items, d) float32, unit length, zero for an item without text. The user's mean is left unscaled,
            which changes no order.
    """

    vectors: np.ndarray
    settings: SystemSettings = field(default_factory=dict)

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        profile = user_item_matrix(history, len(self.vectors), user_idx=user_idx) @ self.vectors
        scores: np.ndarray = profile @ self.vectors.T
        return scores


def fit_text_knn(vectors: np.ndarray) -> TextKnn:
    """Scales (n_items, d) text vectors to unit length. Zero rows have no text."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return TextKnn(unit, {"encoder": "pretrained", "items_without_text": int((length == 0).sum())})


def order_as_scores(recommend: Recommend, n_items: int) -> Scores:
    """Turns a system's lists into scores that fall from place to place; -inf for unlisted items."""

    def scores(user_idx: np.ndarray) -> np.ndarray:
        lists = recommend(user_idx).item_idx
        row, place = np.nonzero(lists >= 0)
        out = np.full((len(lists), n_items), -np.inf, dtype=np.float32)
        out[row, lists[row, place]] = -place
        return out

    return scores


def rank_among(scores: Scores, candidates: np.ndarray, k: int, chance: RandomOrder) -> Recommend:
    """Ranks the candidates by falling score, equal ones in the user's random order.

    Args:
        candidates: (c,) item_idx.
        k: most places.
    """

    def recommend(user_idx: np.ndarray) -> ScoredItems:
        mine = scores(user_idx)[:, candidates]
        ties = chance.scores(None, user_idx)[:, candidates]
        place = np.lexsort((-ties, -mine), axis=1)[:, :k]
        score = np.take_along_axis(mine, place, axis=1)
        return ScoredItems(np.where(np.isneginf(score), -1, candidates[place]), score)

    return recommend


def evaluate_among(
    scores: Scores, candidates: np.ndarray, held: HeldOut, ks: Sequence[int], chance: RandomOrder
) -> SystemResult:
    """Measures a system among the candidates alone, over blocks of users that bound the scores held at once.

    Args:
        candidates: (c,) item_idx.
        ks: cut-offs.
    """
    return evaluate_system(
        rank_among(scores, candidates, max(ks), chance),
        held.users,
        held.relevant,
        ks,
        n_items=chance.n_items,
        block_users=max(1, BLOCK_VALUES // max(1, chance.n_items)),
    )


def cold_items_section(
    among: Mapping[str, SystemResult],
    everywhere: Mapping[str, SystemResult],
    settings: Mapping[str, SystemSettings],
    held: HeldOut,
    counts: NewItemCounts,
    ks: Sequence[int],
    samples: int,
    seed: int,
) -> ColdItems:
    """Makes the report's ``cold_items``: systems and comparisons over rankings among new items.

    Args:
        among: system -> its result among the test part's new items.
        everywhere: system -> its result over all items, with the exposure of the new ones.
        settings: system -> the settings that the report prints.
    Returns:
        Each system's ``test`` holds the metrics among the new items, ``all`` recall and exposure at every cut-off in
        the ranking of all items.
    """
    bare = {name: replace(result, coverage={}) for name, result in among.items()}
    systems, comparisons = systems_and_comparisons(bare, settings, primary_metric(ks), samples, seed)
    for name in among:
        shown = {f"recall@{k}": everywhere[name].per_user[f"recall@{k}"] for k in ks} | everywhere[name].exposure
        systems[name]["all"] = bootstrap_intervals(shown, samples, seed)
    return {
        "words": _words(held, counts),
        **counts,
        "users": len(held.users),
        "share_of_catalogue": counts["new_items"] / counts["items"],
        "share_of_interactions": counts["new_interactions"] / counts["interactions"],
        "systems": systems,
        "comparisons": comparisons,
        "best_baseline": best_baseline(systems, primary_metric(ks)),
    }


def _words(held: HeldOut, counts: NewItemCounts) -> list[str]:
    left_out = held.counts
    return [
        f"{counts['new_items']:,} of {counts['items']:,} items are new in the test part, and "
        f"{counts['other_new_items']:,} others in the validation part: no interaction with them is in training. "
        "Histories are the training part alone.",
        f"Among new items: only the {counts['new_items']:,} of the test part are candidates. A system that cannot tell "
        "them apart gets the random order's lists: equal scores are ordered by chance, another for every user.",
        "Among all items: a user's training items are left out, everything else is a candidate, the validation "
        "part's new items too. Exposure@k: the share of the first k places that the test part's new items have; "
        f"they are {counts['new_items'] / counts['items']:.1%} of the catalogue, have "
        f"{counts['new_interactions'] / counts['interactions']:.1%} of all interactions, and all of the held-out ones.",
        f"{left_out.get('users_without_history', 0):,} users have no training interaction, hence no history, and are "
        f"left out with their {left_out.get('interactions_without_history', 0):,} interactions.",
    ]
