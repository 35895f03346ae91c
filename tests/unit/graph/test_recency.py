"""Recency weights by hand; the half-life that histories ask for."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.data.history import History
from reckg.graph.recency import HALF_LIVES, derive_half_life, recency_weights


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


def walks(step: int, n_users: int = 300, n_items: int = 40, length: int = 9) -> History:
    """Users that walk through the items: each next item is the neighbour of the one that came ``step`` before it."""
    random = np.random.default_rng(0)
    items = random.integers(n_items, size=(n_users, length))
    for place in range(step, length):
        items[:, place] = (items[:, place - step] + random.choice([1, -1], size=n_users)) % n_items
    n = n_users * length
    return History(np.arange(0, n + 1, length), items.ravel(), np.zeros(n, np.int64), np.ones(n, np.float32))


def test_the_half_life_is_short_where_the_latest_item_tells_the_next() -> None:
    assert derive_half_life(walks(1), 40) < 3
    assert derive_half_life(walks(4), 40) > 4


def test_the_half_life_of_hardly_any_history_is_none() -> None:
    history = History(np.array([0, 2, 4]), np.array([0, 1, 1, 2]), np.zeros(4, np.int64), np.ones(4, np.float32))
    assert derive_half_life(history, 3) == 0


def test_an_item_that_is_taken_again_counts_at_each_of_its_places() -> None:
    """Repeats in a history must neither be an error nor make an item its own neighbour."""
    history = walks(1)
    again = np.repeat(history.item_idx, 2)
    doubled = History(history.indptr * 2, again, np.zeros(len(again), np.int64), np.ones(len(again), np.float32))
    assert derive_half_life(doubled, 40) > 0


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_the_half_life_is_that_of_the_definition(step: int) -> None:
    """Every user is asked, with dense matrices; some take the item before their last one twice."""
    history = walks(step, n_users=60, n_items=12, length=7)
    items = history.item_idx.reshape(60, 7)
    items[::3, 2] = items[::3, 5]
    taken = np.zeros((12, 60))
    for user, row in enumerate(items):
        taken[row[:-1], user] = 1
    unit = taken / np.sqrt(np.maximum(taken.sum(axis=1, keepdims=True), 1))
    gains = dict.fromkeys(HALF_LIVES, 0.0)
    for row in items:
        for half_life in HALF_LIVES:
            scores = sum(0.5 ** ((5 - place) / half_life) * unit[item] @ unit.T for place, item in enumerate(row[:-1]))
            scores = np.where(np.isin(np.arange(12), row[:-1]), 0, scores)
            better, equal = (scores > scores[row[-1]]).sum(), (scores == scores[row[-1]]).sum()
            gains[half_life] += 1 / np.log2(2 + better + (equal - 1) / 2)
    assert derive_half_life(history, 12) == max(gains, key=lambda each: gains[each])
