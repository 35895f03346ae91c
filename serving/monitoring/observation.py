"""Observation of a worker's calls: metrics, traces, and the drift of the best scores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from serving.calls.call import Call
from serving.monitoring import metrics
from serving.monitoring.score_drift import ScoreDrift
from serving.monitoring.tracing import Tracer

TICK_S = 1.0


class Observation:
    """An observer of every call that ended, safe in any thread.

    Args:
        tracer: records calls; None: no traces.
        clock: seconds that never go back, the same clock as of the calls.
    """

    def __init__(self, tracer: Tracer | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracer, self._clock = tracer, clock
        self._drift, self._drift_of = ScoreDrift(), ""
        self._lock = threading.Lock()

    def __call__(self, call: Call, code: grpc.StatusCode) -> None:
        """Counts a call, its seconds and the seconds of its stages, and traces it.

        Args:
            call: the call, which has ended.
            code: its status.
        """
        name = call.method.rpartition("/")[2]
        metrics.REQUESTS.labels(name, code.name).inc()
        if call.refused:
            metrics.REJECTED.labels(call.refused).inc()
            return
        ended = self._clock()
        metrics.REQUEST_SECONDS.labels(name).observe(ended - call.arrived)
        if call.began is not None:
            metrics.QUEUE_SECONDS.observe(call.began - call.arrived)
        report = call.report
        for deadline in report.deadlines:
            for stage, seconds in deadline.seconds.items():
                metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        for reason in report.degraded:
            metrics.DEGRADED.labels(reason).inc()
        if report.best_score is not None:
            self._add_score(report.bundle_version, report.best_score)
        if self._tracer is not None:
            self._trace(self._tracer, call, code, ended)

    def close(self) -> None:
        """Sends the traces that are left."""
        if self._tracer is not None:
            self._tracer.close()

    def _add_score(self, bundle_version: str, score: float) -> None:
        with self._lock:
            if bundle_version != self._drift_of:
                self._drift, self._drift_of = ScoreDrift(), bundle_version
            self._drift.add(score)

    def _trace(self, tracer: Tracer, call: Call, code: grpc.StatusCode, ended: float) -> None:
        epoch_ns = time.time_ns() - int(self._clock() * 1e9)  # the clock's zero

        def at(seconds: float) -> int:
            return epoch_ns + int(seconds * 1e9)

        report = call.report
        stages = [
            (stage, at(began), at(began + deadline.seconds[stage]))
            for deadline in report.deadlines
            for stage, began in deadline.began.items()
        ]
        attributes = {"reckg.request_id": report.request_id, "reckg.bundle_version": report.bundle_version}
        tracer.record(
            call.method.removeprefix("/"),
            call.metadata,
            at(call.arrived),
            at(ended),
            code=code.name,
            stages=stages,
            attributes={name: value for name, value in attributes.items() if value},
        )


class Ticker:
    """A thread that calls functions at regular times until it is closed, to set gauges.

    Args:
        functions: called one after the other.
        every_s: seconds between two rounds.
    """

    def __init__(self, *functions: Callable[[], None], every_s: float = TICK_S) -> None:
        self._functions, self._every_s = functions, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gauges", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            for function in self._functions:
                function()
            if self._stop.wait(self._every_s):
                return
