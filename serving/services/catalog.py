"""CatalogService: checks changes of the catalogue and stores them for the workers and the embedder."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from reckg.live.changes import CatalogChange, ChangeKind
from reckg.live.rows import item_kinds
from reckg.v1 import catalog_pb2 as pb
from reckg.v1 import catalog_pb2_grpc
from serving.catalog.snapshot import ServingState
from serving.errors import InvalidRequestError, NoStoreError
from serving.services import messages
from serving.services.item_messages import parse_item, unknown_attributes
from serving.store import StateStore

MAX_UPSERTS = 500
MAX_IDS = 1_000


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """The service that changes the catalogue.

    Args:
        state: the served bundle.
        store: the state store; None: every change is refused.
    """

    def __init__(self, state: ServingState, store: StateStore | None) -> None:
        self.state, self.store = state, store

    def UpsertItems(self, request: pb.UpsertItemsRequest, context: grpc.ServicerContext) -> pb.UpsertItemsResponse:
        """Adds or changes items."""
        base = self.state.current.recommender.bundle.built
        if not 1 <= len(request.items) <= MAX_UPSERTS:
            raise InvalidRequestError(f"items must be 1..{MAX_UPSERTS}, got {len(request.items)}")
        messages.check_ids("items.item_id", [item.item_id for item in request.items], MAX_UPSERTS)
        kinds, changes, unknown = item_kinds(base), [], dict[str, None]()
        for place, item in enumerate(request.items):
            row = parse_item(f"items[{place}]", item, kinds)
            if item.item_id in base.item_ids and base.inductive is None:
                unknown_names, has_known = [name for name in row if name not in kinds.all()], True
            else:
                unknown_names, has_known = unknown_attributes(row, base)
            if not has_known and item.item_id not in base.item_ids:
                raise InvalidRequestError(
                    f"items[{place}] must have a text or an attribute value that the bundle knows, got "
                    f"{', '.join(unknown_names) or 'none'}: complete it, or leave it out"
                )
            unknown |= dict.fromkeys(unknown_names)
            changes.append(CatalogChange(item.item_id, "upsert", row))
        return pb.UpsertItemsResponse(catalog_revision=self._store_changes(changes), unknown_attributes=unknown)

    def RemoveItems(self, request: pb.RemoveItemsRequest, context: grpc.ServicerContext) -> pb.RemoveItemsResponse:
        """Removes items."""
        item_ids = messages.check_ids("item_ids", request.item_ids, MAX_IDS)
        revision = self._store_changes([CatalogChange(item_id, "remove") for item_id in item_ids])
        return pb.RemoveItemsResponse(catalog_revision=revision)

    def SetAvailability(
        self, request: pb.SetAvailabilityRequest, context: grpc.ServicerContext
    ) -> pb.SetAvailabilityResponse:
        """Sets whether items may be recommended."""
        item_ids = messages.check_ids("item_ids", request.item_ids, MAX_IDS)
        kind: ChangeKind = "available" if request.available else "unavailable"
        revision = self._store_changes([CatalogChange(item_id, kind) for item_id in item_ids])
        return pb.SetAvailabilityResponse(catalog_revision=revision)

    def _store_changes(self, changes: Sequence[CatalogChange]) -> int:
        """Stores changes and returns their revision. Raises StoreError, NoStoreError."""
        if self.store is None:
            raise NoStoreError('changes need a state store, but the server runs with store.kind = "none"')
        return self.store.change_catalog(changes)
