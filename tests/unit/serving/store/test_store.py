"""What the state store promises, asked of both its forms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.settings import StoreSettings
from serving.store import StateStore, StoredEvent, StoreError
from serving.store.redis import RedisStore
from serving.store.sqlite import SqliteStore
from tests.slow_store import SlowStore

DAY, NOW = 86_400, 1_700_000_000
DAYS, PER_USER = 2.0, 4
Make = Callable[..., StateStore]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Make]:
    """Opens the same store again and again, or with ``where`` another one."""
    opened: list[StateStore] = []
    names: dict[str, str] = {}

    def one(where: str = "", **changed: Any) -> StateStore:
        name = names.setdefault(where, uuid4().hex)
        kept = {"event_days": DAYS, "events_per_user": PER_USER, "timeout_ms": 10_000, "write_timeout_ms": 10_000}
        chosen = StoreSettings(namespace=name, **kept | changed)
        store: StateStore
        if request.param == "sqlite":
            store = SqliteStore(tmp_path / f"{name}.db", chosen, clock)
        else:
            store = RedisStore(request.getfixturevalue("redis_server").url, chosen, clock)
        opened.append(store)
        return store

    yield one
    for store in opened:
        store.close()


def event(event_id: str, user_id: str = "u", time: int = NOW, **more: Any) -> StoredEvent:
    return StoredEvent(event_id, user_id, f"item of {event_id}", time, **more)


def ids(events: list[StoredEvent]) -> str:
    return " ".join(event.event_id for event in events)


def test_events_come_back_whole_by_time_and_then_in_the_order_of_storing(make: Make) -> None:
    store = make(events_per_user=20)
    odd = StoredEvent("\x00é\u2028\n", "ü ser:*", "it'em\x00\"\\", 5, 0.1, "buy\r\n", "req 🂡")
    assert store.record_events([odd, replace(odd, event_id="2", time=NOW + 7, weight=2.5)]) == [True, True]
    assert store.user_events(odd.user_id) == [odd, replace(odd, event_id="2", time=NOW + 7, weight=2.5)]
    assert store.record_events([event("d", time=9), event("c", time=7), event("z", time=7)]) == [True] * 3
    assert store.record_events([event("a", time=7), event("b", time=8), *(event(f"n{n}", time=9) for n in range(12))])
    order = "c z a b d n0 n1 n2 n3 n4 n5 n6 n7 n8 n9 n10 n11"
    assert ids(store.user_events("u")) == ids(make(events_per_user=20).user_events("u")) == order
    assert store.user_events("nobody") == [] and store.record_events([]) == []


def test_an_event_is_stored_once(make: Make) -> None:
    store = make()
    assert store.record_events([event("a"), event("b"), event("a", time=5)]) == [True, True, False]
    assert store.record_events([event("b", "another"), event("c")]) == [False, True]
    assert make().record_events([event("c"), event("b")]) == [False, False]
    assert store.user_events("u") == [event("a"), event("b"), event("c")] and store.user_events("another") == []


def test_events_beyond_their_number_or_days_are_not_returned_before_any_compaction(make: Make, clock: Clock) -> None:
    store = make()
    store.record_events([event(name, time=n) for n, name in enumerate("abcdef")])
    assert ids(store.user_events("u")) == "c d e f"
    assert store.record_events([event("late", time=0)]) == [True]  # older than all that are kept
    assert ids(store.user_events("u")) == "c d e f"
    clock.now += DAY
    store.record_events([event("g", time=1)])  # and again
    store.record_events([event("h", time=9)])
    assert ids(store.user_events("u")) == "d e f h"
    clock.now += int(DAY * 1.5)
    assert ids(store.user_events("u")) == "h"
    assert store.record_events([event("d", time=3), event("h", time=9)]) == [True, False]
    assert ids(store.user_events("u")) == "d h"


def test_a_number_that_is_lowered_holds_at_once_and_is_compacted(make: Make) -> None:
    make().record_events([event(name, user, n) for n, name in enumerate("abc") for user in ("u",)])
    lowered = make(events_per_user=2)
    assert ids(lowered.user_events("u")) == "b c"
    lowered.compact(NOW, [])
    assert ids(make(events_per_user=4).user_events("u")) == "b c"
    lowered.compact(NOW, [])


def test_all_of_a_call_is_stored_or_none(make: Make) -> None:
    store = make()
    with pytest.raises((StoreError, ValueError)):
        store.record_events([event("a"), event("b", weight=float("nan")), event("c")])
    assert store.user_events("u") == []
    with pytest.raises(TypeError):
        store.change_catalog([CatalogChange("i1", "remove"), CatalogChange("i2", "upsert", {"title": object()})])
    assert (store.catalog_revision(), store.catalog_changes()) == (0, [])
    assert store.record_events([event("a")]) == [True] and store.change_catalog([CatalogChange("i1", "remove")]) == 1


def test_of_an_item_the_last_change_and_its_availability_count(make: Make) -> None:
    store = make()
    assert (store.catalog_revision(), store.change_catalog([]), store.catalog_changes()) == (0, 0, [])
    first = {"title": "é", "price": 2.5, "genres": ["x", "y"], "none": None}
    assert store.change_catalog([CatalogChange("b", "upsert", first), CatalogChange("a", "unavailable")]) == 1
    assert store.change_catalog([CatalogChange("a", "upsert", {}), CatalogChange("a", "upsert", {"price": 1})]) == 2
    other = make()
    assert other.catalog_revision() == 2
    now = [
        CatalogChange("a", "unavailable", None, 1),
        CatalogChange("b", "upsert", first, 1),
        CatalogChange("a", "upsert", {"price": 1}, 2),
    ]
    assert (other.catalog_changes(), other.catalog_changes(1), other.catalog_changes(2)) == (now, now[2:], [])
    store.change_catalog([CatalogChange("a", "available"), CatalogChange("a", "remove"), CatalogChange("b", "remove")])
    later = [
        CatalogChange("a", "remove", None, 3),
        CatalogChange("a", "available", None, 3),
        CatalogChange("b", "remove", None, 3),
    ]
    assert store.catalog_changes() == store.catalog_changes(2) == later


def test_what_was_embedded_is_kept_for_bundles_that_are_served(make: Make) -> None:
    store = make()
    made = [EmbeddedItem("a", 3, b"\x00 1 \xff"), EmbeddedItem("b", 10, b"")]
    store.put_embedded("v1", made)
    store.put_embedded("v1", [EmbeddedItem("a", 2, b"older"), EmbeddedItem("b", 11, b"newer")])
    store.put_embedded("v2", made[:1])
    store.put_embedded("v3", [])
    found = sorted(make().embedded("v1", ["b", "a", "c"]), key=lambda item: item.item_id)
    assert found == [made[0], EmbeddedItem("b", 11, b"newer")] and store.embedded("v1", ["c"]) == []
    store.compact(NOW, ["v2", "v9"])
    assert (store.embedded("v1", ["a", "b"]), store.embedded("v2", ["a"])) == ([], made[:1])


def test_threads_may_share_a_store_and_each_has_its_own_turn(make: Make) -> None:
    store, failed = make(events_per_user=1000), []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                own = [event(f"{number} {turn} {n}") for n in range(5)]
                assert store.record_events([*own, event(f"of all {turn}")])[:5] == [True] * 5
                assert {e.event_id for e in own} <= {e.event_id for e in store.user_events("u")}
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(store.user_events("u")) == 4 * 8 * 5 + 8


EVENTS = st.lists(
    st.builds(
        StoredEvent,
        event_id=st.sampled_from("abcdefghij"),
        user_id=st.sampled_from("uv"),
        item_id=st.sampled_from(["x", "yé"]),
        time=st.integers(NOW - 3, NOW + 3),
        weight=st.sampled_from([1.0, 0.5]),
    ),
    max_size=8,
)
CHANGES = st.lists(
    st.builds(
        CatalogChange,
        item_id=st.sampled_from("xyz"),
        kind=st.sampled_from(["upsert", "remove", "available", "unavailable"]),
        item=st.none() | st.just({"title": "t"}),
    ),
    max_size=4,
)
MADE = st.lists(
    st.builds(EmbeddedItem, item_id=st.sampled_from("xyz"), revision=st.integers(1, 12), data=st.binary(max_size=3)),
    max_size=3,
)
VERSIONS = st.sampled_from(["v1", "v2"])
STEPS = st.one_of(
    st.tuples(st.just("record_events"), EVENTS),
    st.tuples(st.just("change_catalog"), CHANGES),
    st.tuples(st.just("put_embedded"), VERSIONS, MADE),
    st.tuples(st.just("compact"), st.lists(VERSIONS)),
    st.tuples(st.just("wait"), st.integers(1, 2 * DAY)),
)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=4, max_size=12))
def test_any_sequence_of_calls_equals_a_store_of_lists(make: Make, clock: Clock, steps: list[tuple[Any, ...]]) -> None:
    clock.now = NOW
    store, slow = make(uuid4().hex), SlowStore(DAYS, PER_USER, clock)
    for name, *arguments in steps:
        if name == "wait":
            clock.now += arguments[0]
        else:
            arguments = [clock.now, *arguments] if name == "compact" else arguments
            assert getattr(store, name)(*arguments) == getattr(slow, name)(*arguments), name
        for user_id in "uv":
            assert store.user_events(user_id) == slow.user_events(user_id)
        for after in range(slow.revision + 1):
            assert store.catalog_changes(after) == slow.catalog_changes(after)
        for version in ("v1", "v2"):
            found, expected = (sorted(s.embedded(version, "xyz"), key=repr) for s in (store, slow))
            assert found == expected
    store.close()


def test_compaction_frees_what_is_kept_no_more(make: Make, clock: Clock) -> None:
    store = make()
    store.record_events([event(f"{n}", f"u{n % 700}") for n in range(1400)])
    store.put_embedded("v1", [EmbeddedItem(f"i{n}", 1, b"x") for n in range(600)])
    clock.now += 3 * DAY
    store.record_events([event("new", "u1")])
    store.compact(clock.now, [])
    assert ids(store.user_events("u1")) == "new" and store.embedded("v1", ["i1"]) == []
    if isinstance(store, SqliteStore):
        with store._connection() as connection:
            left = {
                name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in ("events", "embedded")
            }
        assert left == {"events": 1, "embedded": 0}
    if isinstance(store, RedisStore):  # events go by themselves
        keys = list(store._reader.scan_iter(f"{store._prefix}*"))
        lasting = [key for key in keys if store._reader.ttl(key) == -1]
        assert len(lasting) == 2 and len(keys) == 1400 + 4
        assert all(store._reader.ttl(key) <= DAYS * DAY for key in keys[:50])
