"""A store that is down is not asked again for a moment, so that requests do not each wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from serving.store import CatalogChange, EmbeddedItem, StateStore, StoredEvent, StoreDownError

PAUSE_S = 1.0
T = TypeVar("T")


class Breaker:
    """The store; after a StoreDownError every call raises one at once, until after ``pause_s`` one call may try again.

    clock: seconds that only rise.
    """

    def __init__(
        self, store: StateStore, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._pause_s, self._clock = store, pause_s, clock
        self._lock = threading.Lock()
        self._closed_until: float | None = None  # None: it answers

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        return self._asked(lambda: self._store.record_events(events))

    def user_events(self, user_id: str) -> list[StoredEvent]:
        return self._asked(lambda: self._store.user_events(user_id))

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        return self._asked(lambda: self._store.change_catalog(changes))

    def catalog_revision(self) -> int:
        return self._asked(self._store.catalog_revision)

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        return self._asked(lambda: self._store.catalog_changes(after))

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        self._asked(lambda: self._store.put_embedded(bundle_version, items))

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        return self._asked(lambda: self._store.embedded(bundle_version, item_ids))

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        self._asked(lambda: self._store.compact(now, keep_bundles))

    def close(self) -> None:
        self._store.close()

    def _asked(self, ask: Callable[[], T]) -> T:
        if self._closed_until is not None:
            with self._lock:
                if self._closed_until is not None:
                    if self._clock() < self._closed_until:
                        raise StoreDownError("the state store did not answer a moment ago")
                    self._closed_until = self._clock() + self._pause_s  # the others wait for what this call finds
        down = False
        try:
            return ask()
        except StoreDownError:
            down = True
            raise
        finally:
            self._closed_until = self._clock() + self._pause_s if down else None
