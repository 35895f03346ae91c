"""Metrics of a worker for Prometheus.

Workers count into the files of a shared folder by prometheus_client's multiprocess mode. The variable
PROMETHEUS_MULTIPROC_DIR names the folder and must be set before this module is imported. The supervisor serves the sum
over all workers (serving/supervisor/metrics_page.py). No label holds the id of a user or an item.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FAST = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
SLOW = (*FAST, 2.5, 5.0, 30.0)

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
SERVED_LOG_ROWS = Counter("reckg_served_log_rows", "Rows of the served log.", ["result"])


def observe_store(operation: str, seconds: float, failed: bool) -> None:
    """Counts a call of the state store.

    Args:
        operation: name of the store's method.
        seconds: duration of the call.
        failed: whether the call raised.
    """
    STORE_SECONDS.labels(operation).observe(seconds)
    if failed:
        STORE_ERRORS.labels(operation).inc()
