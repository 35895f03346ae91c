"""Cleaning on a world small enough to count by hand."""

from __future__ import annotations

import polars as pl
import pytest

from reckg.data.clean import clean_interactions
from reckg.errors import DataError

# user, item, time, weight, event:  u1 bought a twice; u4 has one item only; e is u3's alone.
EVENTS = pl.DataFrame(
    [
        ("u1", "a", 5, 4.0, "buy"),
        ("u1", "a", 3, 2.0, "buy"),
        ("u1", "a", 4, 9.0, "view"),
        ("u1", "b", 6, 5.0, "buy"),
        ("u2", "a", 1, 3.0, "buy"),
        ("u2", "b", 2, 1.0, "buy"),
        ("u3", "b", 7, 5.0, "buy"),
        ("u3", "e", 8, 5.0, "buy"),
        ("u4", "e", 9, 5.0, "buy"),
    ],
    schema={
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "weight": pl.Float32,
        "event": pl.String,
    },
    orient="row",
).lazy()


def pairs(frame: pl.LazyFrame, *columns: str) -> list[tuple[object, ...]]:
    return sorted(frame.select(columns or ("user_id", "item_id")).collect().rows())


def test_nothing_is_dropped_unasked() -> None:
    frame, counts = clean_interactions(EVENTS)
    assert frame.collect().equals(EVENTS.collect())
    assert counts == {
        "rows_read": 9,
        "dropped_below_min_weight": 0,
        "dropped_duplicates": 0,
        "dropped_k_core": 0,
        "k_core_rounds": 0,
        "rows": 9,
        "users": 4,
        "items": 3,
    }


def test_min_weight() -> None:
    frame, counts = clean_interactions(EVENTS, min_weight=4)
    assert counts["dropped_below_min_weight"] == 3 and counts["rows"] == 6
    assert frame.collect()["weight"].min() == 4.0
    with pytest.raises(DataError, match=r"no column 'weight'"):
        clean_interactions(EVENTS.drop("weight"), min_weight=4)
    with pytest.raises(DataError, match=r"leaves none of 9 interactions: 9 are below min_weight 10"):
        clean_interactions(EVENTS, min_weight=10)


@pytest.mark.parametrize(("how", "time", "weight"), [("first", 3, 2.0), ("last", 5, 4.0), ("sum", 5, 6.0)])
def test_duplicates(how: str, time: int, weight: float) -> None:
    frame, counts = clean_interactions(EVENTS, duplicates=how)
    assert counts["dropped_duplicates"] == 1 and counts["rows"] == 8
    chosen = frame.filter((pl.col("user_id") == "u1") & (pl.col("item_id") == "a") & (pl.col("event") == "buy"))
    assert chosen.collect().row(0) == ("u1", "a", time, weight, "buy")
    assert frame.collect_schema() == EVENTS.collect_schema()


def test_duplicates_without_times_weights_and_events() -> None:
    frame, _ = clean_interactions(EVENTS.select("user_id", "item_id"), duplicates="sum")
    assert ("u1", "a", 3.0) in pairs(frame, "user_id", "item_id", "weight")
    with pytest.raises(DataError, match=r"duplicates must be one of"):
        clean_interactions(EVENTS, duplicates="drop")


def test_duplicates_of_different_parts_are_not_merged() -> None:
    given = pl.LazyFrame({"user_id": ["u", "u"], "item_id": ["a", "a"], "split": ["train", "test"]})
    _, counts = clean_interactions(given, duplicates="last")
    assert counts["dropped_duplicates"] == 0


def test_k_core_repeats_until_stable() -> None:
    # u4 goes (1 interaction), then e has one left and goes, then u3 has one left and goes: three rounds.
    frame, counts = clean_interactions(EVENTS, k_core=2)
    assert counts["dropped_k_core"] == 3 and counts["k_core_rounds"] == 3
    assert {user for user, _ in pairs(frame)} == {"u1", "u2"}
    assert {item for _, item in pairs(frame)} == {"a", "b"}
    with pytest.raises(DataError, match=r"are outside the 5-core"):
        clean_interactions(EVENTS, k_core=5)
    with pytest.raises(DataError, match=r"k_core must be 0 or more"):
        clean_interactions(EVENTS, k_core=-1)


def test_options_apply_in_order() -> None:
    _, counts = clean_interactions(EVENTS, min_weight=2, duplicates="last", k_core=2)
    assert counts["rows_read"] - counts["rows"] == sum(counts[name] for name in counts if name.startswith("dropped"))
