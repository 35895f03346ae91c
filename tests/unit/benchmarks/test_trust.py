"""The benchmark of figures that must not move runs at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import trust


@pytest.mark.slow
def test_the_small_size_runs_and_writes_its_figures(tmp_path: Path) -> None:
    parts = [word for part in ("untouched", "ties", "groups") for word in ("--only", part)]
    result = trust.main(["--small", *parts, "--out", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == result
    figures = result["figures"]
    assert {"untouched_share_1", "untouched_cost_1", "ties_gain"} < set(figures)
    assert any(name.startswith("group_") and name.endswith("_difference") for name in figures)
    assert 0 <= figures["untouched_share_1"] <= 0.1, "a single item that nobody took is not in every list"


def test_intervals_are_over_the_seeds() -> None:
    found = trust.with_intervals([{"x": 1.0}, {"x": 2.0}, {"x": 3.0}])
    assert found["x"] == 2.0 and found["x_low"] == pytest.approx(2 - 2.4841, abs=1e-3)
    assert trust.with_intervals([{"x": 1.0}]) == {"x": 1.0}
