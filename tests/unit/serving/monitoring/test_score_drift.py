"""How far scores have moved."""

from __future__ import annotations

import numpy as np
import pytest

from serving.monitoring.score_drift import ANSWERS, ScoreDrift, stability_index


def test_the_stability_index_by_hand() -> None:
    half = np.array([0.5, 0.5])
    assert stability_index(half, half) == 0
    assert stability_index(half, np.array([0.75, 0.25])) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert np.isfinite(stability_index(half, np.array([1.0, 0.0])))


def test_drift_is_told_against_the_first_answers() -> None:
    reported: list[float] = []
    drift, rng = ScoreDrift(reported.append), np.random.default_rng(0)
    for mean in (0.0, 0.0, 2.0):
        for score in rng.normal(mean, 1.0, ANSWERS).tolist():
            drift.add(score)
    assert reported[0] == pytest.approx(0, abs=1e-6)
    assert reported[1] < 0.1 < 0.25 < reported[2]


def test_scores_that_are_all_the_same_do_not_drift() -> None:
    reported: list[float] = []
    drift = ScoreDrift(reported.append)
    for _ in range(2 * ANSWERS):
        drift.add(1.0)
    assert reported == [0.0, 0.0]
