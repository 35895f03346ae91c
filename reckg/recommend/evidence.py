"""Evidence: what one user's answer was made from, kept on the way: no source or feature is asked a second time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reckg.ranking.features.extract import FEATURES
from reckg.ranking.features.missing_values import CAUSES, Cause, missing_causes
from reckg.ranking.sources.candidates import SOURCES
from reckg.ranking.sources.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems


@dataclass(frozen=True)
class FeatureValue:
    """What the ranker sees of an item; value is None where it is missing, and then cause says why (causes.CAUSES)."""

    value: float | None
    cause: Cause = ""


@dataclass(frozen=True)
class SourceScore:
    """A source (candidates.SOURCES) that found an item: its score, and the item's place among what it gave, from 1."""

    source: str
    score: float
    rank: int


@dataclass
class Evidence:
    """Of one user: what each source gave, (1, k) each; and where items were ranked, the (1, c) candidates and their
    features (1, c, F)."""

    sources: dict[str, ScoredItems] = field(default_factory=dict)
    candidates: ScoredItems | None = None
    features: np.ndarray | None = None
    causes: np.ndarray | None = None

    def ranked(self, scores: UserScores, candidates: ScoredItems, features: np.ndarray) -> None:
        """Keeps what the ranker saw of the one user of ``scores``."""
        self.candidates, self.features = candidates, features
        self.causes = missing_causes(scores, features)[0]

    def source_scores(self, item_idx: int) -> tuple[SourceScore, ...]:
        """The sources that found an item, in the order of SOURCES."""
        found = []
        for name in SOURCES:
            part = self.sources.get(name)
            if part is None:
                continue
            place = np.flatnonzero(part.item_idx[0] == item_idx)
            if len(place):
                rank = 1 + int((part.item_idx[0, : place[0]] >= 0).sum())
                found.append(SourceScore(name, float(part.score[0, place[0]]), rank))
        return tuple(found)

    def feature_values(self, item_idx: int) -> dict[str, FeatureValue]:
        """By feature what the ranker saw of an item; empty where it did not see it."""
        if self.candidates is None or self.features is None or self.causes is None:
            return {}
        place = np.flatnonzero(self.candidates.item_idx[0] == item_idx)
        if not len(place):
            return {}
        values, causes = self.features[0, place[0]].tolist(), self.causes[place[0]].tolist()
        return {
            name: FeatureValue(None, CAUSES[cause]) if cause else FeatureValue(value)
            for name, value, cause in zip(FEATURES, values, causes, strict=True)
        }


@dataclass(frozen=True)
class ShownEvidence:
    """Parts of the evidence that an answer shows."""

    evidence: Evidence
    features: bool = False
    sources: bool = False

    def of_item(self, item_idx: int) -> tuple[dict[str, FeatureValue], tuple[SourceScore, ...]]:
        """Returns an item's features and sources; empty unless shown."""
        features = self.evidence.feature_values(item_idx) if self.features else {}
        return features, self.evidence.source_scores(item_idx) if self.sources else ()
