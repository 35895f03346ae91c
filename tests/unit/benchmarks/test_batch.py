"""The benchmark of batch recommendations runs at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from reckg.recommend.golden import open_bundle
from tests.benchmarks import batch, large_bundle


def test_the_small_size_runs_and_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "in_a_process", lambda work, *words, **named: work(*words, **named))
    monkeypatch.setattr(large_bundle, "LABELLED", 100)
    monkeypatch.setattr(batch, "TREES", 5)
    words = ["--small", "--users", "300", "--reranked", "50", "--folder", str(tmp_path)]
    result = batch.main([*words, "--out", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == result
    for name in ("users_per_s", "users_per_s_reranked", "peak_rss_gb"):
        assert result["figures"][name] > 0
    bundle = open_bundle(tmp_path / "bundle")
    plain, reranked = (pl.read_parquet(tmp_path / f"recommendations{name}.parquet") for name in ("", "_reranked"))
    assert (len(plain), len(reranked)) == (3000, 500)
    both = plain.join(reranked, on=["user_id", "rank"])
    assert len(both) > 50 and (both["item_id"] != both["item_id_right"]).any()  # the ranker has a say
    assert bundle.user_ids.ids[-1] == plain["user_id"][-1] == reranked["user_id"][-1]  # evenly spaced to the last
