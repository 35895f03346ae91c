"""The state store: events and catalogue changes since the bundle was built, behind one small interface.

Two forms: ``sqlite`` (one machine, any number of processes) and ``redis`` (several machines). What a call stored is
there after it returned, whatever is killed then; a call that raised StoreError stored all of it or nothing, and may be
repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

ChangeKind = Literal["upsert", "remove", "available", "unavailable"]


class StoreError(Exception):
    """The store cannot be reached, is full, or took too long; the message holds no ids."""


class StoreDownError(StoreError):
    """It did not answer, and will hardly answer the next call either."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One interaction. time: epoch seconds, UTC."""

    event_id: str
    user_id: str
    item_id: str
    time: int
    weight: float = 1.0
    type: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """One change of one item. item: of an upsert, column to value (a string, a number or a list of strings).

    revision: rises with every call that stores changes; 0 before it is stored.
    """

    item_id: str
    kind: ChangeKind
    item: Mapping[str, Any] | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddedItem:
    """What a bundle's text encoder and graph made of an upserted item, as bytes; see serving/catalog/embedder.py."""

    item_id: str
    revision: int  # of the upsert that it was made from
    data: bytes


class StateStore(Protocol):
    """Safe to share between threads and, opened once in each, between processes. Every method may raise StoreError."""

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        """Stores events, all or none; those whose id is kept already are left alone. Returns which were new."""
        ...

    def user_events(self, user_id: str) -> list[StoredEvent]:
        """A user's events that are kept, by time, oldest first; those of the same second in the order of storing.

        Kept are those that were stored in the last event_days, and of these the latest events_per_user.
        """
        ...

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        """Stores changes, all or none, under one new revision, which it returns. Of an item the last change counts:
        one of kind upsert or remove, and beside it one of availability, which an upsert leaves alone."""
        ...

    def catalog_revision(self) -> int:
        """The latest revision; 0 where nothing was ever changed. Cheap."""
        ...

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        """What counts at present of the changes with a revision above ``after``, by revision, then item id."""
        ...

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        """Keeps what was embedded; of an item the one of the latest revision."""
        ...

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        """Those of the items that were embedded for this bundle, in any order."""
        ...

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        """Frees the space of events that are kept no more, and of what was embedded for other bundles. Bounded work at
        a time: it never blocks writers for more than about 100 ms. now: epoch seconds."""
        ...

    def close(self) -> None: ...
