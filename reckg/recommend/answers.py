"""What an answer holds: items with scores, what made them, and why they may be worse than usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reckg.recommend.deadline import Stage
from reckg.recommend.evidence import FeatureValue, SourceScore

FallbackPolicy = Literal["popular"]
DegradedReason = Literal["cold_user", "no_rerank", "unknown_recent_items", "unknown_attributes"]


@dataclass(frozen=True)
class RecommendedItem:
    """One item of an answer; ``title`` is empty where the catalogue has no text column. Higher scores are better.

    Where they were asked for: ``features``, what the ranker saw of the item, empty where it saw nothing of it; and
    ``sources``, those that found it among their best.
    """

    item_id: str
    title: str
    score: float
    features: Mapping[str, FeatureValue] = field(default_factory=dict)
    sources: tuple[SourceScore, ...] = ()


@dataclass(frozen=True)
class Recommendations:
    """An answer, best item first.

    ``fallback`` names the policy that answered in place of the model (None: the model answered); ``degraded`` says
    why the answer may be worse than usual: ``cold_user``: no interaction of the user is known; ``no_rerank``: there is
    a ranker, and it was not applied; ``unknown_recent_items`` and ``unknown_attributes``: some of what was given is not
    known to the bundle, and the fields of that name say what, as ``unknown_context_items`` does. ``stages``: what was
    done, in the order in which it was done.
    """

    items: list[RecommendedItem]
    bundle_version: str
    fallback: FallbackPolicy | None = None
    degraded: tuple[DegradedReason, ...] = ()
    unknown_recent_items: tuple[str, ...] = ()
    unknown_attributes: tuple[str, ...] = ()
    unknown_context_items: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class RankedItems:
    """The caller's candidates that are known, in order, and those that are not."""

    order: Recommendations
    unknown_items: tuple[str, ...] = ()
