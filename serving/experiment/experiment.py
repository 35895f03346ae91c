"""One answer where variants are compared: which system gives it, and what of it goes to the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reckg.recommend.answers import Recommendations, RecommendedItem
from serving.catalog.snapshot import Served
from serving.experiment.variants import explored, interleaved, variant_of
from serving.settings import ExperimentSettings, VariantSettings

INTERLEAVED = "interleaved"

Ask = Callable[[Served, VariantSettings | None, int], Recommendations]  # what is served, the variant, and k


@dataclass(frozen=True)
class Answer:
    """What is shown. variants: the one that put each item there; propensities: with which probability it is there."""

    found: Recommendations
    served: Served
    variant: str
    variants: Sequence[str]
    propensities: Sequence[float]


class HasCurrent(Protocol):
    """A ServingState, or a snapshot of it."""

    @property
    def current(self) -> Served: ...


@dataclass(frozen=True)
class Fixed:
    """One snapshot for several answers."""

    current: Served


class Experiment:
    """Answers from the variant of a user, or from two at once; without variants from what is served.

    Args:
        others: what is served of the bundle versions that variants name.
    """

    def __init__(
        self, settings: ExperimentSettings, state: HasCurrent, others: Mapping[str, HasCurrent] | None = None
    ) -> None:
        self._settings, self._state, self._others = settings, state, others or {}

    def answer(self, user: str, k: int, request_id: str, ask: Ask) -> Answer:
        """The k items that a user is shown.

        Args:
            user: decides about the variant: the raw user id or, of a request without, its request id.
            request_id: decides about what is drawn by chance.
            ask: called for each variant that is needed.
        """
        if not self._settings.variants:
            served = self._state.current
            found = ask(served, None, k)
            return Answer(found, served, "", [""] * len(found.items), [1.0] * len(found.items))
        if self._settings.interleave:
            return self._draft(k, request_id, ask)
        variant = variant_of(self._settings, user)
        served = self._served(variant)
        found = ask(served, variant, max(k, variant.explore))
        order, propensities = explored(range(len(found.items)), variant.explore, k, request_id)
        found = replace(found, items=[found.items[place] for place in order])
        return Answer(found, served, variant.name, [variant.name] * len(order), propensities)

    def _draft(self, k: int, request_id: str, ask: Ask) -> Answer:
        """A team draft of both variants; all but the items is what the first one says."""
        of = [(variant, self._served(variant)) for variant in self._settings.variants]
        both = [ask(served, variant, k) for variant, served in of]
        numbers: dict[str, int] = {}
        rankings = [[numbers.setdefault(item.item_id, len(numbers)) for item in found.items] for found in both]
        items, teams, propensities = interleaved(rankings[0], rankings[1], k, request_id)
        by_number: list[dict[int, RecommendedItem]] = [
            dict(zip(ranking, found.items, strict=True)) for ranking, found in zip(rankings, both, strict=True)
        ]
        found = replace(both[0], items=[by_number[team][item] for team, item in zip(teams, items, strict=True)])
        names = [of[team][0].name for team in teams]
        return Answer(found, of[0][1], INTERLEAVED, names, propensities)

    def _served(self, variant: VariantSettings) -> Served:
        return (self._others[variant.bundle_version] if variant.bundle_version else self._state).current
