"""AdminService: swaps and the state of the server, through the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import grpc
from pydantic import BaseModel

from reckg.v1 import admin_pb2 as pb
from reckg.v1 import admin_pb2_grpc
from reckg.version import __version__
from serving.catalog.snapshot import ServingState
from serving.processes.channel import Values
from serving.settings import ServerSettings

CALL_TIMEOUT_S = 5.0  # of the supervisor; for a swap it comes on top of the swap's own limits

CallSupervisor = Callable[..., Values]  # as serving.processes.channel.Channel.call


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """The service for operators.

    Args:
        state: the served bundle.
        settings: of the server.
        call_supervisor: calls the supervisor.
    """

    def __init__(self, state: ServingState, settings: ServerSettings, call_supervisor: CallSupervisor) -> None:
        self.state, self.settings, self.call_supervisor = state, settings, call_supervisor

    def LoadBundle(self, request: pb.LoadBundleRequest, context: grpc.ServicerContext) -> pb.LoadBundleResponse:
        """Serves another version of the bundle store."""
        return pb.LoadBundleResponse(**self._swap("load_bundle", version=request.bundle_version or "latest"))

    def RollbackBundle(
        self, request: pb.RollbackBundleRequest, context: grpc.ServicerContext
    ) -> pb.RollbackBundleResponse:
        """Serves the previous bundle again."""
        return pb.RollbackBundleResponse(**self._swap("rollback_bundle"))

    def DescribeServing(
        self, request: pb.DescribeServingRequest, context: grpc.ServicerContext
    ) -> pb.DescribeServingResponse:
        """Describes server, bundle, workers and settings."""
        supervisor = self.call_supervisor("describe", CALL_TIMEOUT_S)
        served = self.state.current
        bundle = served.recommender.bundle
        response = pb.DescribeServingResponse(
            server_version=__version__,
            bundle_version=bundle.version,
            previous_bundle_version=supervisor["previous_bundle_version"],
            bundle_metrics={
                name: float(value)
                for name, value in bundle.manifest.get("metrics", {}).items()
                if isinstance(value, int | float)
            },
            user_count=len(bundle.user_ids),
            item_count=len(bundle.item_ids),
            catalog_revision=served.catalog_revision,
            store_available=self.state.store is not None and not served.stale_catalog,
            ready_worker_count=supervisor["ready_worker_count"],
            worker_count=supervisor["worker_count"],
            respawn_count=supervisor["respawn_count"],
            last_swap_error=supervisor["last_swap_error"],
            settings=flat_settings(self.settings),
        )
        response.bundle_create_time.FromDatetime(datetime.fromisoformat(bundle.manifest["created"]))
        response.uptime.FromMilliseconds(round(supervisor["uptime_s"] * 1000))
        return response

    def _swap(self, name: str, **arguments: str) -> dict[str, str]:
        return self.call_supervisor(name, 3 * self.settings.swap_timeout_s + CALL_TIMEOUT_S, **arguments)


def flat_settings(section: BaseModel, prefix: str = "") -> dict[str, str]:
    """Flattens settings to texts.

    Args:
        section: the settings.
        prefix: of every name.

    Returns:
        Name in docs/serving.md, as ``limits.max_items``, to value; "" for a setting that is not set.
    """
    found: dict[str, str] = {}
    for name, value in section:
        if isinstance(value, BaseModel):
            found |= flat_settings(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            found[prefix + name] = str([entry.model_dump(mode="json") for entry in value])
        else:
            found[prefix + name] = "" if value is None else str(value)
    return found
