"""The benchmark of the server runs at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import serving


@pytest.mark.long
def test_the_small_size_runs_and_writes_its_figures(tmp_path: Path) -> None:
    words = ["--small", "--seconds", "0.3", "--parts", "tls", "--folder", str(tmp_path), "--out", str(tmp_path / "out")]
    result = serving.main(words)
    assert json.loads((tmp_path / "out").read_text()) == result
    figures = result["figures"]
    for name in ("p50_ms", "p99_ms", "p99_half_load_ms", "capacity_per_core", "ready_s", "cpu_ms", "bare_cpu_ms"):
        assert figures[name] > 0, name
    assert figures["p50_ms"] <= figures["p99_ms"] and 0 <= figures["answered_half_load"] <= 1
    assert figures["tls_share"] < 1 and figures["overhead_share"] > -1
