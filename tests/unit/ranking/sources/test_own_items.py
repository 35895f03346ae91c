from __future__ import annotations

import numpy as np
import pytest

from reckg.ranking.sources.own_items import DAY, FADING, RHYTHM, Entries, own_items

N_ITEMS, NOW = 6, 40 * 86_400
# user 0: day 0 takes 1 and 2, day 10 takes 1, day 20 takes 1 and looks at 3; user 1 has nothing; user 2: day 30 takes 4
DAYS = np.array([0, 0, 10, 20, 20, 30])
ENTRIES = Entries(
    query=np.array([0, 0, 0, 0, 0, 2]),
    item=np.array([1, 2, 1, 1, 3, 4]),
    weight=np.array([1.0, 1.0, 2.0, 1.0, 0.5, 1.0]),
    later=np.array([2, 2, 1, 0, 0, 0]),
    time=DAYS * 86_400,
    taken=np.array([True, True, True, True, False, True]),
)


def rhythm(name: str, user: int, item: int, now: int | None = NOW) -> float:
    candidates = np.tile(np.arange(N_ITEMS), (3, 1))
    return float(own_items(ENTRIES, 3, N_ITEMS, now).at(candidates)[RHYTHM.index(name), user, item])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_count", 4),
        ("own_recent", FADING**2 + 2 * FADING + 1),
        ("own_share", 1),
        ("own_since", 0),
        ("own_days", 20),
        ("own_interval", 10),
        ("own_due", 2),
        ("own_taken", 3),
    ],
)
def test_the_rhythm_of_an_item_that_comes_again(name: str, expected: float) -> None:
    assert rhythm(name, 0, 1) == pytest.approx(expected)


def test_an_item_that_was_taken_once_has_no_interval() -> None:
    assert np.isnan(rhythm("own_interval", 0, 2)) and np.isnan(rhythm("own_due", 0, 2))
    assert rhythm("own_share", 0, 2) == pytest.approx(1 / 3)
    assert rhythm("own_taken", 0, 3) == 0 and rhythm("own_count", 0, 3) == 0.5


@pytest.mark.parametrize(("user", "item"), [(0, 0), (1, 1), (2, 1)])
def test_an_item_that_the_user_never_had(user: int, item: int) -> None:
    assert rhythm("own_count", user, item) == rhythm("own_taken", user, item) == 0
    assert np.isnan(rhythm("own_days", user, item))


def test_without_times_there_are_no_days() -> None:
    assert np.isnan(rhythm("own_days", 0, 1, None)) and rhythm("own_since", 0, 2, None) == 2


def test_the_best_own_items_come_first() -> None:
    own = own_items(ENTRIES, 3, N_ITEMS, NOW)
    assert own.top(3, None, None).item_idx.tolist() == [[1, 2, 3], [-1, -1, -1], [4, -1, -1]]
    blocked = np.array([0, 1, 1, 2]), np.array([1, 4])
    assert own.top(2, blocked, None).item_idx.tolist() == [[2, 3], [-1, -1], [-1, -1]]
    allowed = np.array([False, True, False, True, False, False])
    assert own.top(2, None, allowed).item_idx.tolist() == [[1, 3], [-1, -1], [-1, -1]]


def test_items_that_were_only_looked_at_can_be_left_out() -> None:
    taken = own_items(ENTRIES, 3, N_ITEMS, NOW).taken()
    assert taken.top(3, None, None).item_idx.tolist() == [[1, 2, -1], [-1, -1, -1], [4, -1, -1]]


def test_own_items_by_the_vectors() -> None:
    vectors, items = np.eye(3, 2, dtype=np.float32), np.eye(N_ITEMS, 2, dtype=np.float32)
    items[3] = 5.0
    found = own_items(ENTRIES, 3, N_ITEMS, NOW).nearest(vectors, items, 2, None, None)
    assert found.item_idx[0].tolist() == [3, 1] and found.score[0].tolist() == [5.0, 0.0]


def test_a_user_alone_has_the_same_figures() -> None:
    alone = Entries(*(getattr(ENTRIES, name)[:5] for name in ("query", "item", "weight", "later", "time", "taken")))
    candidates = np.arange(N_ITEMS)[None]
    whole = own_items(ENTRIES, 3, N_ITEMS, NOW).at(np.tile(candidates, (3, 1)))[:, :1]
    np.testing.assert_array_equal(own_items(alone, 1, N_ITEMS, NOW).at(candidates), whole)


def test_days_are_days() -> None:
    assert DAY == 24 * 3600
