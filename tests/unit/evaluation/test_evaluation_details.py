"""What the report tells of the ranker, the index and sample users."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pytest

from reckg.evaluation.index_curve import index_section
from reckg.evaluation.protocol import HeldOut
from reckg.evaluation.ranker_explained import RecordingRanker, explain_ranker
from reckg.evaluation.samples import LATEST, sample_rows, sample_section
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted
from reckg.retrieval.index import build_index
from tests import toy
from tests.small_bundle import candidates_of, small_bundle, unit_vectors


def trained(rows: np.ndarray, label: np.ndarray, trees: int = 20) -> str:
    settings = {"objective": "regression", "num_leaves": 4, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1}
    data = lgb.Dataset(rows, label.copy(), feature_name=["noise", "tells"])
    booster = lgb.train(settings, data, trees) if trees else lgb.Booster(settings, data)
    return booster.model_to_string()


def test_the_feature_that_decides_comes_first_and_its_direction_shows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((400, 2)).astype(np.float32)
    features = np.concatenate([rows, np.full((30, 2), np.nan, np.float32)])  # padding
    features[7, 1] = np.nan
    found = explain_ranker(trained(rows, 3 * rows[:, 1]), features, seed=1)
    assert found["rows"] == 400 and found["trees"] == 20
    assert [feature["name"] for feature in found["features"]] == ["tells", "noise"]
    first, second = found["features"]
    assert first["mean_abs"] > 10 * second["mean_abs"]
    known = np.array([point for point in first["points"] if point[1] is not None])
    assert known[:, 1].min() == 0 and known[:, 1].max() == 1
    assert np.corrcoef(known[:, 0], known[:, 1])[0, 1] > 0.9


def test_shap_values_and_the_mean_add_up_to_the_prediction() -> None:
    rows = np.random.default_rng(3).random((60, 2)).astype(np.float32)
    model = trained(rows, rows[:, 1])
    found = explain_ranker(model, rows)
    shap = np.sum([[point[0] for point in feature["points"]] for feature in found["features"]], axis=0)
    predicted = np.asarray(lgb.Booster(model_str=model).predict(rows))
    np.testing.assert_allclose(shap - shap.mean(), predicted - predicted.mean(), atol=1e-4)


def test_without_trees_or_candidates_there_is_nothing_to_explain() -> None:
    rows = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    assert explain_ranker(trained(rows, np.zeros(50), 0), rows) == {}
    assert explain_ranker(trained(rows, rows[:, 1]), np.full((3, 2), np.nan, np.float32)) == {}


def test_the_recorder_changes_no_list() -> None:
    from dataclasses import replace

    bundle = small_bundle()
    recorder = RecordingRanker(bundle.ranker)
    users = np.arange(6)
    found = recommend_batch(replace(bundle, ranker=recorder), users, Wanted(5))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.item_idx, recommend_batch(bundle, users, Wanted(5)).item_idx)
    candidates = candidates_of(bundle, users).item_idx
    assert [part.shape[0] for part in recorder.features] == [candidates.size]
    assert recorder.info == {"served": True}


def test_a_flat_index_misses_nothing() -> None:
    vectors = unit_vectors(80, 8, 0)
    found = index_section(build_index(vectors), unit_vectors(10, 8, 1), vectors, 200)
    assert (found["kind"], found["k"], found["queries"], found["items"]) == ("flat", 80, 10, 80)
    [point] = found["points"]
    assert point["recall"] == 1.0 and point["own"] and point["effort"] == {} and 0 < point["p50_ms"] <= point["p95_ms"]


def test_an_approximate_index_is_searched_with_less_and_with_more_effort() -> None:
    vectors = unit_vectors(4000, 16, 0)
    index = build_index(vectors, kind="hnsw", hnsw_m=4, ef_construction=8, ef_search=32)
    found = index_section(index, unit_vectors(40, 16, 1), vectors, 10)
    assert [point["effort"]["ef_search"] for point in found["points"]] == [8, 16, 32, 64, 128]
    assert [point["own"] for point in found["points"]] == [False, False, True, False, False]
    recalls = [point["recall"] for point in found["points"]]
    assert recalls[0] < recalls[-1] <= 1 and recalls[0] > 0.1
    assert index.settings["ef_search"] == 32  # the run's own index is as it was


def test_equal_scores_are_no_miss() -> None:
    vectors = np.repeat(unit_vectors(3, 4, 0), 10, axis=0)
    assert index_section(build_index(vectors), unit_vectors(5, 4, 2), vectors, 5)["points"][0]["recall"] == 1.0


def test_sample_users_have_history_lists_and_hits() -> None:
    held = HeldOut(np.array([1, 3]), (np.array([0, 2, 3]), np.array([3, 4, 1])), (np.zeros(3), np.empty(0)), {})
    rows = sample_rows(held, 5, 0)
    assert sorted(rows.tolist()) == [0, 1]
    assert sample_rows(held, 1, 0).tolist() == rows[:1].tolist()
    [bob, dee] = sample_section(
        np.array([0, 1]),
        {"reckg": np.array([[4, 0], [2, -1]])},
        held,
        toy.history(),
        lambda items: [toy.ITEM_IDS[item] for item in items],
        ["user A", "user B"],
    )
    assert bob == {
        "name": "user A",
        "history_length": 3,
        "history": ["dune", "solaris", "emma"],
        "held_out": ["heidi", "ulysses"],
        "lists": {"reckg": [{"title": "ulysses", "hit": True}, {"title": "emma", "hit": False}]},
    }
    assert dee["lists"]["reckg"] == [{"title": "solaris", "hit": False}]
    assert pytest.approx(8) == LATEST
