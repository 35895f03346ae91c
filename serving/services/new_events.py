"""Recorded events of a user that the bundle does not hold yet."""

from __future__ import annotations

from collections.abc import Sequence

from reckg.bundle.bundle import Bundle
from serving.store import StoredEvent


def new_events(bundle: Bundle, user_id: str, events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Selects the events that the user's history in the bundle does not hold, so that no event counts twice.

    A bundle that was trained on recorded events has them as the same item in the same second. In a bundle without times
    (``features.now`` is None) an event is new if its item is new for the user.

    Args:
        bundle: the served bundle.
        user_id: raw id.
        events: recorded events of the user, oldest first.

    Returns:
        The new events, in order.
    """
    user_idx = bundle.user_ids.get(user_id)
    if user_idx is None:
        return list(events)
    history, now = bundle.history, bundle.features.now
    rows = slice(*history.indptr[user_idx : user_idx + 2].tolist())
    times = history.timestamp[rows]
    if not len(times) or (now is not None and all(event.time > times[-1] for event in events)):
        return list(events)
    items = history.item_idx[rows].tolist()
    if now is None:
        held = set(items)
        return [event for event in events if bundle.item_ids.get(event.item_id) not in held]
    dated = set(zip(items, times.tolist(), strict=True))
    return [event for event in events if (bundle.item_ids.get(event.item_id), event.time) not in dated]
