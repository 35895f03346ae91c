"""AdminService: swaps and the state of the server, asked of the supervisor over the control channel."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc
from pydantic import BaseModel

from reckg import __version__
from reckg.v1 import admin_pb2 as pb
from reckg.v1 import admin_pb2_grpc
from serving.catalog.snapshot import ServingState
from serving.settings import ServerSettings

ASK_TIMEOUT_S = 5.0  # beyond what a swap may take

Ask = Callable[..., dict[str, Any]]  # control.Channel.call


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Args: ask: calls the supervisor, as control.Channel.call."""

    def __init__(self, state: ServingState, settings: ServerSettings, ask: Ask) -> None:
        self.state, self.settings, self.ask = state, settings, ask

    def LoadBundle(self, request: pb.LoadBundleRequest, context: grpc.ServicerContext) -> pb.LoadBundleResponse:
        return pb.LoadBundleResponse(**self._swap("load_bundle", version=request.bundle_version or "latest"))

    def RollbackBundle(
        self, request: pb.RollbackBundleRequest, context: grpc.ServicerContext
    ) -> pb.RollbackBundleResponse:
        return pb.RollbackBundleResponse(**self._swap("rollback_bundle"))

    def DescribeServing(
        self, request: pb.DescribeServingRequest, context: grpc.ServicerContext
    ) -> pb.DescribeServingResponse:
        told = self.ask("describe", ASK_TIMEOUT_S)
        served = self.state.current
        bundle = served.recommender.bundle
        response = pb.DescribeServingResponse(
            server_version=__version__,
            bundle_version=bundle.version,
            previous_bundle_version=told["previous_bundle_version"],
            bundle_metrics={
                name: float(value)
                for name, value in bundle.manifest.get("metrics", {}).items()
                if isinstance(value, int | float)
            },
            user_count=len(bundle.user_ids),
            item_count=len(bundle.item_ids),
            catalog_revision=served.catalog_revision,
            store_available=self.state.store is not None and not served.stale_catalog,
            ready_worker_count=told["ready_worker_count"],
            worker_count=told["worker_count"],
            respawn_count=told["respawn_count"],
            last_swap_error=told["last_swap_error"],
            settings=flat_settings(self.settings),
        )
        response.bundle_create_time.FromDatetime(datetime.fromisoformat(bundle.manifest["created"]))
        response.uptime.FromMilliseconds(round(told["uptime_s"] * 1000))
        return response

    def _swap(self, what: str, **arguments: str) -> dict[str, str]:
        return self.ask(what, 3 * self.settings.swap_timeout_s + ASK_TIMEOUT_S, **arguments)


def flat_settings(section: BaseModel, prefix: str = "") -> dict[str, str]:
    """Every setting by its name in docs/serving.md, as ``limits.max_items``; what is not set is empty."""
    found: dict[str, str] = {}
    for name, value in section:
        if isinstance(value, BaseModel):
            found |= flat_settings(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            found[prefix + name] = str([entry.model_dump(mode="json") for entry in value])
        else:
            found[prefix + name] = "" if value is None else str(value)
    return found
