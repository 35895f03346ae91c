"""The gRPC server of one process: its services, interceptors and options, put together.

`reckg serve` runs several of them, one in each worker (serving/supervisor/supervisor.py).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reckg.errors import ConfigError
from reckg.recommend.recommender import Recommender
from reckg.v1 import admin_pb2_grpc, catalog_pb2_grpc, event_pb2_grpc, recommender_pb2_grpc
from serving.access.tls import Credentials
from serving.calls.connections import server_options
from serving.calls.interceptor import Interceptor, Observer
from serving.catalog.snapshot import ServingState
from serving.services.admin import AdminService, Ask
from serving.services.catalog import CatalogService
from serving.services.events import EventService
from serving.services.recommender import RecommenderService
from serving.settings import ServerSettings
from serving.store.compaction import Compaction, versions_in
from serving.worker.instruments import Instruments

SWITCH_S = 0.001  # gRPC's thread gets its turn beside those that compute after so long


@dataclass(frozen=True)
class RunningServer:
    """A server that listens at ``address``; it answers once its state has a bundle and ``set_ready`` was called."""

    address: str
    server: grpc.Server
    health: health.HealthServicer
    state: ServingState
    services: tuple[str, ...]
    interceptor: Interceptor
    compaction: Compaction
    instruments: Instruments

    def ready(self, recommender: Recommender) -> None:
        """Starts to answer from a bundle, and says so in the health service."""
        self.state.serve(recommender)
        self.set_ready()

    def set_ready(self) -> None:
        self.state.follow()
        self.compaction.start()
        self.instruments.start(self.interceptor)
        for name in ("", *self.services):
            self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, refuses new calls, waits up to ``grace_s`` for those in flight, then cancels them."""
        self.health.enter_graceful_shutdown()
        self.compaction.stop()
        self.server.stop(grace_s).wait()
        self.instruments.close()
        self.state.stop()


def services(
    state: ServingState, settings: ServerSettings, instruments: Instruments, ask: Ask | None
) -> dict[str, Callable[[Any], None]]:
    """What is served: the service's full name, and what adds it to a server."""
    found: dict[str, Callable[[Any], None]] = {
        "reckg.v1.RecommenderService": partial(
            recommender_pb2_grpc.add_RecommenderServiceServicer_to_server,
            RecommenderService(
                state, settings.limits, state.store, experiment=instruments.experiment, log=instruments.log
            ),
        ),
        "reckg.v1.CatalogService": partial(
            catalog_pb2_grpc.add_CatalogServiceServicer_to_server, CatalogService(state, state.store)
        ),
        "reckg.v1.EventService": partial(
            event_pb2_grpc.add_EventServiceServicer_to_server,
            EventService(state.store, lambda item_id: item_id in state.current.recommender.bundle.item_ids),
        ),
    }
    if ask is not None:
        found["reckg.v1.AdminService"] = partial(
            admin_pb2_grpc.add_AdminServiceServicer_to_server, AdminService(state, settings, ask)
        )
    return found


def start_server(
    settings: ServerSettings | None = None,
    *,
    state: ServingState | None = None,
    ask: Ask | None = None,
    share_port: bool = False,
    observe: Observer | None = None,
    instruments: Instruments | None = None,
    **given: Any,
) -> RunningServer:
    """Listens at the settings' host and port (0: a free one), not ready yet: health is NOT_SERVING.

    Args:
        settings: None: a free port of this machine, and what is ``given``.
        state: what is answered from; calls end with UNAVAILABLE while it has no bundle. Default: a new one.
        ask: calls the supervisor; without it there is no AdminService.
        share_port: other processes may listen there too.
        observe: told of every call that ended, as by Interceptor; default: metrics and traces.
        instruments: default: what the settings say.
    Raises:
        ConfigError: the address cannot be listened at, as when another process does; or the files of tls or auth are
            wrong.
    """
    settings = settings or ServerSettings(**({"bundle": Path(), "port": 0} | given))
    state = state or ServingState()
    sys.setswitchinterval(SWITCH_S)
    instruments = instruments or Instruments(settings, state)
    interceptor = Interceptor(settings, observe=observe or instruments.observe, initializer=_one_faiss_thread)
    server = grpc.server(
        interceptor.others.pool,  # every method has the threads of its lane; gRPC wants some all the same
        interceptors=[interceptor],
        options=[("grpc.so_reuseport", int(share_port)), *server_options(settings.limits)],
    )
    added = services(state, settings, instruments, ask)
    for add in added.values():
        add(server)
    status = health.HealthServicer(experimental_non_blocking=True)  # streams of Watch stay open and hold no thread
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for name in ("", *added):
        status.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    if settings.reflection:
        reflection.enable_server_reflection([*added, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    address = _listen(server, settings)
    server.start()
    compaction = Compaction(state.store, lambda: {_version(state), *versions_in(settings.bundle)})
    return RunningServer(address, server, status, state, tuple(added), interceptor, compaction, instruments)


def _version(state: ServingState) -> str:
    """Of the bundle that is served, as it was before the catalogue changed."""
    bundle = state.current.recommender.bundle
    return (bundle if bundle.base is None else bundle.base).version


def _listen(server: grpc.Server, settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    try:
        if settings.tls.certificate is None:
            return f"{host}:{server.add_insecure_port(address)}"
        return f"{host}:{server.add_secure_port(address, Credentials(settings.tls).for_grpc())}"
    except RuntimeError as error:
        raise ConfigError(f"cannot listen at {address}: {error}; choose another port, or 0 for a free one.") from error


def _one_faiss_thread() -> None:
    """One OpenMP thread for FAISS in the calling thread, where OMP_NUM_THREADS was not set in time."""
    with contextlib.suppress(ImportError):  # loading the bundle tells how to install it
        import faiss

        faiss.omp_set_num_threads(1)
