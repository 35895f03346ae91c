"""The gRPC server of a process, with its services, interceptor and options.

Each worker of `reckg serve` runs one (serving/supervisor/supervisor.py).
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
from serving.services.admin import AdminService, CallSupervisor
from serving.services.catalog import CatalogService
from serving.services.events import EventService
from serving.services.recommender import RecommenderService
from serving.settings import ServerSettings
from serving.store.compaction import Compaction, versions_in
from serving.worker.instruments import Instruments

SWITCH_S = 0.001  # gRPC's thread gets its turn after so long beside threads that compute


@dataclass(frozen=True)
class RunningServer:
    """A server that listens at ``address``. It answers once its state has a bundle and ``set_ready`` was called."""

    address: str
    server: grpc.Server
    health: health.HealthServicer
    state: ServingState
    services: tuple[str, ...]
    interceptor: Interceptor
    compaction: Compaction
    instruments: Instruments

    def ready(self, recommender: Recommender) -> None:
        """Starts to answer from a bundle, and sets the health service to SERVING."""
        self.state.serve(recommender)
        self.set_ready()

    def set_ready(self) -> None:
        """Starts the threads beside the services, and sets the health service to SERVING."""
        self.state.follow()
        self.compaction.start()
        self.instruments.start(self.interceptor)
        for name in ("", *self.services):
            self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """Stops the server.

        Args:
            grace_s: seconds for the calls in flight; then they are cancelled. New calls are refused at once.
        """
        self.health.enter_graceful_shutdown()
        self.compaction.stop()
        self.server.stop(grace_s).wait()
        self.instruments.close()
        self.state.stop()


def make_services(
    state: ServingState, settings: ServerSettings, instruments: Instruments, call_supervisor: CallSupervisor | None
) -> dict[str, Callable[[Any], None]]:
    """Makes the services.

    Args:
        state: the served bundle.
        settings: of the server.
        instruments: experiment and served log.
        call_supervisor: calls the supervisor; None: no AdminService.

    Returns:
        The full name of each service, and a function that adds the service to a server.
    """
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
    if call_supervisor is not None:
        found["reckg.v1.AdminService"] = partial(
            admin_pb2_grpc.add_AdminServiceServicer_to_server, AdminService(state, settings, call_supervisor)
        )
    return found


def start_server(
    settings: ServerSettings | None = None,
    *,
    state: ServingState | None = None,
    call_supervisor: CallSupervisor | None = None,
    share_port: bool = False,
    observe: Observer | None = None,
    instruments: Instruments | None = None,
    **options: Any,
) -> RunningServer:
    """Starts a server that listens but is not ready yet: its health service answers NOT_SERVING.

    Args:
        settings: of the server; default: a free port of this machine, and ``options``.
        state: the served bundle; default: a new state. Calls end with UNAVAILABLE while it has no bundle.
        call_supervisor: calls the supervisor; None: no AdminService.
        share_port: whether other processes may listen at the same port.
        observe: called with every call that ended, and its status; default: metrics and traces.
        instruments: default: opened by the settings.
        options: settings of the top level, if ``settings`` is None.

    Raises:
        ConfigError: another process listens at the address, or the files of tls or auth are wrong.
    """
    settings = settings or ServerSettings(**({"bundle": Path(), "port": 0} | options))
    state = state or ServingState()
    sys.setswitchinterval(SWITCH_S)
    instruments = instruments or Instruments(settings, state)
    interceptor = Interceptor(settings, observe=observe or instruments.observe, initializer=_one_faiss_thread)
    server = grpc.server(
        interceptor.others.pool,  # gRPC needs a pool, although every method runs in the threads of its lane
        interceptors=[interceptor],
        options=[("grpc.so_reuseport", int(share_port)), *server_options(settings.limits)],
    )
    added = make_services(state, settings, instruments, call_supervisor)
    for add in added.values():
        add(server)
    status = health.HealthServicer(experimental_non_blocking=True)  # open streams of Watch hold no thread
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
    """Returns the version of the served bundle without catalogue changes."""
    return state.current.recommender.bundle.built.version


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
    """Gives FAISS one OpenMP thread in the calling thread, because OMP_NUM_THREADS may have been set too late."""
    with contextlib.suppress(ImportError):  # loading a bundle reports how to install it
        import faiss

        faiss.omp_set_num_threads(1)
