"""Drift of the answers' best scores since the bundle came, as population stability index."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from serving.monitoring.metrics import SCORE_DRIFT

ANSWERS = 1000  # compared with as many answers at the start of the bundle
BINS = 10


class ScoreDrift:
    """The drift of best scores as population stability index: below 0.1 is little, above 0.25 much.

    The first ANSWERS scores define bins of equal counts. Each further ANSWERS scores are compared with them.

    Args:
        report: called with each new index.
    """

    def __init__(self, report: Callable[[float], None] = SCORE_DRIFT.set) -> None:
        self._report = report
        self._scores: deque[float] = deque()
        self._edges: np.ndarray | None = None
        self._expected: np.ndarray = np.empty(0)

    def add(self, score: float) -> None:
        """Adds the best score of an answer."""
        self._scores.append(score)
        if len(self._scores) < ANSWERS:
            return
        scores = np.array(self._scores)
        self._scores.clear()
        if self._edges is None:
            self._edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)[1:-1]))
            self._expected = self._shares(scores)
        self._report(stability_index(self._expected, self._shares(scores)))

    def _shares(self, scores: np.ndarray) -> np.ndarray:
        edges = self._edges if self._edges is not None else np.empty(0)
        return np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1) / len(scores)


def stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """Computes the population stability index of two distributions; 0 for equal ones.

    It is a symmetrised Kullback-Leibler divergence (Siddiqi 2006, Credit Risk Scorecards). Empty bins count as one in
    ten thousand.

    Args:
        expected: (bins,) shares.
        found: (bins,) shares in the same bins.
    """
    expected, found = np.maximum(expected, 1e-4), np.maximum(found, 1e-4)
    return float(((found - expected) * np.log(found / expected)).sum())
