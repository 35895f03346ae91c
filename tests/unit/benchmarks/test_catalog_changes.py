"""The benchmark of catalogue changes runs at a small size."""

from __future__ import annotations

import json

from tests.benchmarks import catalog_changes


def test_a_small_size_measures_what_a_worker_pays() -> None:
    figures = catalog_changes.measure_workers(1000, 1, 0)
    assert figures["added"] == 551 and figures["apply_500_cpu_ms"] > figures["apply_1_cpu_ms"] > 0
    assert json.loads(json.dumps(figures))["answer_ratio"] > 0
