"""What the benchmarks share: rounds are interleaved, ratios are paired, and the last line is the whole JSON object."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from tests.benchmarks import measure


def test_every_round_runs_each_contender_once_and_starts_with_another() -> None:
    ran: list[str] = []
    contenders = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    seconds = measure.interleaved(contenders, rounds=3, warm_up=1)
    assert ["".join(ran[i : i + 3]) for i in range(0, 12, 3)] == ["abc", "bca", "cab", "abc"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_seconds_are_seconds() -> None:
    seconds = measure.interleaved({"sleep": lambda: time.sleep(0.02), "nothing": lambda: None}, rounds=3)
    assert 0.02 <= measure.medians(seconds)["sleep"] < 0.2
    assert measure.medians(seconds)["nothing"] < 0.02


def test_speedup_is_the_median_of_the_ratios_within_rounds() -> None:
    seconds = {"ours": [1.0, 2.0, 10.0], "theirs": [4.0, 6.0, 10.0]}
    assert measure.speedup(seconds, "ours", "theirs") == 3.0


def test_the_last_line_is_the_json_object_that_the_file_gets(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    result = measure.finish("name", {"speed": 2.0}, {"nodes": 3}, packages=["torch"], seed=5, out=out)
    line = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(line) == result == json.loads(out.read_text())
    assert list(result) == ["benchmark", "figures", "settings", "machine", "versions", "seed", "commit"]
    assert result["benchmark"] == "name" and result["figures"] == {"speed": 2.0} and result["seed"] == 5
    assert result["versions"].keys() == {"python", "torch"}
    assert result["machine"]["torch_threads"] == torch.get_num_threads()


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        measure.finish("name", {"speed": float("nan")}, {}, packages=[], seed=0)
