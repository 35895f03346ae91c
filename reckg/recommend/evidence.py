"""Evidence: sources and features of a single user's answer, collected while it is computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reckg.ranking.features.extract import ALL_FEATURES
from reckg.ranking.features.missing_values import CAUSES, Cause, missing_causes
from reckg.ranking.sources.candidates import SOURCES
from reckg.ranking.sources.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems


@dataclass(frozen=True)
class FeatureValue:
    """Value of a feature of an item.

    Args:
        value: as the ranker reads it. None: missing.
        cause: reason why the value is missing, one of ``missing_values.CAUSES``; empty if it is there.
    """

    value: float | None
    cause: Cause = ""


@dataclass(frozen=True)
class SourceScore:
    """Candidate source that found an item.

    Args:
        source: one of ``candidates.SOURCES``.
        score: by the source's own measure.
        rank: the item's place in the source's list, from 1.
    """

    source: str
    score: float
    rank: int


@dataclass
class Evidence:
    """Evidence of a single user's answer.

    Args:
        sources: the (1, k) list of each source.
        candidates: (1, c) items that were ranked. None: none were.
        features: (1, c, F) features of the candidates.
        causes: (c, F) numbers in ``CAUSES``, 0 for a value that is there.
    """

    sources: dict[str, ScoredItems] = field(default_factory=dict)
    candidates: ScoredItems | None = None
    features: np.ndarray | None = None
    causes: np.ndarray | None = None

    def keep_features(self, scores: UserScores, candidates: ScoredItems, features: np.ndarray) -> None:
        """Keeps the features that the ranker reads.

        Args:
            scores: of the one user.
            candidates: (1, c) items.
            features: (1, c, F).
        """
        self.candidates, self.features = candidates, features
        self.causes = missing_causes(scores, features)[0]

    def source_scores(self, item_idx: int) -> tuple[SourceScore, ...]:
        """Lists the sources that found an item, in the order of SOURCES."""
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
        """Returns an item's features by name; empty if the ranker did not see the item."""
        if self.candidates is None or self.features is None or self.causes is None:
            return {}
        place = np.flatnonzero(self.candidates.item_idx[0] == item_idx)
        if not len(place):
            return {}
        values, causes = self.features[0, place[0]].tolist(), self.causes[place[0]].tolist()
        return {
            name: FeatureValue(None, CAUSES[cause]) if cause else FeatureValue(value)
            for name, value, cause in zip(ALL_FEATURES, values, causes, strict=False)
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
