"""A state store in memory, for tests. It has the interface's methods only, and can be made silent."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.store import StoredEvent, StoreError


class MemoryStore:
    """down: every call raises StoreError."""

    def __init__(self) -> None:
        self.down = False
        self.events: dict[str, StoredEvent] = {}
        self.changes: dict[tuple[str, bool], CatalogChange] = {}
        self.made: dict[tuple[str, str], EmbeddedItem] = {}
        self.revision = 0
        self._lock = threading.Lock()

    def _check(self) -> None:
        if self.down:
            raise StoreError("the state store does not answer")

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        self._check()
        new = []
        for event in events:
            new.append(event.event_id not in self.events)
            self.events.setdefault(event.event_id, event)
        return new

    def user_events(self, user_id: str) -> list[StoredEvent]:
        self._check()
        return sorted((e for e in self.events.values() if e.user_id == user_id), key=lambda event: event.time)

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        self._check()
        with self._lock:
            for each in changes:
                kept = CatalogChange(each.item_id, each.kind, each.item, self.revision + 1)
                self.changes[each.item_id, each.kind in ("available", "unavailable")] = kept
            self.revision += 1
            return self.revision

    def catalog_revision(self) -> int:
        self._check()
        return self.revision

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        self._check()
        kept = [change for change in self.changes.values() if change.revision > after]
        return sorted(kept, key=lambda change: (change.revision, change.item_id))

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        self._check()
        self.made |= {(bundle_version, item.item_id): item for item in items}

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        self._check()
        return [self.made[bundle_version, each] for each in item_ids if (bundle_version, each) in self.made]

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        self._check()

    def close(self) -> None:
        pass
