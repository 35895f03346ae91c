"""A circuit breaker: a store that is down gets no call for a moment, so that requests do not each wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.store import StateStore, StoredEvent, StoreDownError

PAUSE_S = 1.0
T = TypeVar("T")
Observe = Callable[[str, float, bool], None]


class CircuitBreaker:
    """A state store behind a circuit breaker.

    After a StoreDownError every call raises one at once. After ``pause_s`` one call may try the store again.

    Args:
        store: the store behind the breaker.
        pause_s: seconds between two tries of a store that is down.
        clock: seconds that never go back.
        observe: called after every call of the store with its name, its seconds, and whether it failed.
    """

    def __init__(
        self,
        store: StateStore,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        observe: Observe = lambda name, seconds, failed: None,
    ) -> None:
        self._store, self._pause_s, self._clock, self._observe = store, pause_s, clock, observe
        self._lock = threading.Lock()
        self._closed_until: float | None = None  # None: the store answers

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        return self._guard("record_events", lambda: self._store.record_events(events))

    def user_events(self, user_id: str) -> list[StoredEvent]:
        return self._guard("user_events", lambda: self._store.user_events(user_id))

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        return self._guard("change_catalog", lambda: self._store.change_catalog(changes))

    def catalog_revision(self) -> int:
        return self._guard("catalog_revision", self._store.catalog_revision)

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        return self._guard("catalog_changes", lambda: self._store.catalog_changes(after))

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        self._guard("put_embedded", lambda: self._store.put_embedded(bundle_version, items))

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        return self._guard("embedded", lambda: self._store.embedded(bundle_version, item_ids))

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        self._guard("compact", lambda: self._store.compact(now, keep_bundles))

    def close(self) -> None:
        self._store.close()

    def _guard(self, name: str, call: Callable[[], T]) -> T:
        if self._closed_until is not None:
            with self._lock:
                if self._closed_until is not None:
                    if self._clock() < self._closed_until:
                        raise StoreDownError("the state store did not answer a moment ago")
                    self._closed_until = self._clock() + self._pause_s  # other calls fail while this one tries
        down, failed, began = False, True, self._clock()
        try:
            answer = call()
            failed = False
            return answer
        except StoreDownError:
            down = True
            raise
        finally:
            ended = self._clock()
            self._closed_until = ended + self._pause_s if down else None
            self._observe(name, ended - began, failed)
