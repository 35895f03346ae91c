from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.history import History
from reckg.errors import DataError
from reckg.evaluation import baselines
from reckg.evaluation.baselines import (
    fit_ease,
    fit_item_knn,
    fit_popularity,
    fit_recent_popularity,
    recommend_by_scores,
    top_items,
)
from reckg.evaluation.protocol import evaluate_system, held_out
from reckg.ranking.tables import ease as linear
from reckg.ranking.tables.ease import user_item_matrix

# Five users, five items; user 4 has no history, item 4 nobody has.
#        0 1 2 3 4
#   u0   x x . . .
#   u1   x x x . .
#   u2   x . x x .
#   u3   . . x x .
ROWS = {0: [0, 1], 1: [0, 1, 2], 2: [0, 2, 3], 3: [2, 3]}


def history_of(rows: dict[int, list[int]], n_users: int = 5) -> History:
    pairs = [(user, item) for user, items in rows.items() for item in items]
    return History.from_interactions(pl.DataFrame(pairs, schema=["user_idx", "item_idx"], orient="row"), n_users)


TRAIN = history_of(ROWS)
DENSE = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], dtype=float)


def checkerboard(n: int = 20) -> tuple[pl.DataFrame, int]:
    """Users and items of the same parity go together; each user's item of his own number is for test, the next for
    validation, the rest for training."""
    rows = []
    for user in range(n):
        for item in range(user % 2, n, 2):
            split = "test" if item == user else "valid" if item == (user + 2) % n else "train"
            rows.append((user, item, split))
    return pl.DataFrame(rows, schema=["user_idx", "item_idx", "split"], orient="row"), n


def test_popularity_counts_distinct_users() -> None:
    repeated = history_of({0: [0, 0, 0, 1], 1: [1]})
    np.testing.assert_array_equal(fit_popularity(repeated, 3).count, [1, 2, 0])
    model = fit_popularity(TRAIN, 5)
    np.testing.assert_array_equal(model.scores(TRAIN, np.array([4, 0])), [[3, 2, 3, 2, 0]] * 2)


def test_recent_popularity_counts_the_latest_share_and_breaks_ties_by_all() -> None:
    frame = pl.DataFrame(
        {"user_idx": [0, 1, 2, 0, 1, 2, 0], "item_idx": [0, 0, 0, 1, 1, 2, 3], "timestamp": [1, 2, 3, 4, 86404, 5, 5]}
    )
    known = History.from_interactions(frame, 3)
    # The latest 3 of 7 are at 5, 5 and 86404: items 2, 3 and 1. Of the items not among them 0 has most users in all.
    model = fit_recent_popularity(known, 5, share=3 / 7)
    np.testing.assert_allclose(model.count, [3 / 4, 1 + 2 / 4, 1 + 1 / 4, 1 + 1 / 4, 0])
    assert model.settings == {"share": 3 / 7, "days": 1.0}
    np.testing.assert_allclose(fit_recent_popularity(known, 5, share=1.0).count, np.array([3, 2, 1, 1, 0]) * 1.25)
    with pytest.raises(ValueError, match=r"share of recent interactions must be in \(0, 1\], got 0"):
        fit_recent_popularity(known, 5, share=0)


def test_interaction_matrix_is_binary_and_leaves_the_history_alone() -> None:
    history = history_of({0: [2, 0, 2]})
    before = history.item_idx.copy()
    np.testing.assert_array_equal(user_item_matrix(history, 3).toarray()[0], [1, 0, 1])
    np.testing.assert_array_equal(user_item_matrix(history, 3, user_idx=np.array([0, 0])).toarray(), [[1, 0, 1]] * 2)
    np.testing.assert_array_equal(history.item_idx, before)


@pytest.mark.parametrize("shrink", [0.0, 3.0])
def test_item_knn_equals_the_cosine_written_out(shrink: float) -> None:
    model = fit_item_knn(TRAIN, 5, neighbours=5, shrink=shrink)
    together = DENSE.T @ DENSE
    norm = np.sqrt(np.diag(together))
    cosine = together / np.maximum(np.outer(norm, norm) + shrink, 1e-9)
    np.fill_diagonal(cosine, 0.0)
    np.testing.assert_allclose(model.scores(TRAIN, np.arange(4)), DENSE[:4] @ cosine, rtol=1e-6)


def test_item_knn_keeps_the_nearest_neighbours_of_the_scored_item() -> None:
    model = fit_item_knn(TRAIN, 5, neighbours=1)
    # Nearest: of 0 is 1 (2/sqrt 6 beats 2/3), of 1 is 0, of 2 is 3, of 3 is 2.
    expected = np.zeros((5, 5))
    for item, near in ((0, 1), (1, 0), (2, 3), (3, 2)):
        expected[near, item] = 2 / np.sqrt(6)
    np.testing.assert_allclose(model.transition.toarray(), expected, rtol=1e-6)


def test_item_knn_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    history = history_of({user: rng.choice(30, 6, replace=False).tolist() for user in range(40)}, 40)
    whole = fit_item_knn(history, 30, neighbours=4).transition.toarray()
    monkeypatch.setattr(baselines, "PAIRS_AT_ONCE", 25)
    np.testing.assert_array_equal(fit_item_knn(history, 30, neighbours=4).transition.toarray(), whole)
    assert ((whole > 0).sum(axis=0) == 4).all()


def slow_ease(dense: np.ndarray, regularisation: float) -> np.ndarray:
    """The paper's closed form with a plain inverse."""
    inverse = np.linalg.inv(dense.T @ dense + regularisation * np.eye(dense.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize("block", [16_000_000, 7])
@pytest.mark.parametrize("double", [True, False])
def test_ease_equals_the_plain_inverse(block: int, double: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "BLOCK_VALUES", block)
    monkeypatch.setattr(linear, "DOUBLE_PRECISION_ITEMS", 6_000 if double else 0)
    rng = np.random.default_rng(1)
    history = history_of({user: rng.choice(23, 5, replace=False).tolist() for user in range(50)}, 50)
    model = fit_ease(history, 23, regularisation=2.5)
    dense = user_item_matrix(history, 23).toarray().astype(float)
    np.testing.assert_allclose(model.weights, slow_ease(dense, 2.5), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.scores(history, np.array([3, 1])), (dense @ model.weights)[[3, 1]], rtol=1e-5)
    assert model.settings["inverse_in"] == ("float64" if double else "float32")


def test_ease_over_the_most_popular_items_only() -> None:
    model = fit_ease(TRAIN, 5, regularisation=1.0, max_items=2)
    assert model.modelled.tolist() == [0, 2]
    assert model.settings["items_modelled"] == 2
    assert model.settings["items_scored_zero"] == 3
    scores = model.scores(TRAIN, np.arange(4))
    np.testing.assert_allclose(scores[:, [0, 2]], DENSE[:4][:, [0, 2]] @ slow_ease(DENSE[:, [0, 2]], 1.0), rtol=1e-5)
    assert (scores[:, [1, 3, 4]] == 0).all()


def test_ease_refuses_a_regularisation_that_is_not_positive() -> None:
    with pytest.raises(ValueError, match="regularisation > 0"):
        fit_ease(TRAIN, 5, regularisation=0.0)


def test_a_user_without_history_gets_the_popular_items() -> None:
    for model in (fit_item_knn(TRAIN, 5), fit_ease(TRAIN, 5), fit_ease(TRAIN, 5, max_items=3)):
        np.testing.assert_array_equal(model.scores(TRAIN, np.array([4]))[0], [3, 2, 3, 2, 0])


def test_scores_follow_the_history_that_is_given() -> None:
    """Fitted on training, asked with the history of test time."""
    later = history_of({4: [1]})
    for model in (fit_item_knn(TRAIN, 5), fit_ease(TRAIN, 5, regularisation=1.0)):
        assert model.scores(later, np.array([4]))[0].argmax() == 0


def test_lists_leave_out_the_excluded_items_and_equal_one_user_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, n = checkerboard()
    train = History.from_interactions(frame.filter(pl.col("split") == "train"), n)
    held = held_out(frame, "test", ("train", "valid"), n)
    model = fit_item_knn(train, n)
    recommend = recommend_by_scores(model, train, held, n, 10)
    together = recommend(held.users).item_idx
    monkeypatch.setattr(baselines, "BLOCK_VALUES", 1)
    single = recommend_by_scores(model, train, held, n, 10)
    np.testing.assert_array_equal(single(held.users).item_idx, together)
    # All items of the user's own parity but one are excluded: that one is the test item, and comes first.
    assert (together[:, 0] == held.users).all()
    result = evaluate_system(recommend, held.users, held.relevant, (10,), n_items=n, excluded=held.excluded)
    assert result.excluded_items == 0


def test_top_items_refuses_nan() -> None:
    with pytest.raises(DataError, match="1 of 4 scores are NaN"):
        top_items(np.array([[0.0, np.nan], [1.0, 2.0]], dtype=np.float32), 1)
