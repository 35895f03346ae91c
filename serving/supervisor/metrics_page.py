"""The page /metrics: sums over all workers, and figures of the supervisor."""

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

Describe = Callable[[], Mapping[str, float | str]]  # returns the figures of supervisor_metrics


class MetricsPage:
    """The folder that workers count into, and the page. Without a port in the settings it does nothing.

    Args:
        settings: address of the page.
    """

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="reckg-metrics-") if settings.port else None
        self._serving: tuple[WSGIServer, Thread] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the workers."""
        return {} if self._folder is None else {"PROMETHEUS_MULTIPROC_DIR": self._folder.name}

    def forget(self, pid: int) -> None:
        """Takes a worker that ended out of the gauges. Its counters stay.

        Args:
            pid: id of its process.
        """
        if self._folder is not None:
            multiprocess.mark_process_dead(pid, path=self._folder.name)

    def serve(self, describe: Describe) -> None:
        """Starts the page. Raises ConfigError if the address is not free."""
        if self._folder is not None:
            self._serving = serve_metrics(self._settings.host, self._settings.port, Path(self._folder.name), describe)

    def close(self) -> None:
        """Ends the page and removes the folder."""
        if self._serving is not None:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join()
        if self._folder is not None:
            self._folder.cleanup()


def serve_metrics(host: str, port: int, folder: Path, describe: Describe) -> tuple[WSGIServer, Thread]:
    """Serves /metrics in a thread.

    Args:
        host: address to listen on.
        port: its port.
        folder: files of the workers' counts.
        describe: returns the figures of the supervisor.

    Returns:
        The server and its thread.

    Raises:
        ConfigError: the address is not free.
    """

    class AllProcesses(CollectorRegistry):
        def collect(self) -> Iterator[Metric]:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=str(folder))
            yield from registry.collect()
            yield from supervisor_metrics(describe())

    try:
        return start_http_server(port, addr=host, registry=AllProcesses())
    except OSError as error:
        raise ConfigError(f"metrics: cannot listen at {host}:{port}: {error.strerror}; choose another port.") from error


def supervisor_metrics(figures: Mapping[str, float | str]) -> Iterator[Metric]:
    """Yields the metrics of the supervisor.

    Args:
        figures: worker_count, ready_worker_count, respawn_count, swap_count, refused_swap_count, swap_seconds,
            bundle_version and bundle_time (epoch seconds).
    """
    workers = GaugeMetricFamily("reckg_workers", "Worker processes by state.", labels=["state"])
    workers.add_metric(["wanted"], float(figures["worker_count"]))
    workers.add_metric(["ready"], float(figures["ready_worker_count"]))
    yield workers
    yield CounterMetricFamily("reckg_worker_respawns", "Workers started again.", value=float(figures["respawn_count"]))
    swaps = CounterMetricFamily("reckg_bundle_swaps", "Swaps of the bundle by result.", labels=["result"])
    swaps.add_metric(["done"], float(figures["swap_count"]))
    swaps.add_metric(["refused"], float(figures["refused_swap_count"]))
    yield swaps
    seconds = float(figures["swap_seconds"])
    yield GaugeMetricFamily("reckg_bundle_swap_seconds", "Seconds of the last swap, verification included.", seconds)
    bundle = GaugeMetricFamily("reckg_bundle_info", "The served bundle: 1.", labels=["version"])
    bundle.add_metric([str(figures["bundle_version"])], 1.0)
    yield bundle
    when = float(figures["bundle_time"])
    yield GaugeMetricFamily("reckg_bundle_loaded_timestamp_seconds", "Epoch seconds of the latest swap.", when)
