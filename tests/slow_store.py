"""A state store of Python lists, the reference for both stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.store import StoredEvent


class SlowStore:
    def __init__(self, event_days: float, events_per_user: int, clock: Callable[[], float]) -> None:
        self.days, self.per_user, self.clock = event_days, events_per_user, clock
        self.events: list[tuple[float, StoredEvent]] = []  # when it was stored; in the order of storing
        self.changes: dict[tuple[str, bool], CatalogChange] = {}
        self.revision = 0
        self.made: dict[tuple[str, str], EmbeddedItem] = {}

    def fresh(self) -> list[tuple[float, StoredEvent]]:
        return [(stored, event) for stored, event in self.events if stored >= self.clock() - self.days * 86_400]

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        new = []
        for event in events:
            new.append(all(event.event_id != kept.event_id for _, kept in self.fresh()))
            if new[-1]:
                self.events = [row for row in self.events if row[1].event_id != event.event_id]
                self.events.append((self.clock(), event))
        for user_id in {event.user_id for event, is_new in zip(events, new, strict=True) if is_new}:
            kept = self.user_events(user_id)
            self.events = [(s, e) for s, e in self.events if e.user_id != user_id or e in kept]
        return new

    def user_events(self, user_id: str) -> list[StoredEvent]:
        own = [event for _, event in self.fresh() if event.user_id == user_id]
        return sorted(own, key=lambda event: event.time)[-self.per_user :]

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        self.revision += bool(changes)
        for c in changes:
            of_availability = c.kind in ("available", "unavailable")
            self.changes[c.item_id, of_availability] = CatalogChange(c.item_id, c.kind, c.item, self.revision)
        return self.revision

    def catalog_revision(self) -> int:
        return self.revision

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        rows = [(change.revision, *key, change) for key, change in self.changes.items() if change.revision > after]
        return [row[-1] for row in sorted(rows, key=lambda row: row[:3])]

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        for item in items:
            held = self.made.get((bundle_version, item.item_id))
            if held is None or held.revision <= item.revision:
                self.made[bundle_version, item.item_id] = item

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        return [
            item for (version, item_id), item in self.made.items() if version == bundle_version and item_id in item_ids
        ]

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        self.events = self.fresh()
        self.made = {key: item for key, item in self.made.items() if key[0] in keep_bundles}

    def close(self) -> None:
        pass
