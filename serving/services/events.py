"""EventService: checks events and stores them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import grpc

from reckg.v1 import event_pb2 as pb
from reckg.v1 import event_pb2_grpc
from serving.errors import InvalidRequestError, NoStoreError
from serving.store import StateStore, StoredEvent

MAX_EVENTS = 1_000
MAX_EVENT_ID, MAX_ID, MAX_TYPE, MAX_REQUEST_ID = 128, 256, 64, 128  # characters
AHEAD_S = 86_400  # an event may be so far ahead of the server's clock, because clocks of devices are wrong


class EventService(event_pb2_grpc.EventServiceServicer):
    """The service that stores events durably before it answers.

    Args:
        store: the state store; None: every event is refused.
        knows: returns whether the bundle or the catalog changes hold an item.
        clock: epoch seconds.
    """

    def __init__(
        self, store: StateStore | None, knows: Callable[[str], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self.store, self.knows, self.clock = store, knows, clock

    def RecordEvents(self, request: pb.RecordEventsRequest, context: grpc.ServicerContext) -> pb.RecordEventsResponse:
        """Checks and stores events."""
        if self.store is None:
            raise NoStoreError('events need a state store, but the server runs with store.kind = "none"')
        if not 1 <= len(request.events) <= MAX_EVENTS:
            raise InvalidRequestError(f"events must be 1..{MAX_EVENTS}, got {len(request.events)}")
        now = int(self.clock())
        events = [parse_event(f"events[{place}]", event, now) for place, event in enumerate(request.events)]
        new = self.store.record_events(events)
        recorded = [event for event, is_new in zip(events, new, strict=True) if is_new]
        return pb.RecordEventsResponse(
            recorded_count=len(recorded),
            duplicate_count=len(events) - len(recorded),
            unknown_item_count=sum(not self.knows(event.item_id) for event in recorded),
        )


def parse_event(field: str, event: pb.Event, now: int) -> StoredEvent:
    """Checks an event of a request.

    Args:
        field: place of the event in the request, for messages.
        event: the event.
        now: epoch seconds when the request was received.

    Raises:
        InvalidRequestError: a field is out of range. The message shows no id.
    """
    for name, least, most in (
        ("event_id", 1, MAX_EVENT_ID),
        ("user_id", 1, MAX_ID),
        ("item_id", 1, MAX_ID),
        ("type", 0, MAX_TYPE),
        ("request_id", 0, MAX_REQUEST_ID),
    ):
        length = len(getattr(event, name))
        if not least <= length <= most:
            raise InvalidRequestError(f"{field}.{name} must have {least}..{most} characters, got {length}")
    weight = event.weight or 1.0
    if not (weight > 0 and math.isfinite(weight)):
        raise InvalidRequestError(f"{field}.weight must be finite and above 0, or 0 for 1, got {event.weight}")
    seconds = event.time.seconds if event.HasField("time") else now
    if not 0 <= seconds <= now + AHEAD_S:
        raise InvalidRequestError(f"{field}.time must be from 1970 to a day from now, got {seconds} epoch seconds")
    return StoredEvent(event.event_id, event.user_id, event.item_id, seconds, weight, event.type, event.request_id)
