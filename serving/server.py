"""The gRPC server of one process: its services, interceptors and options, put together.

`reckg serve` runs several of them, one in each worker (serving/supervisor.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reckg.errors import ConfigError
from reckg.recommend import Recommender
from reckg.v1 import admin_pb2_grpc, catalog_pb2_grpc, recommender_pb2_grpc
from serving.admin_service import AdminService, Ask
from serving.catalog_service import CatalogService
from serving.service import RecommenderService
from serving.serving_state import ServingState
from serving.settings import ServerSettings

MAX_IN_FLIGHT = 256  # running and queued calls; further ones end at once with RESOURCE_EXHAUSTED
CONNECTION_GRACE_MS = 30_000  # calls of a connection that grew too old may take so long


@dataclass(frozen=True)
class RunningServer:
    """A server that listens at ``address``; it answers once its state has a bundle and ``set_ready`` was called."""

    address: str
    server: grpc.Server
    health: health.HealthServicer
    state: ServingState
    services: tuple[str, ...]

    def ready(self, recommender: Recommender) -> None:
        """Starts to answer from a bundle, and says so in the health service."""
        self.state.serve(recommender)
        self.set_ready()

    def set_ready(self) -> None:
        self.state.follow()
        for name in ("", *self.services):
            self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, refuses new calls, waits up to ``grace_s`` for those in flight, then cancels them."""
        self.health.enter_graceful_shutdown()
        self.server.stop(grace_s).wait()
        self.state.stop()


def services(state: ServingState, settings: ServerSettings, ask: Ask | None) -> dict[str, Callable[[Any], None]]:
    """What is served: the service's full name, and what adds it to a server."""
    found: dict[str, Callable[[Any], None]] = {
        "reckg.v1.RecommenderService": partial(
            recommender_pb2_grpc.add_RecommenderServiceServicer_to_server,
            RecommenderService(state, settings.limits, state.store),
        ),
        "reckg.v1.CatalogService": partial(
            catalog_pb2_grpc.add_CatalogServiceServicer_to_server, CatalogService(state, state.store)
        ),
    }
    if ask is not None:
        found["reckg.v1.AdminService"] = partial(
            admin_pb2_grpc.add_AdminServiceServicer_to_server, AdminService(state, settings, ask)
        )
    return found


def interceptors(settings: ServerSettings) -> list[grpc.ServerInterceptor]:
    """What every call passes, outermost first."""
    return []


def start_server(
    settings: ServerSettings | None = None,
    *,
    state: ServingState | None = None,
    ask: Ask | None = None,
    share_port: bool = False,
    **given: Any,
) -> RunningServer:
    """Listens at the settings' host and port (0: a free one), not ready yet: health is NOT_SERVING.

    Args:
        settings: None: a free port of this machine, and what is ``given``.
        state: what is answered from; calls end with UNAVAILABLE while it has no bundle. Default: a new one.
        ask: calls the supervisor; without it there is no AdminService.
        share_port: other processes may listen there too.
    Raises:
        ConfigError: the address cannot be listened at, as when another process does.
    """
    settings = settings or ServerSettings(**({"bundle": Path(), "port": 0} | given))
    state = state or ServingState()
    server = grpc.server(
        ThreadPoolExecutor(settings.threads, thread_name_prefix="request", initializer=_one_faiss_thread),
        interceptors=interceptors(settings),
        maximum_concurrent_rpcs=MAX_IN_FLIGHT,
        options=[
            ("grpc.so_reuseport", int(share_port)),
            ("grpc.max_receive_message_length", settings.limits.max_request_bytes),
            ("grpc.max_connection_age_ms", int(settings.limits.max_connection_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
        ],
    )
    added = services(state, settings, ask)
    for add in added.values():
        add(server)
    # Watch streams stay open: they must not hold the threads that answer requests.
    watchers = ThreadPoolExecutor(1, thread_name_prefix="health")
    status = health.HealthServicer(experimental_non_blocking=True, experimental_thread_pool=watchers)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for name in ("", *added):
        status.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    if settings.reflection:
        reflection.enable_server_reflection([*added, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    address = _listen(server, settings)
    server.start()
    return RunningServer(address, server, status, state, tuple(added))


def _listen(server: grpc.Server, settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        return f"{host}:{server.add_insecure_port(f'{host}:{settings.port}')}"
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen at {host}:{settings.port}: {error}; choose another port, or 0 for a free one."
        ) from error


def _one_faiss_thread() -> None:
    """One OpenMP thread for FAISS in the calling thread, where OMP_NUM_THREADS was not set in time."""
    with contextlib.suppress(ImportError):  # loading the bundle tells how to install it
        import faiss

        faiss.omp_set_num_threads(1)
