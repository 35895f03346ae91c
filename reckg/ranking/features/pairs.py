"""Pairs of users and their candidates, and what several features need of them: gathered once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from reckg.arrays.half_floats import float32_rows
from reckg.ranking.sources.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems


class Pairs:
    """The users of ``scores`` and their candidates in retrieval order.

    item_idx (n, c): padding is taken for item 0, real (n, c) says what is none, all_real
    that there is none; score (n, c), 0 for padding.
    """

    def __init__(self, scores: UserScores, candidates: ScoredItems) -> None:
        self.scores, self.tables = scores, scores.tables
        self.real = candidates.item_idx >= 0
        self.all_real = bool(self.real.all())
        self.item_idx = np.maximum(candidates.item_idx, 0)
        self.score = np.where(self.real, candidates.score, 0)

    @cached_property
    def vectors(self) -> np.ndarray:
        """(n, c, graph_dim) float32: unit vectors of the graph."""
        return float32_rows(self.tables.vectors, self.item_idx)

    @cached_property
    def texts(self) -> np.ndarray:
        """(n, c, t) float32: unit vectors of the texts."""
        return float32_rows(self.tables.text, self.item_idx)
