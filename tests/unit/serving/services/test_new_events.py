"""Events that a bundle was trained on do not count twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reckg.bundle.bundle import Bundle
from serving.services.new_events import new_events
from serving.store import StoredEvent
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle(ranked=False)


def event(item_id: str, time: int, user_id: str = "u004") -> StoredEvent:
    return StoredEvent(f"{item_id}@{time}", user_id, item_id, time)


def test_what_the_history_holds_is_left_out(bundle: Bundle) -> None:
    rows = slice(*bundle.history.indptr[4:6].tolist())
    items, times = bundle.item_ids.raw(bundle.history.item_idx[rows]), bundle.history.timestamp[rows].tolist()
    other = next(item for item in bundle.item_ids.ids if item not in items)
    held = [event(items[0], times[0]), event(items[-1], times[-1])]
    fresh = [
        event(items[0], times[0] + 1),
        event(other, times[0]),
        event("gone", times[0]),
        event(other, times[-1] + 1),
    ]
    mixed = [held[0], *fresh[:3], held[1], fresh[3]]
    assert new_events(bundle, "u004", mixed) == fresh
    assert new_events(bundle, "u004", fresh[3:]) == fresh[3:] and new_events(bundle, "u004", held[1:]) == []
    assert new_events(bundle, "u004", []) == []
    for stranger in ("nobody", "u039"):  # the last user of the bundle has no history
        assert new_events(bundle, stranger, mixed) == mixed


def test_without_times_an_item_of_the_history_is_not_new(bundle: Bundle) -> None:
    untimed = replace(bundle, features=replace(bundle.features, now=None))
    items = untimed.item_ids.raw(untimed.history.items(4))
    other = next(item for item in untimed.item_ids.ids if item not in items)
    given = [event(items[0], 1_700_000_000), event(other, 1_700_000_000), event("gone", 1_700_000_000)]
    assert new_events(untimed, "u004", given) == given[1:]
