"""`reckg serve`: the process that owns the port, the workers and the swaps.

It starts workers by exec, which share the port and the mapped bundle, starts another where one ends, verifies bundles
in a process of their own, and drains everything on SIGTERM. It imports nothing heavy and answers no client itself.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

from reckg.errors import ReckgError
from serving.access.certificate import check_certificate
from serving.access.tokens import read_grants
from serving.monitoring.logs import log_to_stderr
from serving.processes.channel import CallError
from serving.settings import ServerSettings, is_loopback
from serving.supervisor.embedder_process import EmbedderProcess
from serving.supervisor.fleet import Fleet
from serving.supervisor.metrics_page import MetricsPage
from serving.supervisor.shared_port import SharedPort
from serving.supervisor.swaps import Swaps, find_bundle, is_store
from serving.supervisor.verify import verify

POLL_S = 0.1  # how soon a signal is seen while the server starts

logger = logging.getLogger("reckg.serving")


class Supervisor:
    """The server's state beside its workers."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.stopping = threading.Event()
        self.metrics = MetricsPage(settings.metrics)
        bundle = find_bundle(settings.bundle)
        self.fleet = Fleet(settings, bundle, self.answer, self.metrics.environment, self.metrics.forget)
        self.embedder = EmbedderProcess(settings)
        self.swaps = Swaps(settings, self.fleet, self.embedder)
        self._refusal: ReckgError | None = None

    def answer(self, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What workers call, on behalf of AdminService."""
        if what == "load_bundle":
            return self.swaps.load(arguments["version"])
        if what == "rollback_bundle":
            return self.swaps.rollback()
        if what == "describe":
            return self.describe()
        raise CallError("UNIMPLEMENTED", f"the supervisor has no {what!r}")

    def describe(self) -> dict[str, Any]:
        return self.fleet.told() | {
            "previous_bundle_version": self.swaps.previous.version if self.swaps.previous else "",
            "uptime_s": time.monotonic() - self.started,
            "last_swap_error": self.swaps.last_error,
        }

    def describe_numbers(self) -> dict[str, float | str]:
        """For /metrics."""
        swaps = {"swap_count": self.swaps.done, "refused_swap_count": self.swaps.failed}
        said: dict[str, float | str] = {"swap_seconds": self.swaps.seconds, "bundle_time": self.swaps.served_since}
        said["bundle_version"] = self.fleet.committed.version
        return self.fleet.told() | swaps | said

    def run(self, address: str) -> None:
        """Until ``stopping`` is set; then drains. Raises ReckgError: the server cannot start."""
        grace_s = 0.0
        try:
            self.metrics.serve(self.describe_numbers)
            self.fleet.start()
            threading.Thread(target=self._verify, daemon=True).start()
            while not self.stopping.is_set() and not self.fleet.is_ready(POLL_S):
                if self._refusal is not None:
                    raise self._refusal
            grace_s = self.settings.grace_s
            if not self.stopping.is_set():
                self._say_ready(address)
                self.embedder.follow(self.fleet.committed)
                if self.settings.watch_s > 0 and is_store(self.settings.bundle):
                    threading.Thread(target=self.swaps.watch, args=(self.stopping,), daemon=True).start()
            self.stopping.wait()
            logger.info("stopping: draining for up to %.1f s", grace_s)
        finally:
            self.stopping.set()
            self.embedder.stop()
            self.fleet.stop(grace_s)
            self.swaps.close()
            self.metrics.close()
        logger.info("stopped")

    def _verify(self) -> None:
        """Verifies the first bundle while the workers load it; they serve it when both are done."""
        try:
            timeout_s, fleet = self.settings.swap_timeout_s, self.fleet
            verify(fleet.committed, timeout_s, nice=False, hashed=fleet.set_hashed)
            fleet.set_verified()
        except ReckgError as error:
            self._refusal = error

    def _say_ready(self, address: str) -> None:
        if not is_loopback(self.settings.host) and self.settings.tls.certificate is None:
            logger.warning("serving beyond this machine at %s, without TLS", address)
        logger.info("ready after %.2f s", time.monotonic() - self.started)
        print(f"reckg serves bundle {self.fleet.committed.version} at {address}", flush=True)


def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT; then drains within the grace and returns.

    Once every worker answers, it prints one line that ends with the address, as ``127.0.0.1:43211``.

    Raises:
        ConfigError: the address cannot be listened at, workers cannot start, or the files of tls or auth are wrong.
        ArtifactError: the bundle is refused; the message names what is wrong.
    """
    log_to_stderr(settings.log.level)
    if settings.tls.certificate is not None:
        check_certificate(settings.tls)
    if settings.auth.tokens is not None:
        read_grants(settings.auth.tokens)
    with SharedPort(settings.host, settings.port) as port:
        supervisor = Supervisor(settings.model_copy(update={"port": port.number}))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stopping.set())
        supervisor.run(port.address)
