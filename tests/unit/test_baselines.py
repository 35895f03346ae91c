from __future__ import annotations

from pathlib import Path

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
    recommend_by_scores,
    top_items,
    tune_ease,
    tune_item_knn,
    validation_ndcg,
)
from reckg.evaluation.protocol import HeldOut, evaluate_system, held_out
from reckg.ranking import linear
from reckg.ranking.linear import user_item_matrix

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


@pytest.mark.parametrize("fit", [fit_item_knn, fit_ease, tune_item_knn, tune_ease])
def test_the_checkerboard_is_learnt_and_popularity_does_not_learn_it(fit: object) -> None:
    frame, n = checkerboard()
    train = History.from_interactions(frame.filter(pl.col("split") == "train"), n)
    valid, test = held_out(frame, "valid", ("train",), n), held_out(frame, "test", ("train", "valid"), n)
    model = fit(train, n, valid) if fit in (tune_item_knn, tune_ease) else fit(train, n)  # type: ignore[operator]
    assert validation_ndcg(model, train, test, n) == 1.0
    assert validation_ndcg(fit_popularity(train, n), train, test, n) < 0.6


def test_tuning_takes_the_best_setting_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def ndcg(model: baselines.Baseline, *_: object) -> float:
        asked.append(model.settings["lambda"])
        return -abs(model.settings["lambda"] - 250.0)

    monkeypatch.setattr(baselines, "validation_ndcg", ndcg)
    held = HeldOut(np.array([0]), (np.array([0, 1]), np.array([4])), (np.array([0, 0]), np.array([])), {})
    shown: list[float] = []
    model = tune_ease(TRAIN, 5, held, track=lambda values: (shown.append(value) or value for value in values))
    assert shown == list(baselines.EASE_LAMBDA)
    assert asked == list(baselines.EASE_LAMBDA)
    assert model.settings["lambda"] == 250.0
    assert model.settings["tried"] == {"lambda": list(baselines.EASE_LAMBDA)}
    np.testing.assert_allclose(model.weights, slow_ease(DENSE, 250.0), rtol=1e-4, atol=1e-9)


def test_large_catalogues_try_fewer_values_and_stop_when_it_gets_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SMALL_CATALOGUE", 1)
    monkeypatch.setattr(baselines, "validation_ndcg", lambda model, *_: model.settings["lambda"])
    held = HeldOut(np.array([0]), (np.array([0, 1]), np.array([4])), (np.array([0, 0]), np.array([])), {})
    model = tune_ease(TRAIN, 5, held)
    assert model.settings["lambda"] == 500.0
    assert model.settings["tried"] == {"lambda": [500.0, 150.0]}
    np.testing.assert_allclose(model.weights, slow_ease(DENSE, 500.0), rtol=1e-4, atol=1e-9)


def test_without_validation_the_defaults_are_used() -> None:
    assert tune_ease(TRAIN, 5, None).settings["lambda"] == 300.0
    assert tune_item_knn(TRAIN, 5, None).settings["neighbours"] == 100


def test_top_items_refuses_nan() -> None:
    with pytest.raises(DataError, match="1 of 4 scores are NaN"):
        top_items(np.array([[0.0, np.nan], [1.0, 2.0]], dtype=np.float32), 1)


def test_figures_on_ml_100k_are_those_of_other_implementations(shared_data: Path) -> None:
    """The protocol is right when EASE and item-kNN come out where independent implementations have them."""
    parts = []
    for split in ("train", "valid", "test"):
        path = shared_data / "ml-100k-split" / f"ml-100k.{split}.inter"
        parts.append(pl.read_csv(path, separator="\t").with_columns(split=pl.lit(split)))
    frame = pl.concat(parts).select(
        user_idx=pl.col("user_id:token").rank("dense").cast(pl.Int64) - 1,
        item_idx=pl.col("item_id:token").rank("dense").cast(pl.Int64) - 1,
        split="split",
    )
    n_users, n_items = frame["user_idx"].n_unique(), frame["item_idx"].n_unique()
    assert (n_users, n_items) == (938, 1008)
    train = History.from_interactions(frame.filter(pl.col("split") == "train"), n_users)
    valid, test = held_out(frame, "valid", ("train",), n_users), held_out(frame, "test", ("train", "valid"), n_users)

    def figures(model: baselines.Baseline) -> dict[str, float]:
        recommend = recommend_by_scores(model, train, test, n_items, 20)
        result = evaluate_system(
            recommend, test.users, test.relevant, (10, 20), n_items=n_items, excluded=test.excluded
        )
        assert result.excluded_items == 0
        return {name: float(values.mean()) for name, values in result.per_user.items()}

    ease = tune_ease(train, n_items, valid)
    assert ease.settings["lambda"] == 300.0
    found = figures(ease)
    assert found["ndcg@10"] == pytest.approx(0.2461, abs=1e-4)
    assert found["recall@10"] == pytest.approx(0.2854, abs=1e-4)
    found = figures(fit_ease(train, n_items, regularisation=250.0))
    assert found["ndcg@10"] == pytest.approx(0.2447, abs=1e-4)
    assert found["ndcg@20"] == pytest.approx(0.2769, abs=1e-4)
    assert found["recall@20"] == pytest.approx(0.3994, abs=1e-4)
    found = figures(fit_item_knn(train, n_items, neighbours=200))
    assert found["ndcg@10"] == pytest.approx(0.2119, abs=1e-4)
    assert found["recall@10"] == pytest.approx(0.2511, abs=1e-4)
