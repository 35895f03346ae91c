"""Event types: the one that is to be predicted, the worth of the others, and dislikes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from reckg.errors import DataError

LED = 0.3  # share of a type's pairs that an earlier event of another type must precede: below, nothing leads to it
CLOSE = 3.0  # a type that leads to one of at most so many times its pairs is a step on the way
LEAST = 0.05  # least derived weight of a type
TIMES = 2.0  # weight of a target beside the largest given weight of another type
# Words of event names that take something back. They say the opposite of a like, and other events always lead to them.
NEGATIVE_WORDS = ("dislike", "unlike", "return", "refund", "remove", "cancel", "skip", "hide", "block", "unsubscribe")


class EventSetting(Protocol):
    """The settings of an event type, see the configuration's section events."""

    @property
    def target(self) -> bool: ...
    @property
    def weight(self) -> float | None: ...
    @property
    def negative(self) -> bool: ...


@dataclass(frozen=True)
class EventPlan:
    """The meaning of each event type.

    Args:
        targets: types that are predicted; empty for data without types.
        weights: of an interaction, by type; without the negative types.
        negative: types that say that the user does not want the item.
        rows: training interactions by type.
        derived: whether the data chose the targets.
    """

    targets: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    negative: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    derived: bool = True

    @property
    def funnel(self) -> bool:
        """Whether types other than the targets lead to them."""
        return len(self.weights) > len(self.targets)

    def notes(self) -> list[str]:
        """Describes the plan in sentences; none for data whose types all mean the same."""
        if not self.funnel and not self.negative:
            return []
        chosen = "derived from the training part" if self.derived else "from [events]"
        worth = ", ".join(f"{name} {weight:.3g}" for name, weight in self.weights.items())
        notes = [f"Target event: {', '.join(self.targets)} ({chosen}); weights of the events: {worth}."]
        if self.negative:
            count = sum(self.rows[name] for name in self.negative)
            notes.append(
                f"Taken as dislikes: {', '.join(self.negative)} ({count:_} training interactions). Their items are "
                "never recommended to the same user; [events] can say otherwise."
            )
        return notes


def plan_events(training: pl.DataFrame, given: Mapping[str, EventSetting]) -> EventPlan:
    """Chooses the target event and the weights of the others. Settings come before the data.

    The target is the rarest type that other ones lead to: a share of LED of its pairs of user and item had one of them
    before, and mostly for the first time. A cart that leads to as many purchases is a step on the way, not the target.
    Without such a type all are targets. Another type weighs the square root of its chance to be followed by the target,
    at least LEAST, so that many weak signs do not drown few strong ones.

    Args:
        training: user_id, item_id and, if known, event and timestamp; of the training part alone.
        given: the settings by type.
    Raises:
        DataError: a setting names a type that the log does not have, or every type is negative.
    """
    if "event" not in training.columns:
        if given:
            raise DataError(f"[events] names {', '.join(given)}, but the interactions have no column 'event'.")
        return EventPlan()
    rows = dict(training.group_by("event").len().sort("len", "event").rows())
    unknown = [name for name in given if name not in rows]
    if unknown:
        raise DataError(
            f"[events] names {', '.join(unknown)}, which no training interaction has; there are {', '.join(rows)}."
        )
    negative = tuple(name for name in rows if _is_negative(name, given))
    likes = [name for name in rows if name not in negative]
    if not likes:
        raise DataError(f"every event type is negative ({', '.join(negative)}): nothing is left to recommend.")
    targets = tuple(name for name in likes if name in given and given[name].target)
    first = _first_times(training)
    derived = not targets
    if derived:
        found = _end_of_funnel(first, likes)
        targets = tuple(likes) if found is None else (found,)
    weights = {name: 1.0 for name in targets}
    chance = {name: _followed(first, name, targets) for name in likes if name not in targets}
    weights |= {name: max(LEAST, math.sqrt(value)) for name, value in chance.items()}
    named = {name: given[name].weight for name in likes if name in given}
    known = {name: weight for name, weight in named.items() if weight is not None}
    if known:
        others = [weight for name, weight in known.items() if name not in targets]
        top = max((known[name] for name in targets if name in known), default=TIMES * max(others, default=0.5))
        weights = {name: known.get(name, top * weight) for name, weight in weights.items()}
    return EventPlan(targets, weights, negative, rows, derived)


def _is_negative(name: str, given: Mapping[str, EventSetting]) -> bool:
    return given[name].negative if name in given else any(word in name.lower() for word in NEGATIVE_WORDS)


def _first_times(training: pl.DataFrame) -> pl.DataFrame:
    """Finds each pair's first and last time by type. Data without times has 0."""
    time = pl.col("timestamp") if "timestamp" in training.columns else pl.lit(0, pl.Int64)
    return training.group_by("user_id", "item_id", "event").agg(time.min().alias("first"), time.max().alias("last"))


def _end_of_funnel(first: pl.DataFrame, names: list[str]) -> str | None:
    """Finds the rarest type that others lead to, and from there the last of types that are about as rare."""
    pairs = dict(first.group_by("event").len().rows())
    by_rarity = sorted(names, key=lambda name: (pairs[name], name))
    found = None
    for name in by_rarity:
        more = [other for other in names if pairs[other] >= pairs[name]]
        if found is None and any(_leads(first, other, name) for other in more):
            found = name
    for name in by_rarity:
        if found is not None and pairs[name] <= CLOSE * pairs[found] and _leads(first, found, name):
            found = name
    return found


def _leads(first: pl.DataFrame, name: str, other: str) -> bool:
    """Tells whether a type leads to another: before a share of LED of its pairs, and in most of the common ones."""
    if name == other:
        return False
    later = first.filter(pl.col("event") == other)
    both = later.join(first.filter(pl.col("event") == name), on=["user_id", "item_id"], suffix="_before")
    led = both.filter(pl.col("first_before") <= pl.col("last"))
    earlier = both.filter(pl.col("first_before") < pl.col("first"))
    after = both.filter(pl.col("first_before") > pl.col("first"))
    return len(led) >= LED * len(later) and len(earlier) > len(after)


def _followed(first: pl.DataFrame, name: str, targets: tuple[str, ...]) -> float:
    """Computes the share of a type's pairs that have a target event at the same time or later."""
    own = first.filter(pl.col("event") == name)
    after = first.filter(pl.col("event").is_in(targets)).group_by("user_id", "item_id").agg(pl.col("last").max())
    both = own.join(after, on=["user_id", "item_id"], suffix="_after")
    return len(both.filter(pl.col("last_after") >= pl.col("first"))) / max(len(own), 1)
