"""Item-item matrices: co-occurrence by hand, EASE against its textbook formula, and the cut to the neighbours."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from reckg.data.history import History
from reckg.errors import DataError
from reckg.ranking.tables import item_item
from reckg.ranking.tables.ease import user_item_matrix
from reckg.ranking.tables.item_item import (
    Order,
    cooccurrence,
    entity_neighbours,
    keep_largest,
    linear_weights,
    two_step_walk,
    vector_neighbours,
)


def history_of(*rows: list[int]) -> History:
    events = [(user, item, time) for user, row in enumerate(rows) for time, item in enumerate(row)]
    frame = pl.DataFrame(events, schema=["user_idx", "item_idx", "timestamp"], orient="row")
    return History.from_interactions(frame, len(rows))


def test_unordered_cooccurrence_is_the_cosine_of_the_users() -> None:
    # items 0 and 1: two users have both; three have 0, two have 1. Item 3 nobody has.
    matrix = cooccurrence(history_of([0, 1], [1, 0, 0], [0, 2]), 4, neighbours=10, order="none").toarray()
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2 / np.sqrt(3 * 2)
    expected[0, 2] = expected[2, 0] = 1 / np.sqrt(3 * 1)
    assert matrix == pytest.approx(expected, abs=1e-6)


def test_cooccurrence_ahead_counts_one_over_the_distance_to_what_comes_after() -> None:
    matrix = cooccurrence(history_of([0, 1, 2, 3, 4, 5, 6], [1, 0]), 7, neighbours=10, order="ahead").toarray()
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(1 / np.sqrt(2 * 2))
    assert matrix[0, 2] == pytest.approx((1 / 2) / np.sqrt(2 * 1))
    assert matrix[0, 5] == pytest.approx((1 / 5) / np.sqrt(2 * 1))
    assert matrix[0, 6] == 0  # six steps apart
    assert np.array_equal(np.argwhere(np.tril(matrix)), [[1, 0]])  # nothing else goes back


def test_of_two_items_with_equal_times_each_comes_after_the_other_by_half() -> None:
    frame = pl.DataFrame({"user_idx": [0] * 3, "item_idx": [0, 1, 2], "timestamp": [5, 5, 6]})
    matrix = cooccurrence(History.from_interactions(frame, 1), 3, neighbours=10, order="ahead").toarray()
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(1 / 2)
    assert sorted([matrix[0, 2], matrix[1, 2]]) == pytest.approx([1 / 2, 1]) and not matrix[2].any()


def test_cooccurrence_between_falls_with_the_distance_both_ways() -> None:
    matrix = cooccurrence(history_of(list(range(22)), [1, 0]), 22, neighbours=30, order="between").toarray()
    assert matrix[0, 1] == pytest.approx((1 + 1) / np.sqrt(2 * 2))
    assert matrix[0, 2] == pytest.approx(np.exp(-1 / 3) / np.sqrt(2 * 1))
    assert matrix[1, 21] == pytest.approx(np.exp(-19 / 3) / np.sqrt(2 * 1))
    assert matrix[0, 21] == 0  # 21 steps apart
    assert np.array_equal(matrix, matrix.T)


@pytest.mark.parametrize("order", ["none", "between", "ahead"])
def test_cooccurrence_never_pairs_items_of_two_users(order: Order) -> None:
    matrix = cooccurrence(history_of([0, 1], [2, 3]), 4, neighbours=10, order=order).toarray()
    assert matrix[0, 1] > 0 and matrix[1, 2] == matrix[2, 1] == 0


def test_long_unordered_histories_are_cut_to_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_item, "BASKET_ITEMS", 2)
    matrix = cooccurrence(history_of([0, 1, 2]), 3, neighbours=10, order="none").toarray()
    assert (matrix > 0).tolist() == [[False, False, False], [False, False, True], [False, True, False]]


@pytest.mark.parametrize("order", ["none", "between", "ahead"])
def test_an_empty_history_has_no_neighbours(order: Order) -> None:
    empty = History.from_interactions(pl.DataFrame(schema={"user_idx": pl.Int64, "item_idx": pl.Int64}), 3)
    assert cooccurrence(empty, 4, neighbours=2, order=order).nnz == 0
    assert two_step_walk(empty, 4, neighbours=2).nnz == 0


def random_history(seed: int, n_users: int = 30, n_items: int = 25) -> History:
    rng = np.random.default_rng(seed)
    return history_of(*[rng.choice(n_items, rng.integers(1, 9), replace=False).tolist() for _ in range(n_users)])


def test_a_walk_is_the_product_of_its_steps_over_the_root_of_the_popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    history = random_history(3)
    taken = user_item_matrix(history, 25).toarray().astype(np.float64)
    users, items = np.maximum(taken.sum(axis=0), 1), taken.sum(axis=1)
    expected = (taken / users).T @ (taken / items[:, None]) / np.sqrt(users)
    np.fill_diagonal(expected, 0)
    whole = two_step_walk(history, 25, neighbours=25)
    assert whole.toarray() == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(item_item, "BLOCK_ENTRIES", 40)  # a few rows at a time
    assert np.array_equal(two_step_walk(history, 25, neighbours=25).toarray(), whole.toarray())
    few = two_step_walk(history, 25, neighbours=3).toarray()
    assert ((few != 0).sum(axis=1) <= 3).all() and np.array_equal(few[few != 0], whole.toarray()[few != 0])


def test_entity_neighbours_are_the_closest_by_the_cosine_of_the_weights() -> None:
    weights = np.array([[3.0, 4.0, 0], [3.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0], [0, 0, 0]])
    found = entity_neighbours(sp.csr_matrix(weights), 5).toarray()
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = 0.6
    expected[0, 2] = expected[2, 0] = 0.8
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.argwhere(entity_neighbours(sp.csr_matrix(weights), 1).toarray()[0]).tolist() == [[2]]


def test_vector_neighbours_are_the_largest_inner_products_above_zero() -> None:
    vectors = np.random.default_rng(4).normal(size=(30, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    found = vector_neighbours(vectors, 4).toarray()
    for row in range(30):
        best = [item for item in np.argsort(-cosines[row])[:4] if cosines[row, item] > 0]
        assert set(np.flatnonzero(found[row]).tolist()) == set(best)
        assert found[row, best] == pytest.approx(cosines[row, best], abs=1e-6)
    assert vector_neighbours(np.zeros((1, 3)), 4).nnz == 0


def test_linear_weights_are_those_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    history = history_of(*[rng.choice(12, size=rng.integers(1, 8), replace=False).tolist() for _ in range(40)])
    x = user_item_matrix(history, 12).toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 5.0 * np.eye(12))
    expected = np.eye(12) - inverse / np.diag(inverse)[None, :]
    found = linear_weights(history, 12, regularisation=5.0, neighbours=12).toarray()
    assert found == pytest.approx(expected, abs=1e-5)
    assert (np.diag(found) == 0).all()


def test_linear_weights_keep_the_largest_of_every_column() -> None:
    rng = np.random.default_rng(1)
    history = history_of(*[rng.choice(9, size=4, replace=False).tolist() for _ in range(30)])
    whole = linear_weights(history, 9, 3.0, 9).toarray()
    cut = linear_weights(history, 9, 3.0, 2).toarray()
    assert ((cut != 0).sum(axis=0) == 2).all()
    for column in range(9):
        kept = np.flatnonzero(cut[:, column])
        assert set(kept.tolist()) == set(np.argsort(-np.abs(whole[:, column]))[:2].tolist())
        assert np.array_equal(cut[kept, column], whole[kept, column])


def test_keep_largest_takes_absolute_values_and_the_lower_column_of_equals() -> None:
    matrix = sp.csr_matrix(np.array([[1.0, -3.0, 2.0, 1.0], [0.0, 1.0, 1.0, 1.0]], dtype=np.float32))
    assert keep_largest(matrix, 2).toarray().tolist() == [[0, -3, 2, 0], [0, 1, 1, 0]]


def test_what_is_refused() -> None:
    history = history_of([0, 5])
    with pytest.raises(DataError, match=r"item_idx 0 to 5, there are 5 items"):
        cooccurrence(history, 5, 3, order="none")
    with pytest.raises(DataError, match=r"linear weights of 20,001 items"):
        linear_weights(history, 20_001, 1.0, 3)
    with pytest.raises(ValueError, match="regularisation"):
        linear_weights(history, 6, 0.0, 3)
    with pytest.raises(ValueError, match="neighbours"):
        keep_largest(sp.csr_matrix((2, 2)), 0)
