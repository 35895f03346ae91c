"""What stands beside the services of a worker: the experiment, the log of what is shown, metrics, traces, probes."""

from __future__ import annotations

from collections.abc import Callable

from reckg.bundle.bundle import Bundle, load_bundle
from reckg.bundle.store import resolve
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
    """Opened before the server listens; `start` once it answers, `close` when it has stopped.

    Raises:
        ConfigError: the log's folder cannot be written to, or OpenTelemetry is missing.
        UnknownVersionError, ArtifactError: a variant names a bundle that the store lacks, or that is damaged.
    """

    def __init__(self, settings: ServerSettings, state: ServingState) -> None:
        self._settings, self._state = settings, state
        versions = settings.experiment.bundle_versions
        self._others = {version: _served(settings, version, state) for version in versions}
        self.experiment = Experiment(settings.experiment, state, self._others)
        self.log = None if settings.served_log.folder is None else ServedLog(settings.served_log)
        self.observe = Observation(start_tracing(settings.tracing))
        self._told = {"written": 0, "dropped": 0}
        self._close: list[Callable[[], None]] = []

    def start(self, interceptor: Interceptor) -> None:
        """Follows the catalogue for the variants' bundles, tells gauges and probes the index, once."""
        if self._close:
            return
        for other in self._others.values():
            other.follow()
        ticker = Ticker(lambda: self._tell(interceptor))
        probe = RecallProbe(self._bundle, self._settings.metrics.recall_probe_s)
        self._close += [ticker.close, probe.close]

    def close(self) -> None:
        """Writes and sends what is left: the log first, for a collector may not be there."""
        for close in [*self._close, *(other.stop for other in self._others.values())]:
            close()
        if self.log is not None:
            self.log.close()
            self._tell_rows(self.log)
        self.observe.close()

    def _bundle(self) -> Bundle:
        return self._state.current.recommender.bundle

    def _tell(self, interceptor: Interceptor) -> None:
        served = self._state.current
        metrics.IN_FLIGHT.set(sum(lane.in_flight for lane in interceptor.lanes))
        metrics.CATALOG_REVISION.set(served.catalog_revision)
        metrics.STORE_UP.set(not served.stale_catalog)
        metrics.CATALOG_ITEMS.labels("added").set(served.added_count)
        metrics.CATALOG_ITEMS.labels("blocked").set(served.blocked_count)
        if self.log is not None:
            self._tell_rows(self.log)

    def _tell_rows(self, log: ServedLog) -> None:
        for name, rows in (("written", log.rows_written), ("dropped", log.rows_dropped)):
            metrics.SERVED_LOG_ROWS.labels(name).inc(rows - self._told[name])
            self._told[name] = rows


def _served(settings: ServerSettings, version: str, state: ServingState) -> ServingState:
    """A bundle of the store, verified, with the catalogue changes of ``state``'s store."""
    other = ServingState(state.store)
    bundle = load_bundle(resolve(settings.bundle, version))
    if bundle.ranker is not None:
        bundle.ranker.compile()
    other.serve(Recommender(bundle))
    return other
