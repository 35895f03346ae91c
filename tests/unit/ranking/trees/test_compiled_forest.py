"""Compiled trees: LightGBM's sums to the last bit, and LightGBM where they are not to be had."""

from __future__ import annotations

import logging
import sys
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from reckg.ranking.features.extract import FEATURES
from reckg.ranking.trees import compiled_forest as compiled_forest_module
from reckg.ranking.trees.blend import Blend
from reckg.ranking.trees.compiled_forest import UnsupportedTreesError, compile_forest, read_forest
from reckg.ranking.trees.ranker import Ranker
from reckg.retrieval.scored_items import ScoredItems

F = len(FEATURES)


def rows(n: int, seed: int) -> np.ndarray:
    """(n, F) float32 with missing values, whole numbers among them, and a column that is always missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, F)).astype(np.float32)
    values[:, ::3] = np.rint(3 * values[:, ::3])
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 5] = np.nan
    return values


@pytest.fixture(scope="module")
def text() -> str:
    return learnt_text()


def sums_of(text: str):  # type: ignore[no-untyped-def]
    booster = lgb.Booster(model_str=text)
    return lambda features: np.asarray(booster.predict(features, raw_score=True, num_threads=1))


NEEDED = "the extra 'compiled' is not installed"


def learnt_text(settings: dict[str, Any] | None = None, trees: int = 40, **data: Any) -> str:
    values = rows(4000, 0)
    values[:, 0] = np.nan_to_num(values[:, 0])  # never missing where it was learnt
    label = values[:, 0] + np.nan_to_num(values[:, 1] * values[:, 2])
    given = {"num_leaves": 15, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1, "deterministic": True}
    return lgb.train(given | (settings or {}), lgb.Dataset(values, label=label, **data), trees).model_to_string()


@pytest.mark.parametrize("leaves", [2, 15, 32, 33, 64])
def test_compiled_sums_are_lightgbms_to_the_last_bit(leaves: int, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("llvmlite", reason=NEEDED)
    caplog.set_level(logging.INFO)
    text = learnt_text({"num_leaves": leaves})
    reference, asked = sums_of(text), rows(600, 1)
    forest = compile_forest(text, reference)
    assert forest is not None
    assert "the ranker's 40 trees were compiled in" in caplog.records[-1].getMessage()
    for part in (asked, asked[:1], asked[:0]):
        assert np.array_equal(forest.sums(part), reference(part) if len(part) else np.zeros(0))
    assert np.array_equal(forest.sums(np.asfortranarray(asked), threads=2), reference(asked))
    thresholds = np.unique(read_forest(text).threshold)
    at = np.tile(thresholds[: len(asked), None], (1, F))  # rows of values that are thresholds
    assert np.array_equal(forest.sums(at), reference(at))


def test_trees_of_one_leaf_add_its_value() -> None:
    pytest.importorskip("llvmlite", reason=NEEDED)
    constant = lgb.train({"verbose": -1}, lgb.Dataset(rows(100, 0), label=np.full(100, 2.5)), 3).model_to_string()
    forest = compile_forest(constant, sums_of(constant))
    assert forest is not None and forest.sums(rows(9, 1)).tolist() == sums_of(constant)(rows(9, 1)).tolist()


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({"num_leaves": 65}, {}, "65 > 64 leaves"),
        ({"linear_tree": True}, {}, "linear leaves"),
        ({"zero_as_missing": True}, {}, "zeros mean missing"),
        ({}, {"categorical_feature": [3]}, "categories"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, {}, "the mean of the trees"),
    ],
)
def test_trees_of_another_kind_are_left_to_lightgbm(
    settings: dict[str, Any], data: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.abs(np.rint(np.nan_to_num(rows(4000, 0))))
    label = values[:, 3] % 2 + values[:, 1] * values[:, 2] + values[:, 4]
    given = {"num_leaves": 15, "min_data_in_leaf": 2, "num_threads": 1, "verbose": -1} | settings
    text = lgb.train(given, lgb.Dataset(values, label=label, **data), 3).model_to_string()
    with pytest.raises(UnsupportedTreesError, match=said):
        read_forest(text)
    assert compile_forest(text, sums_of(text)) is None
    assert "evaluated by LightGBM, not compiled: UnsupportedTreesError" in caplog.records[-1].getMessage()


def test_a_ranker_gives_the_same_answer_compiled(text: str) -> None:
    pytest.importorskip("llvmlite", reason=NEEDED)
    ranker = Ranker(text, Blend({"walk_z": 0.3, "retrieval_score_z": 1.0}), {"vectors": 9}, {})
    candidates = ScoredItems(np.tile(np.arange(100), (5, 1)), np.zeros((5, 100), dtype=np.float32))
    before = ranker.rerank(candidates, rows(500, 2))
    assert ranker.compile() and ranker._compiled is not None
    after = ranker.rerank(candidates, rows(500, 2))
    assert np.array_equal(before.item_idx, after.item_idx) and np.array_equal(before.score, after.score)


def test_without_the_extra_lightgbm_answers_and_the_log_says_so(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    compiled_forest_module._machine_code.cache_clear()
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    ranker = Ranker(text, Blend({"walk_z": 0.3}), {"vectors": 9}, {})
    assert not ranker.compile()
    [record] = caplog.records
    assert "evaluated by LightGBM, not compiled" in record.getMessage() and "reckg[compiled]" in record.getMessage()
    candidates = ScoredItems(np.arange(9)[None], np.zeros((1, 9), dtype=np.float32))
    assert ranker.rerank(candidates, rows(9, 3)).item_idx.shape == (1, 9)


def test_trees_that_differ_from_lightgbms_are_not_used(text: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("llvmlite", reason=NEEDED)
    assert compile_forest(text, lambda features: sums_of(text)(features) + 1e-12) is None
    assert "ArithmeticError: the compiled sums differ from LightGBM's" in caplog.records[-1].getMessage()
    assert compile_forest(text[: len(text) // 2], sums_of(text)) is None
    assert "evaluated by LightGBM, not compiled" in caplog.records[-1].getMessage()


def test_a_ranker_without_trees_is_not_compiled() -> None:
    data = lgb.Dataset(rows(100, 0), label=np.zeros(100))
    ranker = Ranker(lgb.Booster({"verbose": -1}, data).model_to_string(), Blend({}), {"vectors": 9}, {})
    assert not ranker.compile()
