from __future__ import annotations

import numpy as np
import pytest

from reckg.data.weights import damped_weights

PLAYS = np.array([1.0, 10.0, 352_698.0])
ALL = np.ones(3, dtype=bool)


def test_log_damps_a_heavy_tail_and_keeps_the_order() -> None:
    damped = damped_weights(PLAYS, ALL, "log")
    assert damped.mean() == pytest.approx(1)
    np.testing.assert_allclose(damped / damped[0], np.log1p(PLAYS) / np.log(2))


@pytest.mark.parametrize("damping", ["log", "linear", "ignore"])
def test_the_unit_of_the_weights_does_not_matter(damping: str) -> None:
    np.testing.assert_allclose(damped_weights(PLAYS, ALL, damping), damped_weights(PLAYS * 60, ALL, damping))


@pytest.mark.parametrize("damping", ["log", "linear", "ignore"])
def test_equal_weights_are_exactly_one(damping: str) -> None:
    assert damped_weights(np.full(7, 0.3), np.ones(7, dtype=bool), damping).tolist() == [1.0] * 7


def test_linear_keeps_ratios_and_ignore_has_none() -> None:
    assert damped_weights(np.array([1.0, 2.0]), ALL[:2], "linear").tolist() == pytest.approx([2 / 3, 4 / 3])
    assert damped_weights(PLAYS, ALL, "ignore").tolist() == [1, 1, 1]


def test_later_rows_do_not_set_the_scale() -> None:
    training = np.array([True, True, False])
    first = damped_weights(PLAYS, training, "log")[:2]
    np.testing.assert_array_equal(first, damped_weights(np.array([1.0, 10.0, 5.0]), training, "log")[:2])


def test_the_worth_of_an_event_is_not_damped() -> None:
    found = damped_weights(np.ones(2), ALL[:2], "log", np.array([1.0, 3.0]))
    assert found.tolist() == [0.5, 1.5]
