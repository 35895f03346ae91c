from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reckg.config.run_config import Config, EvaluateConfig
from reckg.errors import ConfigError
from reckg.pipeline.report.beyond import value_shares
from reckg.pipeline.report.sections import _letters, filter_words
from reckg.pipeline.report.slices import days_since_last_event
from reckg.pipeline.run.test_data import read_run
from reckg.pipeline.stages.evaluate import evaluate
from tests.small_report import small_run


def attributed_run(run: Path) -> None:
    """The small run with a publisher and genres of its items, and a city of its users."""
    small_run(run)
    items = pl.read_parquet(run / "prepared" / "items.parquet")
    n = len(items)
    items = items.with_columns(
        publisher=pl.Series([None if i == 3 else f"house {i % 12:02d}" for i in range(n)]),
        genres=pl.Series([["a", "b"] if i % 3 else ["c"] for i in range(n)]),
    )
    items.write_parquet(run / "prepared" / "items.parquet")
    users = pl.read_parquet(run / "prepared" / "users.parquet")
    users = users.with_columns(city=pl.Series(["Rome" if i % 2 else "Oslo" for i in range(len(users))]))
    users.write_parquet(run / "prepared" / "users.parquet")
    path = run / "prepared" / "prepared.json"
    info = json.loads(path.read_text())
    info["item_columns"] |= {"categorical": ["publisher"], "list": ["genres"]}
    info["user_columns"] = {"text": [], "categorical": ["city"], "number": [], "list": []}
    info["counts"] = {"cleaning": {"rows_read": 500, "dropped_duplicates": 7, "dropped_k_core": 0}}
    path.write_text(json.dumps(info))


def test_providers_calibration_and_attributes_are_reported(tmp_path: Path) -> None:
    attributed_run(tmp_path)
    settings = EvaluateConfig(k=(10,), bootstrap_samples=100, tuning_settings=1, provider_column="publisher")
    evaluate(Config(evaluate=settings), tmp_path, tmp_path)
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["beyond"]["column"] == "the values of 'genres'"  # the first list column comes before categorical ones
    rows = report["beyond"]["exposure"]
    assert [row["name"] for row in rows] == [*(f"house {i:02d}" for i in range(12) if i not in (3, 11)), "all others"]
    assert sum(row["catalogue"] for row in rows) == pytest.approx(59 / 60)
    for system in report["systems"]:
        assert 0.8 < sum(row["systems"][system]["mean"] for row in rows) <= 1
        assert 0 <= report["systems"][system]["beyond"]["miscalibration"]["mean"] < 5
    assert [name for name in report["slices"] if ":" in name] == ["user:city", "item:genres"]
    assert sum(row["users"] for row in report["slices"]["user:city"]["rows"]) == 39
    assert any(
        "of 500 interactions that were read, cleaning left out: 7 repeated" in w for w in report["protocol"]["words"]
    )
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Exposure of providers" in page and "Users by city" in page


def test_a_list_is_no_provider(tmp_path: Path) -> None:
    attributed_run(tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.provider_column: 'genres' holds lists; a provider is one value"):
        evaluate(Config(evaluate=EvaluateConfig(provider_column="genres")), tmp_path, tmp_path)


def test_shares_of_values() -> None:
    found = value_shares(pl.Series("g", [["b", "a"], ["b", "b"], [], None])).toarray()
    np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(value_shares(pl.Series("g", ["x", None, "y"])).toarray(), [[1, 0], [0, 0], [0, 1]])


def test_days_since_the_last_event(tmp_path: Path) -> None:
    small_run(tmp_path)
    test = read_run(Config(), tmp_path)
    days = days_since_last_event(test)
    assert days is not None
    frame = test.prepared.interactions
    for row in (0, 17, 38):
        mine = frame.filter(pl.col("user_idx") == int(test.held.users[row]))
        later = mine.filter(pl.col("split") == "test")["timestamp"].min()
        before = mine.filter(pl.col("split") != "test")["timestamp"].max()
        assert days[row] == pytest.approx((later - before) / 86400)  # type: ignore[operator]
    test.prepared.info["split"]["valid_before_test"] = False
    assert days_since_last_event(test) is None
    assert filter_words(test) == []


def test_users_are_lettered() -> None:
    assert [_letters(place) for place in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]
