"""RecordEvents: what is checked, stored, counted and refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from reckg.v1 import event_pb2 as pb
from serving.calls.status import status_of
from serving.services.events import EventService
from serving.store import StoredEvent, StoreDownError, StoreError
from tests.slow_store import SlowStore

NOW = 1_700_000_000
KNOWN = {"i1", "i2"}


@pytest.fixture
def store() -> SlowStore:
    return SlowStore(30, 200, lambda: NOW)


def service(store: Any) -> EventService:
    return EventService(store, KNOWN.__contains__, lambda: NOW + 0.9)


def event(event_id: str = "e1", **given: Any) -> pb.Event:
    return pb.Event(**{"event_id": event_id, "user_id": "u", "item_id": "i1", **given})


def record(store: Any, *events: pb.Event) -> tuple[int, int, int]:
    answer = service(store).RecordEvents(pb.RecordEventsRequest(events=events), None)
    return answer.recorded_count, answer.duplicate_count, answer.unknown_item_count


def refused(store: Any, *events: pb.Event) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(Exception) as raised:
        service(store).RecordEvents(pb.RecordEventsRequest(events=events), None)
    return status_of(raised.value, "RecordEvents")  # type: ignore[arg-type]


def test_events_are_stored_as_they_were_sent_with_the_servers_time_where_they_have_none(store: SlowStore) -> None:
    whole = event(
        "e2", item_id="i2", time=Timestamp(seconds=NOW - 5, nanos=999_999_999), type="buy", weight=2.5, request_id="r"
    )
    assert record(store, event(), whole, event("e3", user_id="v", time=Timestamp(seconds=NOW + 86_400))) == (3, 0, 0)
    assert store.user_events("u") == [
        StoredEvent("e2", "u", "i2", NOW - 5, 2.5, "buy", "r"),
        StoredEvent("e1", "u", "i1", NOW, 1.0, "", ""),
    ]
    assert [kept.time for kept in store.user_events("v")] == [NOW + 86_400]
    assert record(store, event("e4", time=Timestamp())) == (1, 0, 0) and store.user_events("u")[0].time == 0


def test_repetitions_and_unknown_items_are_counted(store: SlowStore) -> None:
    assert record(store, event(), event("e2", item_id="gone"), event(), event("e2", item_id="gone")) == (2, 2, 1)
    assert record(store, event("e2", item_id="gone"), event("e3", item_id="gone")) == (1, 1, 1)
    assert len(store.user_events("u")) == 3
    assert record(store, *(event(f"n{n}") for n in range(1_000))) == (1_000, 0, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"event_id": ""}, "events[1].event_id must have 1..128 characters, got 0"),
        ({"event_id": "x" * 129}, "events[1].event_id must have 1..128 characters, got 129"),
        ({"user_id": ""}, "events[1].user_id must have 1..256 characters, got 0"),
        ({"user_id": "é" * 257}, "events[1].user_id must have 1..256 characters, got 257"),
        ({"item_id": ""}, "events[1].item_id must have 1..256 characters, got 0"),
        ({"type": "x" * 65}, "events[1].type must have 0..64 characters, got 65"),
        ({"request_id": "x" * 129}, "events[1].request_id must have 0..128 characters, got 129"),
        ({"weight": -1.5}, "events[1].weight must be finite and above 0, or 0 for 1, got -1.5"),
        ({"weight": float("nan")}, "events[1].weight must be finite and above 0, or 0 for 1, got nan"),
        ({"weight": float("inf")}, "events[1].weight must be finite and above 0, or 0 for 1, got inf"),
        (
            {"time": Timestamp(seconds=NOW + 86_401)},
            f"events[1].time must be from 1970 to a day from now, got {NOW + 86_401} epoch seconds",
        ),
        ({"time": Timestamp(seconds=-1)}, "events[1].time must be from 1970 to a day from now, got -1 epoch seconds"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(store: SlowStore, given: dict[str, Any], message: str) -> None:
    assert refused(store, event(), event(**{"event_id": "e2", **given})) == (grpc.StatusCode.INVALID_ARGUMENT, message)
    assert store.events == []
    longest = event("x" * 128, user_id="é" * 256, item_id="i" * 256, type="t" * 64, request_id="r" * 128)
    assert record(store, longest) == (1, 0, 1)


def test_the_number_of_events_is_limited(store: SlowStore) -> None:
    for n in (0, 1_001):
        expected = grpc.StatusCode.INVALID_ARGUMENT, f"events must be 1..1000, got {n}"
        assert refused(store, *(event(f"e{number}") for number in range(n))) == expected
    assert store.events == []


@pytest.mark.parametrize("error", [StoreDownError, StoreError])
def test_a_store_that_fails_is_unavailable(store: SlowStore, error: type[StoreError]) -> None:
    class Failing(SlowStore):
        def record_events(self, events: object) -> list[bool]:
            raise error("the state store is full")

    expected = grpc.StatusCode.UNAVAILABLE, "the state store is full; try again"
    assert refused(Failing(1, 1, lambda: 0), event()) == expected
    code, message = refused(None, event())
    assert (code, "events need a state store" in message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
