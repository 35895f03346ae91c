"""Answers of compared variants: the system that answers, and the propensities for the served log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reckg.recommend.answers import Recommendations, RecommendedItem
from serving.catalog.snapshot import Served
from serving.experiment.variants import explore_order, interleave, variant_of
from serving.settings import ExperimentSettings, VariantSettings

INTERLEAVED = "interleaved"

Recommend = Callable[[Served, VariantSettings | None, int], Recommendations]  # arguments: snapshot, variant, k


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        found: the recommendations.
        served: snapshot that gave them; the first variant's for an interleaved list.
        variant: name of the variant, INTERLEAVED, or "" without variants.
        variants: for each item, the name of the variant that put it there.
        propensities: for each item, the probability of this item at this position.
    """

    found: Recommendations
    served: Served
    variant: str
    variants: Sequence[str]
    propensities: Sequence[float]


class HasCurrent(Protocol):
    """A holder of the current snapshot, as ServingState."""

    @property
    def current(self) -> Served:
        """The current snapshot."""
        ...


@dataclass(frozen=True)
class Fixed:
    """One snapshot for several answers."""

    current: Served


class Experiment:
    """A comparison of variants. Without variants it answers from the served bundle.

    Args:
        settings: the variants.
        state: the served bundle.
        others: other bundles that variants name, by version.
    """

    def __init__(
        self, settings: ExperimentSettings, state: HasCurrent, others: Mapping[str, HasCurrent] | None = None
    ) -> None:
        self._settings, self._state, self._others = settings, state, others or {}

    def answer(self, user: str, k: int, request_id: str, recommend: Recommend) -> Answer:
        """Returns the answer to one request.

        Args:
            user: decides the variant: raw user id, or the request id of a request without a user.
            k: number of items.
            request_id: seed of all random choices.
            recommend: called for each variant that takes part.
        """
        if not self._settings.variants:
            served = self._state.current
            found = recommend(served, None, k)
            return Answer(found, served, "", [""] * len(found.items), [1.0] * len(found.items))
        if self._settings.interleave:
            return self._draft(k, request_id, recommend)
        variant = variant_of(self._settings, user)
        served = self._served(variant)
        found = recommend(served, variant, max(k, variant.explore))
        order, propensities = explore_order(range(len(found.items)), variant.explore, k, request_id)
        found = replace(found, items=[found.items[place] for place in order])
        return Answer(found, served, variant.name, [variant.name] * len(order), propensities)

    def _draft(self, k: int, request_id: str, recommend: Recommend) -> Answer:
        """Drafts a list from both variants. All fields but the items come from the first one."""
        systems = [(variant, self._served(variant)) for variant in self._settings.variants]
        answers = [recommend(served, variant, k) for variant, served in systems]
        numbers: dict[str, int] = {}
        rankings = [[numbers.setdefault(item.item_id, len(numbers)) for item in found.items] for found in answers]
        items, teams, propensities = interleave(rankings[0], rankings[1], k, request_id)
        by_number: list[dict[int, RecommendedItem]] = [
            dict(zip(ranking, found.items, strict=True)) for ranking, found in zip(rankings, answers, strict=True)
        ]
        found = replace(answers[0], items=[by_number[team][item] for team, item in zip(teams, items, strict=True)])
        names = [systems[team][0].name for team in teams]
        return Answer(found, systems[0][1], INTERLEAVED, names, propensities)

    def _served(self, variant: VariantSettings) -> Served:
        return (self._others[variant.bundle_version] if variant.bundle_version else self._state).current
