"""The process of `reckg serve`, which owns the port, the workers and the swaps.

It starts workers by exec, which share the port and the mapped bundle, and replaces workers that end. It verifies
bundles in another process, and drains everything on SIGTERM. It imports nothing heavy and answers no client itself.
"""

from __future__ import annotations

import logging
import signal
import threading
import time

from reckg.errors import ReckgError
from serving.access.certificate import check_certificate
from serving.access.tokens import read_grants
from serving.monitoring.logs import log_to_stderr
from serving.processes.channel import CallError, Values
from serving.processes.signals import stop_on_signal
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
    """The supervisor of a server.

    Args:
        settings: of the server, with the port that the workers share.

    Raises:
        ReckgError: the bundle has no readable manifest, or a variant names an unknown version.
    """

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

    def answer(self, name: str, arguments: Values) -> Values:
        """Answers a worker's call for AdminService.

        Args:
            name: "load_bundle", "rollback_bundle" or "describe".
            arguments: of the call.

        Raises:
            CallError: the swap is refused, or the name is unknown.
        """
        if name == "load_bundle":
            return self.swaps.load(arguments["version"])
        if name == "rollback_bundle":
            return self.swaps.rollback()
        if name == "describe":
            return self.describe()
        raise CallError("UNIMPLEMENTED", f"the supervisor has no {name!r}")

    def describe(self) -> Values:
        """Returns the figures for DescribeServing."""
        return self.fleet.worker_counts() | {
            "previous_bundle_version": self.swaps.previous.version if self.swaps.previous else "",
            "uptime_s": time.monotonic() - self.started,
            "last_swap_error": self.swaps.last_error,
        }

    def describe_numbers(self) -> dict[str, float | str]:
        """Returns the figures for /metrics."""
        swaps = {"swap_count": self.swaps.done, "refused_swap_count": self.swaps.failed}
        bundle: dict[str, float | str] = {"swap_seconds": self.swaps.seconds, "bundle_time": self.swaps.served_since}
        bundle["bundle_version"] = self.fleet.committed.version
        return self.fleet.worker_counts() | swaps | bundle

    def run(self, address: str) -> None:
        """Runs until ``stopping`` is set, and then drains.

        Args:
            address: ``host:port`` of the server, for the line that it prints.

        Raises:
            ReckgError: the server cannot start.
        """
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
                self._announce(address)
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
        """Verifies the first bundle while the workers load it. They serve it after both."""
        try:
            timeout_s, fleet = self.settings.swap_timeout_s, self.fleet
            verify(fleet.committed, timeout_s, nice=False, hashed=fleet.set_hashed)
            fleet.set_verified()
        except ReckgError as error:
            self._refusal = error

    def _announce(self, address: str) -> None:
        if not is_loopback(self.settings.host) and self.settings.tls.certificate is None:
            logger.warning("serving beyond this machine at %s, without TLS", address)
        logger.info("ready after %.2f s", time.monotonic() - self.started)
        print(f"reckg serves bundle {self.fleet.committed.version} at {address}", flush=True)


def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, and then drains within ``grace_s`` and returns.

    Once every worker answers, it prints one line that ends with the address, as ``127.0.0.1:43211``.

    Args:
        settings: of the server.

    Raises:
        ConfigError: the address is not free, workers cannot start, or the files of tls or auth are wrong.
        ArtifactError: the bundle is refused; the message names the reason.
    """
    log_to_stderr(settings.log.level)
    if settings.tls.certificate is not None:
        check_certificate(settings.tls)
    if settings.auth.tokens is not None:
        read_grants(settings.auth.tokens)
    with SharedPort(settings.host, settings.port) as port:
        supervisor = Supervisor(settings.model_copy(update={"port": port.number}))
        stop_on_signal(supervisor.stopping.set, signal.SIGTERM, signal.SIGINT)
        supervisor.run(port.address)
