"""The benchmarks of retrieval, at a size that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reckg.retrieval import index as index_module
from reckg.retrieval.scored_items import ScoredItems
from tests.benchmarks import full_ranking, retrieval


def test_full_ranking_compares_and_writes_its_figures(tmp_path: Path) -> None:
    words = ["--small", "--threads", "1", "--out", str(tmp_path / "out.json")]
    result = full_ranking.main(words)
    assert json.loads((tmp_path / "out.json").read_text()) == result
    figures = result["figures"]
    assert 0 < figures["product_share"] < 1 and 0.05 < figures["peak_rss_gb"] < 2
    assert figures["speedup_vs_implicit"] > 0 and figures["speedup_vs_faiss"] > 0
    assert min(figures["agreement_implicit"], figures["agreement_faiss"]) > full_ranking.AGREEMENT


def test_agreement_counts_equal_places() -> None:
    ours = ScoredItems(np.array([[1, 2], [3, 4]]), np.zeros((2, 2), np.float32))
    assert full_ranking.agreement(ours, np.array([[1, 2], [4, 3]])) == 0.5


@pytest.mark.parametrize("words", [[], ["--filters"]])
def test_retrieval_measures_kinds(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SELECTIVE", index_module.SELECTIVE)  # put back what the benchmark sets
    result = retrieval.main(["--small", "--kinds", "flat", "ivf_sq8", *words])
    figures = result["figures"]
    assert figures["flat_recall"] == 1 and 0.95 <= figures["ivf_sq8_recall"] <= 1
    assert 0 < figures["ivf_sq8_mb"] < figures["flat_mb"]
    assert figures["flat_0.1_exact_ms" if words else "flat_ms"] > 0
