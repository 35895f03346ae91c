"""The benchmark of one request's features, at a size that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import features


@pytest.mark.parametrize("order", ["ahead", "between"])
def test_every_part_of_a_request_is_measured(order: str, tmp_path: Path) -> None:
    result = features.main(["--small", "--order", order, "--out", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == result
    figures = result["figures"]
    measured = {"retrieve_ms", "features_ms", "rerank_ms", "extract_ms", "search_ms", "candidates"}
    assert set(figures) - {"compiled_ms"} == measured
    assert min(figures.values()) > 0 and figures["candidates"] > 60
