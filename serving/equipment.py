"""What stands beside the services of a worker: the experiment, the log of what is shown, metrics, traces, probes."""

from __future__ import annotations

import time
from collections.abc import Callable

from reckg.bundle import Bundle, load_bundle
from reckg.bundle_store import resolve
from reckg.recommend import Recommender
from serving import metrics
from serving.entrance import Entrance
from serving.experiment import Experiment
from serving.observation import Observation, Ticker
from serving.recall_probe import RecallProbe
from serving.served_log import ServedLog
from serving.serving_state import ServingState
from serving.settings import ServerSettings
from serving.tracing import start_tracing


class Equipment:
    """Opened before the server listens; `start` once it answers, `close` when it has stopped.

    Raises:
        ConfigError: the log's folder cannot be written to, or OpenTelemetry is missing.
        UnknownVersionError, ArtifactError: a variant names a bundle that the store lacks, or that is damaged.
    """

    def __init__(self, settings: ServerSettings, state: ServingState) -> None:
        self._settings, self._state = settings, state
        versions = {variant.bundle_version for variant in settings.experiment.variants} - {""}
        self._others = {version: _served(settings, version, state) for version in versions}
        self.experiment = Experiment(settings.experiment, state, self._others)
        self.log = None if settings.served_log.folder is None else ServedLog(settings.served_log)
        self.observe = Observation(start_tracing(settings.tracing))
        self._told = {"written": 0, "dropped": 0}
        self._loaded = ""
        self._close: list[Callable[[], None]] = []

    def start(self, entrance: Entrance) -> None:
        """Follows the catalogue for the variants' bundles, tells gauges and probes the index; once alone."""
        if self._close:
            return
        for other in self._others.values():
            other.follow()
        ticker = Ticker(lambda: self._tell(entrance))
        probe = RecallProbe(self._bundle, self._settings.metrics.recall_probe_s)
        self._close += [ticker.close, probe.close]

    def close(self) -> None:
        """Writes and sends what is left."""
        for close in [*self._close, *(other.stop for other in self._others.values()), self.observe.close]:
            close()
        if self.log is not None:
            self.log.close()

    def _bundle(self) -> Bundle:
        return self._state.current.recommender.bundle

    def _tell(self, entrance: Entrance) -> None:
        served = self._state.current
        metrics.IN_FLIGHT.set(sum(lane.in_flight for lane in entrance.lanes))
        metrics.CATALOG_REVISION.set(served.catalog_revision)
        metrics.STORE_UP.set(not served.stale_catalog)
        bundle = served.recommender.bundle
        base = bundle.base or bundle
        metrics.CATALOG_ITEMS.labels("added").set(len(bundle.item_ids) - len(base.item_ids))
        metrics.CATALOG_ITEMS.labels("blocked").set(len(bundle.unavailable))
        if base.version != self._loaded:
            metrics.BUNDLE_LOADED.clear()
            metrics.BUNDLE_LOADED.labels(base.version).set(time.time())
            self._loaded = base.version
        if self.log is not None:
            for name, rows in (("written", self.log.rows_written), ("dropped", self.log.rows_dropped)):
                metrics.SERVED_LOG_ROWS.labels(name).inc(rows - self._told[name])
                self._told[name] = rows


def _served(settings: ServerSettings, version: str, state: ServingState) -> ServingState:
    """A bundle of the store, verified, with the catalogue changes of ``state``'s store."""
    other = ServingState(state.store)
    other.serve(Recommender(load_bundle(resolve(settings.bundle, version))))
    return other
