"""Instruments beside the services of a worker: the experiment, the served log, metrics, traces, probes."""

from __future__ import annotations

from collections.abc import Callable

from reckg.bundle.bundle import Bundle
from reckg.bundle.store import resolve
from reckg.recommend.golden import open_bundle
from reckg.recommend.recommender import Recommender
from serving.calls.interceptor import Interceptor
from serving.catalog.snapshot import ServingState
from serving.experiment.experiment import Experiment
from serving.experiment.served_log import ServedLog
from serving.monitoring import metrics
from serving.monitoring.observation import Observation, Ticker
from serving.monitoring.recall_probe import RecallProbe
from serving.monitoring.tracing import start_tracing
from serving.settings import ServerSettings


class Instruments:
    """The instruments of a worker. Open them before the server listens, and close them after it has stopped.

    Args:
        settings: of the server.
        state: the served bundle.

    Raises:
        ConfigError: the folder of the served log cannot be written to, or OpenTelemetry is missing.
        UnknownVersionError: a variant names a version that the bundle store does not hold.
        ArtifactError: the bundle of a variant is damaged.
    """

    def __init__(self, settings: ServerSettings, state: ServingState) -> None:
        self._settings, self._state = settings, state
        versions = settings.experiment.bundle_versions
        self._others = {version: _open_version(settings, version, state) for version in versions}
        self.experiment = Experiment(settings.experiment, state, self._others)
        self.log = None if settings.served_log.folder is None else ServedLog(settings.served_log)
        self.observe = Observation(start_tracing(settings.tracing))
        self._counted_rows = {"written": 0, "dropped": 0}
        self._close: list[Callable[[], None]] = []

    def start(self, interceptor: Interceptor) -> None:
        """Follows the catalogue for the variants' bundles, sets gauges and probes the index.

        Args:
            interceptor: its lanes give the number of calls in flight.
        """
        if self._close:
            return
        for other in self._others.values():
            other.follow()
        ticker = Ticker(lambda: self._set_gauges(interceptor))
        probe = RecallProbe(self._bundle, self._settings.metrics.recall_probe_s)
        self._close += [ticker.close, probe.close]

    def close(self) -> None:
        """Writes and sends the rest: the log first, because a collector may not answer."""
        for close in [*self._close, *(other.stop for other in self._others.values())]:
            close()
        if self.log is not None:
            self.log.close()
            self._count_rows(self.log)
        self.observe.close()

    def _bundle(self) -> Bundle:
        return self._state.current.recommender.bundle

    def _set_gauges(self, interceptor: Interceptor) -> None:
        served = self._state.current
        metrics.IN_FLIGHT.set(sum(lane.in_flight for lane in interceptor.lanes))
        metrics.CATALOG_REVISION.set(served.catalog_revision)
        metrics.STORE_UP.set(not served.stale_catalog)
        metrics.CATALOG_ITEMS.labels("added").set(served.added_count)
        metrics.CATALOG_ITEMS.labels("blocked").set(served.blocked_count)
        if self.log is not None:
            self._count_rows(self.log)

    def _count_rows(self, log: ServedLog) -> None:
        for name, rows in (("written", log.rows_written), ("dropped", log.rows_dropped)):
            metrics.SERVED_LOG_ROWS.labels(name).inc(rows - self._counted_rows[name])
            self._counted_rows[name] = rows


def _open_version(settings: ServerSettings, version: str, state: ServingState) -> ServingState:
    """Opens a version of the bundle store, with the catalogue changes of ``state``'s store."""
    other = ServingState(state.store)
    bundle = open_bundle(resolve(settings.bundle, version))
    if bundle.ranker is not None:
        bundle.ranker.compile()
    other.serve(Recommender(bundle))
    return other
