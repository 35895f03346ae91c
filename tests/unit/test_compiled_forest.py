"""Compiled trees: LightGBM's sums to the last bit, a cache that is the user's alone, and LightGBM where they fail."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from reckg.ranking.blend import Blend
from reckg.ranking.compiled_forest import compiled_forest, default_cache
from reckg.ranking.features import FEATURES
from reckg.ranking.ranker import Ranker
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
    learnt = rows(4000, 0)
    learnt[:, 0] = np.nan_to_num(learnt[:, 0])  # never missing where it was learnt
    label = learnt[:, 0] + np.nan_to_num(learnt[:, 1] * learnt[:, 2])
    settings = {"num_leaves": 15, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1, "deterministic": True}
    return lgb.train(settings, lgb.Dataset(learnt, label=label), 40).model_to_string()


def sums_of(text: str):  # type: ignore[no-untyped-def]
    booster = lgb.Booster(model_str=text)
    return lambda features: np.asarray(booster.predict(features, raw_score=True, num_threads=1))


def test_compiled_sums_are_lightgbms_to_the_last_bit_and_come_again_from_the_cache(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("lleaves", reason="the extra 'compiled' is not installed")
    caplog.set_level(logging.INFO)
    reference, asked = sums_of(text), rows(500, 1)
    for said in ("compiled into", "loaded from"):
        forest = compiled_forest(text, reference, tmp_path / "forests")
        assert forest is not None
        assert f"40 trees were {said}" in caplog.records[-1].getMessage()
        for part in (asked, asked[:1], asked[:0]):
            assert np.array_equal(forest.sums(part), reference(part) if len(part) else np.zeros(0))
        assert np.array_equal(forest.sums(np.asfortranarray(asked), threads=2), reference(asked))
    assert (tmp_path / "forests").stat().st_mode & 0o777 == 0o700
    [kept] = (tmp_path / "forests").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert compiled_forest(text, reference, tmp_path / "forests") is not None
    assert "compiled into" in caplog.records[-1].getMessage(), "damaged machine code was loaded"
    other = lgb.Booster(model_str=text).model_to_string(num_iteration=20)
    assert compiled_forest(other, sums_of(other), tmp_path / "forests") is not None
    assert len(list((tmp_path / "forests").iterdir())) == 2


def test_a_ranker_gives_the_same_answer_compiled(text: str, tmp_path: Path) -> None:
    pytest.importorskip("lleaves", reason="the extra 'compiled' is not installed")
    ranker = Ranker(text, Blend({"walk_z": 0.3, "retrieval_score_z": 1.0}), {"vectors": 9}, {})
    candidates = ScoredItems(np.tile(np.arange(100), (5, 1)), np.zeros((5, 100), dtype=np.float32))
    before = ranker.rerank(candidates, rows(500, 2))
    assert ranker.compile(tmp_path / "forests") and ranker._compiled is not None
    after = ranker.rerank(candidates, rows(500, 2))
    assert np.array_equal(before.item_idx, after.item_idx) and np.array_equal(before.score, after.score)


def test_without_the_extra_lightgbm_answers_and_the_log_says_so(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "lleaves", None)
    ranker = Ranker(text, Blend({"walk_z": 0.3}), {"vectors": 9}, {})
    assert not ranker.compile(tmp_path / "forests")
    [record] = caplog.records
    assert "evaluated by LightGBM, not compiled" in record.getMessage() and "reckg[compiled]" in record.getMessage()
    candidates = ScoredItems(np.arange(9)[None], np.zeros((1, 9), dtype=np.float32))
    assert ranker.rerank(candidates, rows(9, 3)).item_idx.shape == (1, 9)


def test_machine_code_is_taken_from_no_folder_that_others_may_use(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("lleaves", reason="the extra 'compiled' is not installed")
    shared, link = tmp_path / "shared", tmp_path / "link"
    shared.mkdir()
    for mode in (0o777, 0o750, 0o701):
        shared.chmod(mode)
        assert compiled_forest(text, sums_of(text), shared) is None
        assert f"PermissionError: {shared} is not a folder of this user alone" in caplog.records[-1].getMessage()
    shared.chmod(0o700)
    link.symlink_to(shared)
    assert compiled_forest(text, sums_of(text), link) is None
    assert not list(shared.iterdir())


def test_trees_that_differ_from_lightgbms_are_not_used(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("lleaves", reason="the extra 'compiled' is not installed")
    assert compiled_forest(text, lambda features: sums_of(text)(features) + 1e-12, tmp_path / "forests") is None
    assert "ArithmeticError: the compiled sums differ from LightGBM's" in caplog.records[-1].getMessage()
    assert compiled_forest(text[: len(text) // 2], sums_of(text), tmp_path / "forests") is None
    assert "evaluated by LightGBM, not compiled" in caplog.records[-1].getMessage()


def test_a_ranker_without_trees_is_not_compiled(tmp_path: Path) -> None:
    data = lgb.Dataset(rows(100, 0), label=np.zeros(100))
    ranker = Ranker(lgb.Booster({"verbose": -1}, data).model_to_string(), Blend({}), {"vectors": 9}, {})
    assert not ranker.compile(tmp_path / "forests") and not (tmp_path / "forests").exists()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECKG_CACHE_DIR", "/some/where")
    assert default_cache() == Path("/some/where")
    monkeypatch.delenv("RECKG_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/users/cache")
    assert default_cache() == Path("/users/cache/reckg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/reckg")
