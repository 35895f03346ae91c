"""What Prometheus is told. Names and meanings are in docs/operations.md.

Workers count into files of one folder (prometheus_client's multiprocess mode: the variable PROMETHEUS_MULTIPROC_DIR,
set before this module is imported); the supervisor serves their sum with `serve_metrics`. No label holds what a user or
an item is called.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, start_http_server

from reckg.errors import ConfigError

FAST = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
SLOW = (*FAST, 2.5, 5.0, 30.0)
DRIFT_ANSWERS = 1000  # compared with as many at the start of the bundle
DRIFT_BINS = 10

REQUESTS = Counter("reckg_requests", "Calls that ended, by method and status code.", ["method", "code"])
REQUEST_SECONDS = Histogram(
    "reckg_request_seconds",
    "From the arrival of a call to its end.",
    ["method"],
    buckets=SLOW,
)
STAGE_SECONDS = Histogram("reckg_stage_seconds", "The stages of requests.", ["stage"], buckets=FAST)
QUEUE_SECONDS = Histogram("reckg_queue_seconds", "From a call's arrival to the start of the work on it.", buckets=FAST)
IN_FLIGHT = Gauge("reckg_in_flight", "Calls that wait or are worked on.", multiprocess_mode="livesum")
REJECTED = Counter("reckg_rejected", "Calls that were refused before any work, by reason.", ["reason"])
DEGRADED = Counter("reckg_degraded", "Answers that may be worse than usual, by reason.", ["reason"])
FILTER_CACHE = Counter("reckg_filter_cache", "Filters of requests that were there already, or were made.", ["result"])
STORE_SECONDS = Histogram("reckg_store_seconds", "Calls of the state store.", ["operation"], buckets=FAST)
STORE_ERRORS = Counter("reckg_store_errors", "Calls of the state store that failed.", ["operation"])
STORE_UP = Gauge("reckg_store_up", "Whether the state store answers every worker: 1 or 0.", multiprocess_mode="livemin")
CATALOG_REVISION = Gauge(
    "reckg_catalog_revision", "The catalogue revision that every worker has taken.", multiprocess_mode="livemin"
)
CATALOG_ITEMS = Gauge(
    "reckg_catalog_items", "Items added or blocked since the bundle.", ["kind"], multiprocess_mode="livemax"
)
INDEX_RECALL = Gauge(
    "reckg_index_recall",
    "Share of the best items that the index found, of recent requests.",
    multiprocess_mode="livemin",
)
SCORE_DRIFT = Gauge(
    "reckg_score_drift",
    "Population stability index of the latest best scores against the bundle's first ones.",
    multiprocess_mode="livemax",
)
SERVED_LOG_ROWS = Counter("reckg_served_log_rows", "Rows of the log of what was shown.", ["result"])
BUNDLE_LOADED = Gauge(
    "reckg_bundle_loaded_timestamp_seconds",
    "When the bundle was taken into service.",
    ["version"],
    multiprocess_mode="livemin",
)


class ScoreDrift:
    """How far the best scores of answers have moved since the bundle came: the population stability index.

    Below 0.1 is little, above 0.25 much. The first DRIFT_ANSWERS are the measure, cut into bins of equal counts; each
    further DRIFT_ANSWERS are compared with them.
    """

    def __init__(self, tell: Callable[[float], None] = SCORE_DRIFT.set) -> None:
        self._tell = tell
        self._scores: deque[float] = deque()
        self._edges: np.ndarray | None = None
        self._expected: np.ndarray = np.empty(0)

    def add(self, score: float) -> None:
        """The best score of one answer."""
        self._scores.append(score)
        if len(self._scores) < DRIFT_ANSWERS:
            return
        scores = np.array(self._scores)
        self._scores.clear()
        if self._edges is None:
            self._edges = np.unique(np.quantile(scores, np.linspace(0, 1, DRIFT_BINS + 1)[1:-1]))
            self._expected = self._shares(scores)
        self._tell(stability_index(self._expected, self._shares(scores)))

    def _shares(self, scores: np.ndarray) -> np.ndarray:
        edges = self._edges if self._edges is not None else np.empty(0)
        return np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1) / len(scores)


def stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """The population stability index of two distributions over the same bins; 0: equal.

    Source: Siddiqi 2006, Credit Risk Scorecards; a symmetrised Kullback-Leibler divergence. Empty bins count as one in
    ten thousand.
    """
    expected, found = np.maximum(expected, 1e-4), np.maximum(found, 1e-4)
    return float(((found - expected) * np.log(found / expected)).sum())


def serve_metrics(host: str, port: int, folder: Path, own: CollectorRegistry) -> tuple[WSGIServer, Thread]:
    """Serves /metrics: what the processes of ``folder`` counted together, and the caller's own registry.

    Raises:
        ConfigError: the address cannot be listened at.
    """

    class Together(CollectorRegistry):
        def collect(self) -> Any:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=str(folder))
            yield from registry.collect()
            yield from own.collect()

    try:
        return start_http_server(port, addr=host, registry=Together())
    except OSError as error:
        raise ConfigError(f"metrics: cannot listen at {host}:{port}: {error.strerror}; choose another port.") from error


def forget_process(pid: int, folder: Path) -> None:
    """Takes a process that ended out of the gauges; its counters stay."""
    multiprocess.mark_process_dead(pid, path=str(folder))


class SupervisorMetrics:
    """What only the supervisor knows, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.workers = Gauge("reckg_workers", "Worker processes by state.", ["state"], registry=self.registry)
        self.respawns = Counter("reckg_worker_respawns", "Workers started again.", registry=self.registry)
        self.swaps = Counter("reckg_bundle_swaps", "Swaps of the bundle by result.", ["result"], registry=self.registry)
        self.bundle = Gauge("reckg_bundle_info", "The bundle that is served: 1.", ["version"], registry=self.registry)
        self.swap_seconds = Histogram(
            "reckg_bundle_swap_seconds",
            "Verification and loading.",
            buckets=(1, 2, 5, 10, 30, 60, 300),
            registry=self.registry,
        )

    def serving(self, version: str) -> None:
        """Only this bundle is served now."""
        self.bundle.clear()
        self.bundle.labels(version).set(1)


def observe_stages(durations: Mapping[str, float] | Sequence[tuple[str, float]]) -> None:
    """Seconds of each stage of one request."""
    pairs = durations.items() if isinstance(durations, Mapping) else durations
    for stage, seconds in pairs:
        STAGE_SECONDS.labels(stage).observe(seconds)


def multiprocess_folder() -> Path | None:
    """Where this process counts into, or None: into its own memory."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return None if folder is None else Path(folder)
