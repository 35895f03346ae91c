"""What Prometheus is told, by several processes at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from reckg.errors import ConfigError
from serving.settings import MetricsSettings
from serving.supervisor.metrics_page import MetricsPage, serve_metrics

WORKER = """
import sys
from serving.monitoring import metrics
metrics.REQUESTS.labels("Recommend", "OK").inc(int(sys.argv[1]))
metrics.STORE_UP.set(int(sys.argv[2]))
metrics.IN_FLIGHT.inc(2)
metrics.STAGE_SECONDS.labels("retrieve").observe(0.0015)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_several_workers_counted_is_served_together() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page, url = MetricsPage(MetricsSettings(port=port)), f"http://127.0.0.1:{port}/metrics"
    folder = Path(page.environment["PROMETHEUS_MULTIPROC_DIR"])
    figures: dict[str, float | str] = {"worker_count": 2, "ready_worker_count": 1, "respawn_count": 5}
    figures |= {"swap_count": 3, "refused_swap_count": 1, "swap_seconds": 1.5}
    figures |= {"bundle_version": "v2", "bundle_time": 1.7e9}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **page.environment},
            cwd=Path(__file__).resolve().parents[4],
        )
        for words in (("3", "1"), ("4", "0"))
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    page.serve(lambda: figures)
    try:
        text = urllib.request.urlopen(url, timeout=20).read().decode()
        for worker in workers:
            worker.communicate(timeout=20)
            page.forget(worker.pid)
        after = urllib.request.urlopen(url, timeout=20).read().decode()
    finally:
        page.close()
    assert not folder.exists()
    assert 'reckg_requests_total{code="OK",method="Recommend"} 7.0' in text
    assert "reckg_store_up 0.0" in text  # one worker does not reach it
    assert "reckg_in_flight 4.0" in text
    assert 'reckg_stage_seconds_bucket{le="0.002",stage="retrieve"} 2.0' in text
    assert 'reckg_bundle_info{version="v2"} 1.0' in text and 'reckg_workers{state="ready"} 1.0' in text
    assert "reckg_bundle_loaded_timestamp_seconds 1.7e+09" in text
    assert 'reckg_bundle_swaps_total{result="refused"} 1.0' in text and "reckg_worker_respawns_total 5.0" in text
    assert 'reckg_requests_total{code="OK",method="Recommend"} 7.0' in after  # counters outlive their process
    assert "reckg_in_flight 4.0" not in after


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics: cannot listen at 127.0.0.1:{port}: .*choose another port"):
            serve_metrics("127.0.0.1", port, tmp_path, dict)


def test_without_a_port_there_is_nothing() -> None:
    page = MetricsPage(MetricsSettings())
    assert page.environment == {}
    page.serve(dict)
    page.forget(1)
    page.close()
