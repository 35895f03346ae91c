"""/metrics: what all workers of a server counted together, and what only the supervisor knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, multiprocess, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from reckg.errors import ConfigError
from serving.settings import MetricsSettings

Described = Callable[[], Mapping[str, float | str]]  # of the names of supervisor_metrics


class MetricsPage:
    """The folder that workers count into, and the page; nothing where the settings name no port."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="reckg-metrics-") if settings.port else None
        self._serving: tuple[WSGIServer, Thread] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of the workers."""
        return {} if self._folder is None else {"PROMETHEUS_MULTIPROC_DIR": self._folder.name}

    def forget(self, pid: int) -> None:
        """A worker ended: it is taken out of the gauges, its counters stay."""
        if self._folder is not None:
            multiprocess.mark_process_dead(pid, path=self._folder.name)

    def serve(self, describe: Described) -> None:
        """Raises ConfigError: the address cannot be listened at."""
        if self._folder is not None:
            self._serving = serve_metrics(self._settings.host, self._settings.port, Path(self._folder.name), describe)

    def close(self) -> None:
        if self._serving is not None:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join()
        if self._folder is not None:
            self._folder.cleanup()


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


def supervisor_metrics(said: Mapping[str, float | str]) -> Iterator[Metric]:
    """What the supervisor says, by the keys worker_count, ready_worker_count, respawn_count, swap_count,
    refused_swap_count, swap_seconds, bundle_version and bundle_time (epoch seconds)."""
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
    when = float(said["bundle_time"])
    yield GaugeMetricFamily("reckg_bundle_loaded_timestamp_seconds", "Since when that bundle is served.", when)
