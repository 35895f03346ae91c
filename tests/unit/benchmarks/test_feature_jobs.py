"""The benchmark of the feature jobs runs at a small size, and a result that differs does not pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.benchmarks import feature_jobs
from tests.benchmarks.events import write_events


def test_the_small_size_runs_and_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_jobs, "in_a_process", lambda work, *words, **named: work(*words, **named))
    result = feature_jobs.main(["--small", "--out", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == result
    for name in ("speedup_vs_pandas", "speedup_vs_pandas_categories", "peak_rss_gb", "stage_seconds"):
        assert result["figures"][name] > 0


def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(folder: Path) -> feature_jobs.Features:
        return {name: values + (name == "trend") * 1e-6 for name, values in found(folder).items()}

    found = feature_jobs.reckg_features
    monkeypatch.setattr(feature_jobs, "in_a_process", lambda work, *words, **named: work(*words, **named))
    monkeypatch.setattr(feature_jobs, "reckg_features", other)
    write_events(tmp_path / "events", events=5000, users=300, items=50)
    feature_jobs.write_csv(tmp_path / "events")
    with pytest.raises(AssertionError, match="trend"):
        feature_jobs.check_equal(tmp_path / "events")


def test_events_are_the_same_for_a_seed_and_some_repeat(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_events(tmp_path / name, events=2000, users=100, items=40, seed=seed)
    first, again, other = (pl.read_parquet(tmp_path / name / "interactions.parquet") for name in "abc")
    assert first.equals(again) and not first.equals(other)
    assert first.select("user_id", "item_id").n_unique() < 0.97 * len(first) == 1940
    assert np.ptp(first["timestamp"].to_numpy()) > 1e7
