"""Candidate lists of label users: the training data of a ranker."""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np

from reckg.arrays.ragged_rows import Rows, take_rows
from reckg.metrics.ranking import ranking_metrics
from reckg.ranking.features.extract import ALL_FEATURES, FEATURES
from reckg.ranking.trees.blend import Blend

LARGEST_GRADE = 4
K = 10  # cut-off of the NDCG that training maximises and the guard compares


@dataclass(frozen=True)
class Queries:
    """n lists of candidates of label users, each with at least one relevant item.

    Args:
        user: (n,) the list's user.
        item_idx: (n, c), -1 is padding.
        features: (n, c, F) float32.
        hits: (n, c) bool: the relevant candidates.
        grades: (n, c) int8: gain of a hit, 0 elsewhere. None: all hits have 1.
        relevant: compressed rows of all relevant items.
        without: number of further lists without a relevant candidate.
    """

    user: np.ndarray
    item_idx: np.ndarray
    features: np.ndarray
    hits: np.ndarray
    relevant: Rows
    without: int = 0
    grades: np.ndarray | None = None

    @property
    def cold(self) -> np.ndarray:
        """Lists of users without history, (n,) bool."""
        cold: np.ndarray = self.history_length == 0
        return cold

    @property
    def history_length(self) -> np.ndarray:
        """Interactions of each list's user, (n,) int64; -1 for a list of padding alone."""
        length = self.features[:, :, FEATURES.index("history_length")]
        longest = np.nan_to_num(length.max(axis=1, initial=-1, where=self.real), nan=-1)
        interactions: np.ndarray = np.where(longest < 0, -1, np.rint(np.expm1(longest))).astype(np.int64)
        return interactions

    @property
    def real(self) -> np.ndarray:
        """Candidates, as opposed to padding: (n, c) bool."""
        return self.item_idx >= 0

    def take(self, rows: np.ndarray) -> Queries:
        """Selects lists."""
        parts = self.user[rows], self.item_idx[rows], self.features[rows], self.hits[rows]
        grades = None if self.grades is None else self.grades[rows]
        return Queries(*parts, take_rows(self.relevant, rows), grades=grades)

    def dataset(self, blend: Blend, sampled: np.ndarray) -> lgb.Dataset:
        """Makes LightGBM's data: a row per sampled candidate, the blend as ``init_score``.

        Args:
            sampled: (n, c) bool.
        """
        rows, length = self.features[sampled], sampled.sum(axis=1)
        return lgb.Dataset(
            rows,
            label=(self.hits if self.grades is None else self.grades)[sampled].astype(np.int32),
            group=length[length > 0],
            init_score=blend.scores(rows),
            feature_name=list(ALL_FEATURES[: rows.shape[1]]),
        )

    def sample(self, negatives: int, seed: int) -> np.ndarray:
        """Draws all hits and at most ``negatives`` other candidates of each list: (n, c) bool."""
        draw = np.random.default_rng(seed).random(self.hits.shape)
        draw[self.hits | ~self.real] = 2
        place = np.argsort(np.argsort(draw, axis=1), axis=1)
        return self.hits | (self.real & (place < negatives))

    def ndcg(self, score: np.ndarray) -> np.ndarray:
        """Computes NDCG@10 of the lists in the order of (n, c) scores: (n,)."""
        order = np.argsort(-np.where(self.real, score, -np.inf), axis=1, kind="stable")[:, :K]
        lists = np.take_along_axis(self.item_idx, order, axis=1)
        return ranking_metrics(lists, self.relevant, (K,))[f"ndcg@{K}"]
