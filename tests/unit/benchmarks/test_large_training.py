"""The benchmark of large training runs, at a size that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.large_training import main


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--propagation", "sampled", "--precision", "bf16"]])
def test_the_small_size_runs_and_writes_its_figures(tmp_path: Path, words: list[str]) -> None:
    result = main(["--small", "--threads", "1", "--out", str(tmp_path / "out.json"), *words])
    assert json.loads((tmp_path / "out.json").read_text()) == result
    figures = result["figures"]
    assert figures["epoch_s"] > 0 and 0.1 < figures["peak_rss_gb"] < 4
    assert figures["users_at_0.002"] == 2000 and figures["interactions_at_0.001"] > 5000
    assert figures["loss_of_guessing_at_0.002"] == pytest.approx(np.log(1 + figures["items_at_0.002"]))
    assert 0 <= figures["valid_ndcg@10_at_0.002"] <= 1 and 0 <= figures["popularity_ndcg@10_at_0.002"] <= 1
    assert result["settings"]["plans"]["0.002"].startswith("sampled" if words else "full graph")
