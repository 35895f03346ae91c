"""A store that is down is left alone for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.store import StateStore, StoredEvent, StoreDownError, StoreError
from serving.store.circuit_breaker import CircuitBreaker
from tests.slow_store import SlowStore


class Flaky(SlowStore):
    """Counts its calls and raises what it is told to."""

    def __init__(self) -> None:
        super().__init__(1, 10, lambda: 0.0)
        self.call_count, self.error = 0, None  # type: ignore[var-annotated]
        self.entered: Callable[[], None] = lambda: None

    def user_events(self, user_id: str) -> list[StoredEvent]:
        self.call_count += 1
        self.entered()
        if self.error is not None:
            raise self.error
        return []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_a_failure_calls_fail_at_once_until_one_may_try_again() -> None:
    store, clock = Flaky(), Clock()
    breaker = CircuitBreaker(store, 1.0, clock)
    store.error = StoreDownError("down")
    with pytest.raises(StoreDownError, match=r"^down$"):
        breaker.user_events("u")
    for now in (0.0, 0.5, 0.99):
        clock.now = now
        with pytest.raises(StoreDownError, match="did not answer a moment ago"):
            breaker.user_events("u")
    assert store.call_count == 1
    clock.now = 1.0
    with pytest.raises(StoreDownError, match=r"^down$"):
        breaker.user_events("u")
    clock.now = 1.9
    with pytest.raises(StoreDownError, match="a moment ago"):
        breaker.catalog_revision()
    clock.now, store.error = 2.0, None
    assert breaker.user_events("u") == breaker.user_events("u") == [] and store.call_count == 4


def test_only_one_call_tries_again() -> None:
    store, clock = Flaky(), Clock()
    breaker = CircuitBreaker(store, 1.0, clock)
    store.error = StoreDownError("down")
    with pytest.raises(StoreDownError):
        breaker.user_events("u")
    clock.now, store.error = 5.0, None
    trying, go_on = threading.Event(), threading.Event()
    store.entered = lambda: (trying.set(), go_on.wait(10))  # type: ignore[assignment, func-returns-value]
    thread = threading.Thread(target=breaker.user_events, args=("u",))
    thread.start()
    assert trying.wait(10)
    with pytest.raises(StoreDownError, match="a moment ago"):
        breaker.user_events("u")
    go_on.set()
    thread.join()
    assert breaker.user_events("u") == [] and store.call_count == 3


@pytest.mark.parametrize("error", [StoreError("full"), ValueError("ours")])
def test_a_store_that_answers_is_not_down(error: Exception) -> None:
    store = Flaky()
    breaker = CircuitBreaker(store)
    store.error = error
    for _ in range(3):
        with pytest.raises(type(error), match=str(error)):
            breaker.user_events("u")
    assert store.call_count == 3


def test_every_call_goes_through() -> None:
    breaker: StateStore = CircuitBreaker(SlowStore(1, 10, lambda: 0.0))
    event, change, made = StoredEvent("e", "u", "i", 1), CatalogChange("i", "remove"), EmbeddedItem("i", 1, b"x")
    put: Sequence[object] = [breaker.record_events([event]), breaker.change_catalog([change])]
    breaker.put_embedded("v", [made])
    assert put == [[True], 1] and breaker.user_events("u") == [event] and breaker.catalog_revision() == 1
    assert breaker.catalog_changes() == [CatalogChange("i", "remove", None, 1)]
    assert breaker.embedded("v", ["i"]) == [made]
    breaker.compact(0, [])
    assert breaker.embedded("v", ["i"]) == []
    breaker.close()
