"""Recency weights by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.graph.recency import recency_weights


def test_every_later_interaction_of_the_same_user_halves_the_weight_at_half_life_one() -> None:
    #                      ann bob bob ann bob ann   later of the same user: 2 2 1 1 0 0
    users = np.array([0, 1, 1, 0, 1, 0])
    np.testing.assert_allclose(recency_weights(users, half_life=1), [0.25, 0.25, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(recency_weights(users, half_life=2), np.sqrt([0.25, 0.25, 0.5, 0.5, 1, 1]))


def test_half_life_zero_turns_it_off() -> None:
    np.testing.assert_array_equal(recency_weights(np.array([3, 3, 5]), half_life=0), [1, 1, 1])


@pytest.mark.parametrize("half_life", [0.0, 3.0])
def test_no_interactions(half_life: float) -> None:
    assert recency_weights(np.array([], dtype=np.int64), half_life).shape == (0,)


def test_the_weights_of_a_very_long_history_stay_positive() -> None:
    weights = recency_weights(np.zeros(3000, dtype=np.int64), half_life=1)
    assert weights.min() > 0 and weights[-1] == 1 and (np.diff(weights) >= 0).all()
