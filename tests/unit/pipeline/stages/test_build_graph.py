"""What build-graph makes of a log with repeats: nothing after the cutoff decides on what stands before it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from reckg.config.run_config import Config, DataConfig, parse_config
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.run.held_out import held_out_part
from reckg.pipeline.stages.build_graph import build_graph

DAY = 86_400


def log_of_staples(folder: Path, days: int) -> Path:
    """30 users who take the same three items every day, and on each day one that only they take."""
    rows = [
        (f"u{user:02}", item, 10**9 + day * DAY + user)
        for day in range(days)
        for user in range(30)
        for item in ("milk", "bread", "eggs", f"new {day} {user}")
    ]
    folder.mkdir()
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_parquet(folder / "interactions.parquet")
    return folder


def test_what_a_user_had_before_the_cutoff_is_no_target(tmp_path: Path) -> None:
    data = log_of_staples(tmp_path / "data", 20)
    build_graph(parse_config({"task": {"target": "new"}}, "test"), data, tmp_path / "run")
    prepared = read_prepared(tmp_path / "run")
    staples = [prepared.items["item_id"].to_list().index(name) for name in ("milk", "bread", "eggs")]
    held = held_out_part(prepared, "test")
    assert not set(held.relevant[1].tolist()) & set(staples)
    assert held.counts["already_seen"] == 90  # three staples of each user, which the report counts
    train = prepared.interactions.filter(pl.col("split") == "train")
    assert train.filter(pl.col("item_idx").is_in(staples)).height == 90, "one row of a repeat within the part"


@pytest.mark.parametrize(("of", "seen"), [("train", False), ("all", True)])
def test_only_a_k_core_of_the_whole_log_sees_what_comes_later(tmp_path: Path, of: str, seen: bool) -> None:
    data = log_of_staples(tmp_path / "data", 20)
    rows = pl.read_parquet(data / "interactions.parquet")
    later = pl.DataFrame({"user_id": [f"u{n:02}" for n in range(30)], "item_id": ["new 0 0"] * 30})
    later = later.with_columns(timestamp=rows["timestamp"].max() + pl.int_range(1, 31))
    pl.concat([rows, later]).write_parquet(data / "interactions.parquet")
    config = Config(data=DataConfig(k_core=3, k_core_of=of))  # type: ignore[arg-type]
    build_graph(config, data, tmp_path / "run")
    prepared = read_prepared(tmp_path / "run")
    names = prepared.items["item_id"].gather(
        prepared.interactions.filter(pl.col("split") == "train")["item_idx"].unique()
    )
    assert ("new 0 0" in names.to_list()) == seen
    checks = json.loads((tmp_path / "run" / "prepared" / "prepared.json").read_text())["checks"]
    assert ("k-core" in checks) == seen
    if seen:
        assert checks["k-core"]["passed"] is None and checks["k-core"]["bad"] > 0
