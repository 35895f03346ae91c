from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from reckg.data.history import History
from reckg.evaluation import tuning
from reckg.evaluation.als import fit_als
from reckg.evaluation.baselines import (
    Baseline,
    Popularity,
    fit_ease,
    fit_item_knn,
    fit_popularity,
    recommend_by_scores,
)
from reckg.evaluation.protocol import HeldOut, evaluate_system, held_out
from reckg.evaluation.tuning import (
    GRIDS,
    search,
    tune_als,
    tune_ease,
    tune_item_knn,
    tune_recent_popularity,
    usual_budget,
    validation_ndcg,
)
from tests.unit.evaluation.test_baselines import DENSE, TRAIN, checkerboard, slow_ease

ASKED = HeldOut(np.array([0]), (np.array([0, 1]), np.array([4])), (np.array([0, 0]), np.empty(0, np.int64)), {})
TUNED: tuple[Callable[..., Any], ...] = (tune_item_knn, tune_ease, tune_als)


def test_the_search_climbs_along_the_axes_and_tries_nothing_twice() -> None:
    asked: list[dict[str, float]] = []

    def score(setting: dict[str, float]) -> float:
        asked.append(setting)
        return -abs(setting["a"] - 4) - abs(setting["b"] - 2)

    grid = {"a": (1, 2, 3, 4, 5), "b": (1, 2, 3)}
    tried = search(grid, {"a": 2, "b": 1}, 15, score)
    places = [(s["a"], s["b"]) for s in asked]
    # Up from 2 to 4, and 5 is worse; then b up to 2, and 3 is worse; below 4 it is worse as well. Then what is next.
    assert places[:8] == [(2, 1), (3, 1), (4, 1), (5, 1), (4, 2), (4, 3), (5, 2), (3, 2)]
    steps = [abs(a - 4) + abs(b - 2) for a, b in places]
    assert steps[8:] == sorted(steps[8:]) and steps[8:11] == [2, 2, 2]
    assert len(set(places)) == len(places) == len(tried) == 15
    assert max(tried, key=lambda pair: pair[1])[0] == {"a": 4, "b": 2}


def test_the_budget_bounds_the_search_and_the_rest_of_it_goes_to_the_settings_next_to_the_best() -> None:
    grid = {"a": tuple(range(30))}
    assert len(search(grid, {"a": 3}, 2, lambda s: s["a"])) == 2
    flat = [[s["a"] for s, _ in search(grid, {"a": 3}, 10, lambda s: 0.0, seed)] for seed in (0, 0, 3)]
    assert [len(places) for places in flat] == [10, 10, 10] and flat[0] == flat[1] != flat[2]
    assert all(places[:3] == [3, 4, 2] and set(places) == {*range(9), 9} for places in flat)
    for budget, start in ((0, {"a": 3}), (5, {"a": 99}), (5, {})):
        with pytest.raises(ValueError, match="a budget >= 1 and a start in the grid"):
            search(grid, start, budget, lambda s: 0.0)


def test_every_start_is_in_its_grid_and_every_grid_fills_the_budget() -> None:
    for grid, start in [*GRIDS.values(), *tuning.LARGE.values()]:
        assert all(start[name] in values for name, values in grid.items()) and start.keys() == grid.keys()
        assert np.prod([len(values) for values in grid.values()]) >= tuning.SETTINGS
    assert usual_budget(4_000) == 10 and usual_budget(4_001) == 6


def test_tuning_takes_the_best_setting_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "validation_ndcg", lambda model, *_: -abs(model.settings["lambda"] - 250.0))
    shown: list[tuple[str, int]] = []
    model = tune_ease(TRAIN, TRAIN, 5, ASKED, track=lambda name, total: shown.append((name, total)))
    assert shown == [("ease", 10)] * 10
    assert model.settings["lambda"] == 250.0 and model.settings["validation_users"] == 1
    assert [t["regularisation"] for t in model.settings["tried"]][:4] == [200.0, 250.0, 300.0, 400.0]
    np.testing.assert_allclose(model.weights, slow_ease(DENSE, 250.0), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("tune", TUNED)
@pytest.mark.parametrize("budget", [1, 5])
def test_every_baseline_tries_as_many_settings_as_the_budget_says(tune: Callable[..., Any], budget: int) -> None:
    model = tune(TRAIN, TRAIN, 5, ASKED, budget=budget)
    assert len(model.settings["tried"]) == budget
    assert model.settings["valid_ndcg@10"] == pytest.approx(
        max(t["ndcg@10"] for t in model.settings["tried"]), abs=1e-6
    )


def test_recent_popularity_is_chosen_from_training_and_counted_in_all_that_is_known() -> None:
    train = pl.DataFrame({"user_idx": [0, 1, 2, 0, 1], "item_idx": [0, 0, 0, 1, 1], "timestamp": [1, 2, 3, 8, 9]})
    later = pl.DataFrame({"user_idx": [2] * 2, "item_idx": [2, 3], "timestamp": [20, 21]})
    known = pl.concat([train, later])
    held = HeldOut(np.array([2]), (np.array([0, 1]), np.array([1])), (np.array([0, 0]), np.empty(0, np.int64)), {})
    histories = [History.from_interactions(frame, 3) for frame in (train, known)]
    model = tune_recent_popularity(*histories, 4, held)
    assert isinstance(model, Popularity) and 0.3 < model.settings["share"] * 5 < 4  # the latest show item 1, all item 0
    assert model.settings["valid_ndcg@10"] == 1.0 and len(model.settings["tried"]) == 10
    assert model.count[3] > 1 and model.count[0] < 1
    assert tune_recent_popularity(*histories, 4, None).settings["share"] == 0.1


@pytest.mark.parametrize("fit", [fit_item_knn, fit_ease, fit_als, *TUNED])
def test_the_checkerboard_is_learnt_and_popularity_does_not_learn_it(fit: Callable[..., Baseline]) -> None:
    frame, n = checkerboard()
    train = History.from_interactions(frame.filter(pl.col("split") == "train"), n)
    valid, test = held_out(frame, "valid", ("train",), n), held_out(frame, "test", ("train", "valid"), n)
    model = fit(train, train, n, valid) if fit in TUNED else fit(train, n)
    assert validation_ndcg(model, train, test, n) == 1.0
    assert validation_ndcg(fit_popularity(train, n), train, test, n) < 0.6


@pytest.mark.parametrize(("tune", "fit"), [(tune_item_knn, fit_item_knn), (tune_ease, fit_ease), (tune_als, fit_als)])
@pytest.mark.parametrize("asked", [ASKED, None])
def test_settings_come_from_training_and_the_model_from_all_that_is_known(
    tune: Callable[..., Any], fit: Callable[..., Any], asked: HeldOut | None
) -> None:
    frame = pl.DataFrame({"user_idx": [0, 1, 2, 2, 3], "item_idx": [4, 4, 3, 4, 0]})
    known = History.from_interactions(frame, TRAIN.n_users)
    model, users = tune(TRAIN, known, 5, asked, budget=3), np.arange(TRAIN.n_users)
    names = {"neighbours", "shrink", "regularisation", "factors", "alpha"}
    chosen = {name: value for name, value in model.settings.items() if name in names}
    chosen |= {"regularisation": model.settings["lambda"]} if "lambda" in model.settings else {}
    np.testing.assert_array_equal(model.scores(known, users), fit(known, 5, **chosen).scores(known, users))
    if asked is not None:
        assert model.settings["tried"] == tune(TRAIN, TRAIN, 5, asked, budget=3).settings["tried"]


def test_without_validation_the_defaults_are_used() -> None:
    assert tune_ease(TRAIN, TRAIN, 5, None).settings["lambda"] == 300.0
    assert tune_item_knn(TRAIN, TRAIN, 5, None).settings["neighbours"] == 100
    assert tune_als(TRAIN, TRAIN, 5, None).settings == {"factors": 64, "regularisation": 35.0, "alpha": 5.0}


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

    def figures(model: Baseline) -> dict[str, float]:
        recommend = recommend_by_scores(model, train, test, n_items, 20)
        result = evaluate_system(
            recommend, test.users, test.relevant, (10, 20), n_items=n_items, excluded=test.excluded
        )
        assert result.excluded_items == 0
        return {name: float(values.mean()) for name, values in result.per_user.items()}

    ease = tune_ease(train, train, n_items, valid)
    assert ease.settings["lambda"] == 300.0
    found = figures(ease)
    assert found["ndcg@10"] == pytest.approx(0.2461, abs=1e-4)
    assert found["recall@10"] == pytest.approx(0.2854, abs=1e-4)
    found = figures(fit_ease(train, n_items, regularisation=250.0))
    assert found["ndcg@10"] == pytest.approx(0.2447, abs=1e-4)
    assert found["ndcg@20"] == pytest.approx(0.2769, abs=1e-4)
    assert found["recall@20"] == pytest.approx(0.3994, abs=1e-4)
    found = figures(fit_als(train, n_items, factors=64, regularisation=35.0, alpha=5.0, threads=1))
    assert found["ndcg@10"] == pytest.approx(0.2435, abs=0.003)  # of implicit itself, over seeds
    assert found["recall@20"] == pytest.approx(0.4178, abs=0.005)
    found = figures(fit_item_knn(train, n_items, neighbours=200))
    assert found["ndcg@10"] == pytest.approx(0.2119, abs=1e-4)
    assert found["recall@10"] == pytest.approx(0.2511, abs=1e-4)
