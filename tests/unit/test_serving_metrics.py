"""What Prometheus is told, by several processes at once, and how far scores have moved."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from reckg.errors import ConfigError
from serving.metrics import DRIFT_ANSWERS, ScoreDrift, SupervisorMetrics, forget_process, serve_metrics, stability_index

WORKER = """
import sys
from serving import metrics
metrics.REQUESTS.labels("Recommend", "OK").inc(int(sys.argv[1]))
metrics.STORE_UP.set(int(sys.argv[2]))
metrics.IN_FLIGHT.inc(2)
metrics.observe_stages([("retrieve", 0.0015)])
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_several_workers_counted_is_served_together(tmp_path: Path) -> None:
    own = SupervisorMetrics()
    own.serving("v1")
    own.serving("v2")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            cwd=Path(__file__).resolve().parents[2],
        )
        for words in (("3", "1"), ("4", "0"))
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    server, thread = serve_metrics("127.0.0.1", 0, tmp_path, own.registry)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        text = urllib.request.urlopen(url, timeout=20).read().decode()
        for worker in workers:
            worker.communicate(timeout=20)
            forget_process(worker.pid, tmp_path)
        after = urllib.request.urlopen(url, timeout=20).read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'reckg_requests_total{code="OK",method="Recommend"} 7.0' in text
    assert "reckg_store_up 0.0" in text  # one worker does not reach it
    assert "reckg_in_flight 4.0" in text
    assert 'reckg_stage_seconds_bucket{le="0.002",stage="retrieve"} 2.0' in text
    assert 'reckg_bundle_info{version="v2"} 1.0' in text and '"v1"' not in text
    assert 'reckg_requests_total{code="OK",method="Recommend"} 7.0' in after  # counters outlive their process
    assert "reckg_in_flight 4.0" not in after


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics: cannot listen at 127.0.0.1:{port}: .*choose another port"):
            serve_metrics("127.0.0.1", port, tmp_path, SupervisorMetrics().registry)


def test_the_stability_index_by_hand() -> None:
    half = np.array([0.5, 0.5])
    assert stability_index(half, half) == 0
    assert stability_index(half, np.array([0.75, 0.25])) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert np.isfinite(stability_index(half, np.array([1.0, 0.0])))


def test_drift_is_told_against_the_first_answers() -> None:
    told: list[float] = []
    drift, rng = ScoreDrift(told.append), np.random.default_rng(0)
    for mean in (0.0, 0.0, 2.0):
        for score in rng.normal(mean, 1.0, DRIFT_ANSWERS).tolist():
            drift.add(score)
    assert told[0] == pytest.approx(0, abs=1e-6)
    assert told[1] < 0.1 < 0.25 < told[2]


def test_scores_that_are_all_the_same_do_not_drift() -> None:
    told: list[float] = []
    drift = ScoreDrift(told.append)
    for _ in range(2 * DRIFT_ANSWERS):
        drift.add(1.0)
    assert told == [0.0, 0.0]
