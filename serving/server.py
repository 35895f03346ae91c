"""The server process: one bundle behind gRPC, with health and reflection, drained on SIGTERM.

    python -m serving.server run/bundle --port 50051

Each process answers with one core's worth of native threads: more processes, not more threads, use more cores.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reckg.errors import ConfigError, ReckgError

if TYPE_CHECKING:
    from reckg.recommend import Recommender
    from serving.service import RecommenderService

SERVICE = "reckg.v1.RecommenderService"
THREADS = 4
MAX_IN_FLIGHT = 256  # running and queued calls; further ones end at once with RESOURCE_EXHAUSTED
MAX_REQUEST_BYTES = 64 * 1024
GRACE_S = 10.0

logger = logging.getLogger("reckg.serving")


@dataclass(frozen=True)
class RunningServer:
    """A server that listens at ``address``; it answers once ``ready`` was called."""

    address: str
    server: grpc.Server
    health: health.HealthServicer
    service: RecommenderService

    def ready(self, recommender: Recommender) -> None:
        """Starts to answer from a bundle, and says so in the health service."""
        self.service.recommender = recommender
        for name in ("", SERVICE):
            self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Says NOT_SERVING, refuses new calls, waits up to ``grace_s`` for those in flight, then cancels them."""
        self.health.enter_graceful_shutdown()
        self.server.stop(grace_s).wait()


def start_server(
    host: str = "127.0.0.1", port: int = 0, *, threads: int = THREADS, reflect: bool = True
) -> RunningServer:
    """Listens at ``host:port`` (port 0: a free one), not ready yet: health is NOT_SERVING, calls end UNAVAILABLE.

    Raises:
        ConfigError: the address cannot be listened at, as when another process does.
    """
    _one_native_thread()
    from reckg.v1 import recommender_pb2_grpc
    from serving.service import RecommenderService

    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="request", initializer=_one_faiss_thread),
        maximum_concurrent_rpcs=MAX_IN_FLIGHT,
        options=[
            ("grpc.so_reuseport", 0),  # two servers at one port would otherwise share it silently
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ],
    )
    service = RecommenderService()
    recommender_pb2_grpc.add_RecommenderServiceServicer_to_server(service, server)
    # Watch streams stay open: they must not hold the threads that answer requests.
    watchers = ThreadPoolExecutor(1, thread_name_prefix="health")
    status = health.HealthServicer(experimental_non_blocking=True, experimental_thread_pool=watchers)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for name in ("", SERVICE):
        status.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    if reflect:
        reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    shown_host = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{shown_host}:{port}")
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen at {shown_host}:{port}: {error}; choose another port, or 0 for a free one."
        ) from error
    server.start()
    return RunningServer(f"{shown_host}:{bound}", server, status, service)


def serve(
    bundle_path: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    threads: int = THREADS,
    grace_s: float = GRACE_S,
    reflect: bool = True,
    verify: bool = True,
) -> None:
    """Serves a bundle until SIGTERM or SIGINT; then drains within ``grace_s`` and returns.

    Once it answers, it prints one line that ends with the address, as ``127.0.0.1:43211``.

    Raises:
        ConfigError: the address cannot be listened at.
        ArtifactError: the bundle cannot be loaded; the message names what is wrong.
    """
    started = time.perf_counter()
    asked_to_stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked_to_stop.set())
    running = start_server(host, port, threads=threads, reflect=reflect)
    try:
        import reckg

        recommender = reckg.load(bundle_path, verify=verify)
        bundle = recommender.bundle
        if bundle.ranker is not None:
            bundle.ranker.compile()
        running.ready(recommender)
        if not _is_loopback(host):
            logger.warning("serving beyond this machine at %s, without TLS or authentication", running.address)
        logger.info("ready after %.2f s", time.perf_counter() - started)
        print(f"reckg serves bundle {bundle.version} at {running.address}", flush=True)
        asked_to_stop.wait()
        logger.info("stopping: draining for up to %.1f s", grace_s)
    finally:
        running.stop(grace_s)
    logger.info("stopped")


def _one_native_thread() -> None:
    """Keeps OpenMP and BLAS from starting a thread per core in every request; effective before they are loaded."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def _one_faiss_thread() -> None:
    """The same for FAISS in the calling thread, where the variables came too late."""
    with contextlib.suppress(ImportError):  # loading the bundle tells how to install it
        import faiss

        faiss.omp_set_num_threads(1)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def log_to_stderr() -> None:
    """The log of a server process; what it says holds no user ids."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it reports every way of loading that it tries


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Serve a bundle over gRPC.")
    parser.add_argument("bundle", type=Path, help="the bundle's folder, as run/bundle")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50051, help="0: a free one, printed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=THREADS, help="requests answered at once (default: %(default)s)")
    parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds to drain (default: %(default)s)")
    options = parser.parse_args(arguments)
    log_to_stderr()
    try:
        serve(options.bundle, options.host, options.port, threads=options.threads, grace_s=options.grace)
    except ReckgError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
