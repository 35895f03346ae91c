"""Cleaning on a world small enough to count by hand."""

from __future__ import annotations

import polars as pl
import pytest

from reckg.data.clean import clean_interactions, drop_double_exports
from reckg.data.ids import code_ids
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


@pytest.mark.parametrize("ids", [pl.String, pl.UInt32])
@pytest.mark.parametrize(("how", "weights"), [("first", [2, 3, 9]), ("last", [2, 4, 7]), ("sum", [2, 8, 17])])
def test_of_equal_times_the_rows_order_counts_and_rows_stay_in_order(
    ids: pl.DataType, how: str, weights: list[float]
) -> None:
    rows = [
        (7, 1, 5, 1.0),
        (8, 1, 5, 2.0),
        (7, 1, 4, 3.0),
        (9, 1, 6, 9.0),
        (7, 1, 5, 4.0),
        (9, 1, 6, 1.0),
        (9, 1, 6, 7.0),
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "weight"], orient="row").lazy()
    frame = frame.with_columns(pl.col("user_id", "item_id").cast(ids), pl.col("weight").cast(pl.Float32))
    cleaned, counts = clean_interactions(frame, duplicates=how)
    assert sorted(cleaned.collect()["weight"].to_list()) == weights and counts["users"] == 3
    assert cleaned.collect()["user_id"].cast(pl.Int64).to_list() == [8, 7, 9]


def test_codes_and_strings_have_the_same_k_core() -> None:
    coded = code_ids(EVENTS).frame.lazy()
    frame, counts = clean_interactions(coded, k_core=2)
    expected, same = clean_interactions(EVENTS, k_core=2)
    assert counts == same and frame.collect()["timestamp"].equals(expected.collect()["timestamp"])


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


def parts_of(rows: list[tuple[str, str, str]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema=["user_id", "item_id", "split"], orient="row")


def test_the_training_rows_alone_make_the_k_core() -> None:
    train = [("u1", "a", "train"), ("u1", "b", "train"), ("u2", "a", "train"), ("u2", "b", "train")]
    rare = [("u3", "a", "train"), ("u1", "c", "train")]  # one row each in training, more after the cutoff
    later = [("u3", "b", "test"), ("u3", "c", "test"), ("u1", "c", "test"), ("u2", "a", "test")]
    new = [("u9", "a", "test"), ("u1", "n", "test")]  # never in training: they stay
    frame, counts = clean_interactions(parts_of([*train, *rare, *later, *new]), k_core=2)
    assert counts["dropped_k_core"] == 5
    assert pairs(frame, "user_id", "item_id", "split") == sorted([*train, ("u2", "a", "test"), *new])
    before, _ = clean_interactions(parts_of([*train, *rare]), k_core=2)
    of_training = [row for row in pairs(frame, "user_id", "item_id", "split") if row[2] == "train"]
    assert of_training == pairs(before, "user_id", "item_id", "split"), "later rows change nothing before the cutoff"


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_dislike_is_no_like(weight: float) -> None:
    frame = pl.LazyFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "weight": [5.0, weight]})
    with pytest.raises(DataError, match=rf"1 of 2 interactions have a weight of 0 or less \(the least: {weight:g}\)"):
        clean_interactions(frame)
    kept, counts = clean_interactions(frame, min_weight=0.5)
    assert counts["dropped_below_min_weight"] == 1 and pairs(kept) == [("u", "a")]


def test_double_exports_are_rows_that_equal_another_in_all_columns() -> None:
    rows = pl.LazyFrame(
        {
            "user_id": [0, 0, 0, 0, 1],
            "item_id": [5, 5, 5, 5, 5],
            "timestamp": [9, 9, 9, 8, 9],
            "event": ["view", "view", "buy", "view", "view"],
            "weight": pl.Series([1.0, 1.0, 1.0, 1.0, 1.0], dtype=pl.Float32),
        }
    )
    kept, double = drop_double_exports(rows)
    assert double == 1 and kept.collect().equals(rows.collect()[[0, 2, 3, 4]])
    assert drop_double_exports(rows.with_columns(weight=pl.Series([1.0, 2.0, 1.0, 1.0, 1.0])))[1] == 0
    assert drop_double_exports(rows.drop("timestamp"))[1] == 0, "without a time nobody knows"
