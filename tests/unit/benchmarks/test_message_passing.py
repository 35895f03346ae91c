"""The propagation benchmark runs, its last line holds the figures, and a product that is wrong does not pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import measure
from tests.benchmarks import message_passing as benchmark

FIGURES = ("speedup_vs_dgl", "speedup_vs_torch", "bandwidth_share")


@pytest.fixture
def problem() -> benchmark.Problem:
    return benchmark.draw(benchmark.SMALL[1], seed=0, device="cpu")


def test_the_small_size_runs_and_the_last_line_holds_the_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    benchmark.main(["--small", "--seed", "3", "--out", str(out)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert result.keys() == measure.Result.__annotations__.keys()
    assert result["benchmark"] == "message_passing" and result["seed"] == 3
    assert result["versions"].keys() == {"python", "torch", "dgl", "numpy"}
    for name in (*FIGURES, *(f"{name}_power_law" for name in FIGURES)):
        assert result["figures"][name] > 0
    assert 0 < result["figures"]["error_bf16"] < 1e-2


def test_all_contenders_are_compared_and_agree(problem: benchmark.Problem) -> None:
    found = benchmark.errors({name: run() for name, run in benchmark.contenders(problem).items()})
    assert found.keys() == {"ours_bf16", "torch", "torch_kept", "dgl"}
    benchmark.check_equal(found)


@pytest.mark.parametrize("direction", [0, 1])
def test_a_contender_that_computes_something_else_is_found(problem: benchmark.Problem, direction: int) -> None:
    results = {name: run() for name, run in benchmark.contenders(problem).items()}
    wrong = results["dgl"][direction].clone()
    wrong[7] += 0.1
    results["dgl"] = (wrong, results["dgl"][1]) if direction == 0 else (results["dgl"][0], wrong)
    with pytest.raises(AssertionError, match="dgl differs from ours by"):
        benchmark.check_equal(benchmark.errors(results))


def test_few_nodes_of_a_power_law_graph_have_most_edges(problem: benchmark.Problem) -> None:
    for ends in (problem.row, problem.col):
        busiest = torch.bincount(ends).sort(descending=True).values[:100]
        assert busiest.sum() > 0.4 * len(ends)
    assert (problem.row.diff() >= 0).all()
