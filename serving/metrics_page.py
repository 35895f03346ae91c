"""/metrics: what all workers of a server counted together, and what only the supervisor knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, multiprocess, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from reckg.errors import ConfigError

Described = Callable[[], Mapping[str, float | str]]  # of the names of supervisor_metrics


def serve_metrics(host: str, port: int, folder: Path, describe: Described) -> tuple[WSGIServer, Thread]:
    """Serves /metrics: what the processes of ``folder`` counted together, and what the supervisor describes.

    Raises:
        ConfigError: the address cannot be listened at.
    """

    class Together(CollectorRegistry):
        def collect(self) -> Iterator[Metric]:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=str(folder))
            yield from registry.collect()
            yield from supervisor_metrics(describe())

    try:
        return start_http_server(port, addr=host, registry=Together())
    except OSError as error:
        raise ConfigError(f"metrics: cannot listen at {host}:{port}: {error.strerror}; choose another port.") from error


def forget_process(pid: int, folder: Path) -> None:
    """Takes a process that ended out of the gauges; its counters stay."""
    multiprocess.mark_process_dead(pid, path=str(folder))


def supervisor_metrics(said: Mapping[str, float | str]) -> Iterator[Metric]:
    """What the supervisor says, by the keys worker_count, ready_worker_count, respawn_count, swap_count,
    refused_swap_count, swap_seconds and bundle_version."""
    workers = GaugeMetricFamily("reckg_workers", "Worker processes by state.", labels=["state"])
    workers.add_metric(["wanted"], float(said["worker_count"]))
    workers.add_metric(["ready"], float(said["ready_worker_count"]))
    yield workers
    yield CounterMetricFamily("reckg_worker_respawns", "Workers started again.", value=float(said["respawn_count"]))
    swaps = CounterMetricFamily("reckg_bundle_swaps", "Swaps of the bundle by result.", labels=["result"])
    swaps.add_metric(["done"], float(said["swap_count"]))
    swaps.add_metric(["refused"], float(said["refused_swap_count"]))
    yield swaps
    seconds = float(said["swap_seconds"])
    yield GaugeMetricFamily("reckg_bundle_swap_seconds", "How long the last swap took, verification too.", seconds)
    bundle = GaugeMetricFamily("reckg_bundle_info", "The bundle that is served: 1.", labels=["version"])
    bundle.add_metric([str(said["bundle_version"])], 1.0)
    yield bundle
