"""The state store: events and catalogue changes since the bundle was built, behind one small interface.

There are two stores: ``sqlite`` (one machine, any number of processes) and ``redis`` (several machines). After a call
returned, its data survive the end of any process. A call that raised StoreError stored all of its data or none, and may
be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reckg.live.changes import CatalogChange, EmbeddedItem


class StoreError(Exception):
    """The store cannot be reached, is full, or took too long. The message holds no ids."""


class StoreDownError(StoreError):
    """The store did not answer, and will hardly answer the next call."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One interaction. ``time`` is in epoch seconds, UTC."""

    event_id: str
    user_id: str
    item_id: str
    time: int
    weight: float = 1.0
    type: str = ""
    request_id: str = ""


class StateStore(Protocol):
    """A state store. Threads may share it; processes open it once each. Every method may raise StoreError."""

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        """Stores events, all or none. An event whose id is stored already is left alone.

        Args:
            events: events in any order.

        Returns:
            For each event, whether it was new.
        """
        ...

    def user_events(self, user_id: str) -> list[StoredEvent]:
        """Returns a user's events by time, oldest first, and within a second in the order of storing.

        The store keeps events for event_days, and the latest events_per_user of each user.

        Args:
            user_id: raw id.
        """
        ...

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        """Stores changes, all or none, under one new revision, and returns the revision.

        The last upsert or removal of an item counts. The last change of its availability counts beside it, and an
        upsert leaves it alone.

        Args:
            changes: applied in order; their ``revision`` is ignored.
        """
        ...

    def catalog_revision(self) -> int:
        """Returns the latest revision, or 0 before the first change. Cheap."""
        ...

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        """Returns the changes in force, by revision, then item id.

        Args:
            after: only changes with a higher revision are returned.
        """
        ...

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        """Stores embedded items. The one with the latest revision of an item stays.

        Args:
            bundle_version: of the bundle that embedded the items.
            items: the embedded items.
        """
        ...

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        """Returns stored embedded items in any order.

        Args:
            bundle_version: of the bundle that embedded the items.
            item_ids: raw ids of the wanted items.
        """
        ...

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        """Frees the space of old events, and of items embedded for other bundles.

        It works in steps and never blocks writers for more than about 100 ms.

        Args:
            now: epoch seconds.
            keep_bundles: versions of the bundles whose embedded items stay.
        """
        ...

    def close(self) -> None:
        """Closes all connections."""
        ...
