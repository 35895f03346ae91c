"""Pairs of users and their candidates, and what several features need of them: gathered once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from reckg.ranking.row_sums import row_entries
from reckg.ranking.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems


class Pairs:
    """The users of ``scores`` and their candidates in retrieval order.

    item_idx (n, c): padding is taken for item 0, real (n, c) says what is none; score (n, c), 0 for padding.
    """

    def __init__(self, scores: UserScores, candidates: ScoredItems) -> None:
        self.scores, self.tables = scores, scores.tables
        self.real = candidates.item_idx >= 0
        self.item_idx = np.maximum(candidates.item_idx, 0)
        self.score = np.where(self.real, candidates.score, 0)

    @cached_property
    def entities(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every entity of a candidate: the pair's place 0..n*c-1, the entity, and its rarity."""
        return row_entries(self.tables.entities, self.item_idx.ravel())

    @cached_property
    def vectors(self) -> np.ndarray:
        """(n, c, graph_dim) float32: unit vectors of the graph."""
        return self.tables.vectors[self.item_idx].astype(np.float32)

    @cached_property
    def texts(self) -> np.ndarray:
        """(n, c, t) float32: unit vectors of the texts."""
        return self.tables.text[self.item_idx].astype(np.float32)
