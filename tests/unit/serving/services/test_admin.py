"""What DescribeServing says of the catalogue and the state store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reckg.live.changes import CatalogChange
from reckg.recommend.recommender import Recommender
from reckg.v1 import admin_pb2 as pb
from serving.catalog.snapshot import ServingState
from serving.services.admin import AdminService
from serving.settings import ServerSettings
from serving.store import StateStore, StoreDownError
from tests.slow_store import SlowStore
from tests.small_bundle import small_bundle

TOLD = {
    "previous_bundle_version": "test-0",
    "uptime_s": 1.5,
    "ready_worker_count": 1,
    "worker_count": 2,
    "respawn_count": 3,
    "last_swap_error": "",
}


def described(state: ServingState) -> pb.DescribeServingResponse:
    service = AdminService(state, ServerSettings(bundle=Path("b")), lambda *_: TOLD)
    return service.DescribeServing(pb.DescribeServingRequest(), None)  # type: ignore[arg-type]


def served(store: StateStore | None) -> ServingState:
    state, bundle = ServingState(store), small_bundle()
    state.serve(Recommender(replace(bundle, manifest=bundle.manifest | {"created": "2026-01-02T03:04:05+00:00"})))
    return state


def test_the_catalogue_and_the_store_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SlowStore(30, 200, lambda: 1_700_000_000)
    state = served(store)
    assert (described(state).catalog_revision, described(state).store_available) == (0, True)
    store.change_catalog([CatalogChange("i001", "unavailable")])
    state.refresh()
    assert described(state).catalog_revision == 1

    def down(*_: Any) -> Any:
        raise StoreDownError("away")

    monkeypatch.setattr(store, "catalog_revision", down)
    state.refresh()
    response = described(state)
    assert (response.catalog_revision, response.store_available) == (1, False)
    assert (response.bundle_version, response.item_count, response.respawn_count) == ("test-1", 60, 3)
    assert response.uptime.ToMilliseconds() == 1500 and response.bundle_create_time.ToJsonString()[:10] == "2026-01-02"


def test_without_a_store_none_is_available() -> None:
    assert described(served(None)).store_available is False
