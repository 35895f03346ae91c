"""Pairs of users and their candidates, with inputs that several features share, gathered once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from reckg.arrays.half_floats import float32_rows
from reckg.ranking.sources.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems


class Pairs:
    """The users of ``scores`` and their candidates in retrieval order.

    Attributes:
        item_idx: (n, c); padding is 0.
        real: (n, c) bool: no padding.
        all_real: whether the candidates have no padding.
        score: (n, c), 0 for padding.
    """

    def __init__(self, scores: UserScores, candidates: ScoredItems) -> None:
        self.scores, self.tables = scores, scores.tables
        self.real = candidates.item_idx >= 0
        self.all_real = bool(self.real.all())
        self.item_idx = np.maximum(candidates.item_idx, 0)
        self.score = np.where(self.real, candidates.score, 0)

    @cached_property
    def vectors(self) -> np.ndarray:
        """Unit vectors of the graph: (n, c, graph_dim) float32."""
        return float32_rows(self.tables.vectors, self.item_idx)

    @cached_property
    def texts(self) -> np.ndarray:
        """Unit vectors of the texts: (n, c, t) float32."""
        return float32_rows(self.tables.text, self.item_idx)
