"""Names mean nothing: with other ids of users and items the figures stay within the noise of the seeds."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl
import pytest

import reckg
from tests.benchmarks.trust import tasteful_log

SEEDS = 5
CONFIG: dict[str, Any] = {
    "text": {"encoder": "none"},
    "train": {"epochs": 12},
    "evaluate": {"bootstrap_samples": 100, "tuning_settings": 3},
}


def figures(events: pl.DataFrame, items: pl.DataFrame, seed: int, folder: Path) -> dict[str, float]:
    systems = reckg.fit(events, items, config=CONFIG | {"run": {"seed": seed}}, folder=folder).evaluate()["systems"]
    return {name: systems[name]["test"]["ndcg@10"]["mean"] for name in ("reckg", "model", "popularity", "als")}


def renamed(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Gives users and items new ids in another order."""
    rng = np.random.default_rng(seed)
    for column in set(frame.columns) & {"user_id", "item_id"}:
        names = sorted(frame[column].unique())
        new = [f"n{number:05}" for number in np.random.default_rng(len(column)).permutation(10_000)[: len(names)]]
        frame = frame.with_columns(pl.col(column).replace_strict(dict(zip(names, new, strict=True))))
    return frame[rng.permutation(len(frame))]


@pytest.mark.long
def test_renaming_moves_no_figure_beyond_the_noise(tmp_path: Path) -> None:
    events, items = tasteful_log(0, 0, 300)
    plain = [figures(events, items, seed, tmp_path / f"plain {seed}") for seed in range(SEEDS)]
    other = [figures(renamed(events, 1), renamed(items, 2), seed, tmp_path / f"new {seed}") for seed in range(SEEDS)]
    for name in plain[0]:
        before, after = ([found[name] for found in runs] for runs in (plain, other))
        noise = np.hypot(stdev(before), stdev(after)) / np.sqrt(SEEDS)
        assert abs(mean(before) - mean(after)) < 3 * noise + 0.01, (name, before, after)
