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
from serving.metrics_page import forget_process, serve_metrics

WORKER = """
import sys
from serving import metrics
metrics.REQUESTS.labels("Recommend", "OK").inc(int(sys.argv[1]))
metrics.STORE_UP.set(int(sys.argv[2]))
metrics.IN_FLIGHT.inc(2)
metrics.STAGE_SECONDS.labels("retrieve").observe(0.0015)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_several_workers_counted_is_served_together(tmp_path: Path) -> None:
    said: dict[str, float | str] = {"worker_count": 2, "ready_worker_count": 1, "respawn_count": 5}
    said |= {"swap_count": 3, "refused_swap_count": 1, "swap_seconds": 1.5, "bundle_version": "v2"}
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
    server, thread = serve_metrics("127.0.0.1", 0, tmp_path, lambda: said)
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
    assert 'reckg_bundle_info{version="v2"} 1.0' in text and 'reckg_workers{state="ready"} 1.0' in text
    assert 'reckg_bundle_swaps_total{result="refused"} 1.0' in text and "reckg_worker_respawns_total 5.0" in text
    assert 'reckg_requests_total{code="OK",method="Recommend"} 7.0' in after  # counters outlive their process
    assert "reckg_in_flight 4.0" not in after


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics: cannot listen at 127.0.0.1:{port}: .*choose another port"):
            serve_metrics("127.0.0.1", port, tmp_path, dict)
