"""Properties of the degree-preserving shuffle for any triples."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.graph.shuffle import shuffle_tails

RELATIONS = ("r", "s")
ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1), st.integers(0, 8)), max_size=60)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    array = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return array[:, 0], array[:, 1], array[:, 2]


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 5))
def test_degrees_stay_and_only_the_pairing_changes(rows: list[tuple[int, int, int]], seed: int) -> None:
    head, relation, tail = columns(rows)
    before = tail.copy()
    shuffled, counts = shuffle_tails((head, relation, tail), RELATIONS, seed)
    np.testing.assert_array_equal(tail, before)
    assert shuffled.shape == tail.shape and shuffled.dtype == np.int64
    for number, name in enumerate(RELATIONS):
        mine = relation == number
        assert Counter(shuffled[mine].tolist()) == Counter(tail[mine].tolist())
        pairs = list(zip(head[mine].tolist(), shuffled[mine].tolist(), strict=True))
        true = set(zip(head[mine].tolist(), tail[mine].tolist(), strict=True))
        assert counts[name] == {
            "triples": len(pairs),
            "unchanged": sum(pair in true for pair in pairs),
            "repeated": len(pairs) - len(set(pairs)),
            "loops": sum(h == t for h, t in pairs),
        }
    again, _ = shuffle_tails((head, relation, tail), RELATIONS, seed)
    np.testing.assert_array_equal(again, shuffled)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(12, 40), values=st.integers(6, 12), each=st.integers(1, 3), seed=st.integers(0, 99))
def test_it_is_really_shuffled_and_holds_no_triple_twice(n: int, values: int, each: int, seed: int) -> None:
    """Items with some of many values, as lists of genres are: an arrangement without repeats exists."""
    rng = np.random.default_rng(seed)
    rows = [(item, 0, 100 + value) for item in range(n) for value in rng.choice(values, each, replace=False)]
    triples = columns(rows)
    shuffled, counts = shuffle_tails(triples, ("genres",), seed)
    assert counts["genres"]["repeated"] == counts["genres"]["loops"] == 0
    by_chance = each * sum(count**2 for count in Counter(triples[2].tolist()).values()) / len(rows)
    assert counts["genres"]["unchanged"] < min(len(rows), by_chance + 5 * len(rows) ** 0.5)
    other, _ = shuffle_tails(triples, ("genres",), seed + 1)
    assert (other != shuffled).any()


def test_repeats_are_swapped_out_where_most_items_have_most_values() -> None:
    rng = np.random.default_rng(0)
    head = np.repeat(np.arange(200), 9)
    tail = np.concatenate([1000 + rng.choice(12, 9, replace=False) for _ in range(200)])
    _, counts = shuffle_tails((head, np.zeros_like(head), tail), ("genres",), 0)
    assert counts["genres"]["repeated"] == 0


def test_loops_of_an_outside_relation_are_swapped_out() -> None:
    """Six authors who influence one another in a ring: a permutation alone leaves a loop in two of three cases."""
    head = np.arange(6)
    for seed in range(30):
        shuffled, counts = shuffle_tails((head, np.zeros(6, np.int64), (head + 1) % 6), ("influences",), seed)
        assert counts["influences"]["loops"] == counts["influences"]["repeated"] == 0, seed
        assert sorted(shuffled.tolist()) == list(range(6))


def test_what_cannot_be_avoided_is_counted() -> None:
    """One item with both values: whatever changes places, the triples are the same."""
    shuffled, counts = shuffle_tails((np.zeros(2), np.zeros(2), np.array([1, 2])), ("r",), 0)
    assert sorted(shuffled.tolist()) == [1, 2]
    assert counts == {"r": {"triples": 2, "unchanged": 2, "repeated": 0, "loops": 0}}
    _, counts = shuffle_tails((np.zeros(2), np.zeros(2), np.array([1, 1])), ("r",), 0)
    assert counts["r"]["repeated"] == 1
