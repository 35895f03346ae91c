"""Splits on small worlds, and the checks that must see a broken one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from reckg.data.schema import TimeKind
from reckg.data.split import Split, cold_item_parts, split_interactions
from reckg.data.split_checks import check_split
from reckg.errors import DataError


def events(rows: list[tuple[str, str, int]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row")


# time:  1  2  3  4  5  6  7  8  9 10     u3 has two interactions only
# u1:    a     b     c     d
# u2:       a     b     c     d
# u3:                            a  b
TOY = events(
    [(u, i, t) for u, start in (("u1", 1), ("u2", 2)) for i, t in zip("abcd", range(start, start + 8, 2), strict=True)]
    + [("u3", "a", 9), ("u3", "b", 10)]
)


def split(frame: pl.LazyFrame, kind: str = "auto", time: TimeKind = "utc", seed: int = 0, share: float = 0.2) -> Split:
    return split_interactions(frame, kind=kind, valid=share, test=share, time=time, seed=seed)


def labels(result: Split) -> dict[tuple[str, str], str]:
    return {(u, i): s for u, i, s in result.frame.select("user_id", "item_id", "split").collect().rows()}


def check(result: Split, time: TimeKind = "utc", **changed: Any) -> dict[str, dict[str, Any]]:
    values: dict[str, Any] = {
        "kind": result.kind,
        "time": time,
        "cutoff_time": result.cutoff_time,
        "valid_cutoff_time": result.valid_cutoff_time,
        "n_rows": result.counts["rows"],
    }
    return check_split(result.frame, **(values | changed))


def test_global_time() -> None:
    result = split(TOY)
    assert result.kind == "global-time" and result.valid_before_test
    assert (result.cutoff_time, result.valid_cutoff_time) == (6, 8)
    by_time = {t: s for t, s in result.frame.select("timestamp", "split").collect().rows()}
    assert [by_time[t] for t in range(1, 11)] == ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    assert result.counts["test_users"] == 1 and result.counts["test_users_without_train"] == 1
    checks = check(result)
    assert checks["no training row after the cutoff"]["passed"] and checks["partition"]["passed"]


def test_rows_of_one_timestamp_stay_on_one_side() -> None:
    frame = events([("u", str(n), t) for n, t in enumerate([1, 2, 3] + [7] * 6 + [8])])
    result = split(frame)
    parts = result.frame.filter(pl.col("timestamp") == 7).collect()["split"].unique().to_list()
    assert parts == ["valid"]
    check(result)
    with pytest.raises(DataError, match=r"3 different timestamps at least, there are 2"):
        split(events([("u", str(n), n % 2) for n in range(10)]))


@pytest.mark.parametrize(
    ("kind", "time", "message"),
    [
        ("global-time", "order", "not comparable between users"),
        ("global-time", "none", "no times"),
        ("leave-last-out", "none", "needs times or an order"),
        ("given", "utc", "no column 'split'"),
        ("random", "utc", "unknown kind of split 'random'"),
    ],
)
def test_impossible_splits_are_refused(kind: str, time: TimeKind, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(TOY, kind, time)
    with pytest.raises(DataError, match=r"share of valid"):
        split(TOY, share=0.5)


def test_leave_last_out() -> None:
    result = split(TOY, time="order")
    assert result.kind == "leave-last-out" and result.cutoff_time is None and result.valid_before_test
    found = labels(result)
    for user in ("u1", "u2"):
        assert [found[user, item] for item in "abcd"] == ["train", "train", "valid", "test"]
    assert found["u3", "a"] == found["u3", "b"] == "train"
    assert any("1 of 3 users have fewer than 3 interactions" in note for note in result.notes)
    checks = check(result, "order")
    assert all(c["passed"] for name, c in checks.items() if name != "pairs in train and test")


def test_leave_last_out_does_not_depend_on_the_order_of_rows() -> None:
    tied = events([(f"u{user:03}", item, 5) for user in range(400) for item in "badc"])
    found = labels(split(tied, "leave-last-out"))
    assert found == labels(split(tied.reverse(), "leave-last-out"))
    tested = [item for (_, item), part in found.items() if part == "test"]
    assert len(tested) == 400
    for item in "abcd":  # equal times say nothing: none of the items is held out more often
        assert abs(tested.count(item) - 100) < 5 * np.sqrt(75)


def test_held_out_rows_with_equal_times_are_counted() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 2), ("v", "a", 1), ("v", "b", 3), ("v", "c", 4)]
    result = split(events(rows), "leave-last-out", time="utc")
    found = check(result, "utc")["held-out rows with equal times"]
    assert (found["passed"], found["bad"], found["of"]) == (None, 2, 4)


def many(users: int = 300, items: int = 10) -> pl.LazyFrame:
    return events([(f"u{u}", f"i{i}", 0) for u in range(users) for i in range(items)])


def test_per_user_ratio_keeps_the_shares_and_the_seed() -> None:
    result = split(many(), "auto", "none", share=0.15)
    assert result.kind == "per-user-ratio" and not result.valid_before_test
    rows = result.counts["rows"]
    assert abs(result.counts["test"] / rows - 0.15) < 0.01 and abs(result.counts["valid"] / rows - 0.15) < 0.01
    again = split(many().reverse(), "auto", "none", share=0.15)
    assert labels(result) == labels(again)
    assert labels(result) != labels(split(many(), "auto", "none", seed=1, share=0.15))
    per_user = result.frame.group_by("user_id").agg((pl.col("split") == "test").sum()).collect()
    assert set(per_user["split"].to_list()) == {1, 2}  # 10 * 0.15 rounded up or down by chance
    check(result, "none")


def test_per_user_ratio_has_no_favourite_item() -> None:
    held = split(many(1000), "per-user-ratio", share=0.2).frame.filter(pl.col("split") == "test").collect()
    counts = held.group_by("item_id").len()["len"]
    assert counts.min() is not None and counts.len() == 10
    assert all(140 < count < 260 for count in counts.to_list())  # 200 expected, standard deviation 12.6


def test_per_user_ratio_leaves_small_users_in_train() -> None:
    frame = pl.concat([many(50, 3), events([("small", "i0", 0), ("small", "i1", 0)])])
    result = split(frame, "per-user-ratio", share=0.49)
    found = labels(result)
    assert found["small", "i0"] == found["small", "i1"] == "train"
    trains = result.frame.group_by("user_id").agg((pl.col("split") == "train").sum()).collect()["split"]
    assert trains.min() == 1
    assert result.counts["whole_users"] == 1


def cold(frame: pl.LazyFrame, share: float) -> Split:
    return split_interactions(frame, kind="cold-items", valid=0.1, test=0.1, time="utc", seed=0, cold_share=share)


def parts_of_items(result: Split) -> dict[str, str]:
    rows = result.frame.select("item_id", "split").unique().collect().rows()
    assert len(rows) == len({item for item, _ in rows})  # one part an item
    return dict(rows)


def test_cold_items_leave_train_whole() -> None:
    result = split(many(20, 50), "cold-items")
    assert result.kind == "cold-items" and not result.valid_before_test and result.cutoff_time is None
    parts = parts_of_items(result)
    assert {part: list(parts.values()).count(part) for part in ("train", "valid", "test")} == {
        "train": 40, "valid": 5, "test": 5,
    }  # fmt: skip
    assert result.counts["test_items_without_train"] == 5 and not result.notes
    checks = check(result)
    assert checks["no training row of a cold item"]["of"] == 20 * 40 and checks["one part an item"]["of"] == 50
    assert all(found["passed"] is not False for found in checks.values())
    shuffled = many(20, 50).collect().sample(fraction=1, shuffle=True, seed=1).lazy()
    assert parts_of_items(split(shuffled, "cold-items")) == parts
    assert parts_of_items(split(many(20, 50), "cold-items", seed=1)) != parts


@pytest.mark.parametrize(
    ("items", "share", "valid", "test"), [(10, 0.2, 1, 1), (10, 0.25, 1, 2), (10, 0.34, 1, 2), (14, 0.25, 2, 2)]
)
def test_cold_items_are_rounded_to_the_nearest_and_the_odd_one_is_for_test(
    items: int, share: float, valid: int, test: int
) -> None:
    found = list(parts_of_items(cold(many(4, items), share)).values())
    assert (found.count("valid"), found.count("test")) == (valid, test)


@pytest.mark.parametrize(
    ("items", "share", "message"),
    [
        (10, 1.0, "share of cold items must be above 0 and below 1, got 1"),
        (4, 0.2, "the cold-items split leaves no valid interactions of 16"),
        (5, 0.9, "the cold-items split leaves no train interactions of 20"),
    ],
)
def test_impossible_shares_of_cold_items_are_refused(items: int, share: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cold(many(4, items), share)


def test_every_item_may_become_cold() -> None:
    """Uniform over the items: each of 20 is among the 4 cold ones in a fifth of 200 draws, give or take."""
    draws = [cold_item_parts(many(1, 20), 0.2, seed) for seed in range(200)]
    times = pl.concat(draws).filter(pl.col("split") != "train").group_by("item_id").len()["len"]
    assert times.len() == 20 and times.sum() == 800
    assert all(20 <= n <= 62 for n in times.to_list())  # 40, standard deviation 5.7


def test_a_given_split_is_pooled_and_users_without_history_are_counted() -> None:
    mine = pl.col("user_id") == "u0"
    given = many(20, 50).with_columns(split=pl.when(mine).then(pl.lit("test")).otherwise(pl.lit("train")))
    result = split(given, "cold-items")
    assert parts_of_items(result) == parts_of_items(split(many(20, 50), "cold-items"))
    assert result.notes == ("The data's own column 'split' was replaced by a cold-items split.",)
    item = next(item for item, part in parts_of_items(result).items() if part == "test")
    more = split(pl.concat([many(20, 50), events([("new", item, 3)])]), "cold-items")
    assert more.counts["users_without_train"] == 1
    assert any("1 of 21 users have interactions with cold items alone" in note for note in more.notes)


def test_checks_see_a_cold_item_in_training() -> None:
    frame = split(many(20, 50), "cold-items").frame
    one = (pl.col("split") == "valid") & (pl.col("user_id") == "u3")
    leaked = frame.with_columns(split=pl.when(one).then(pl.lit("train")).otherwise(pl.col("split")))
    message = r"no training row of a cold item: 5 of 805 training rows.*one part an item: 5 of 50 items"
    with pytest.raises(DataError, match=message):
        check_split(leaked, kind="cold-items", time="utc")
    moved = frame.with_columns(split=pl.when(one).then(pl.lit("test")).otherwise(pl.col("split")))
    with pytest.raises(DataError, match=r"broken: one part an item: 5 of 50 items are in several parts"):
        check_split(moved, kind="cold-items", time="utc")


def test_given_split() -> None:
    frame = TOY.with_columns(
        pl.when(pl.col("timestamp") < 6)
        .then(pl.lit("train"))
        .when(pl.col("timestamp") < 9)
        .then(pl.lit("valid"))
        .otherwise(pl.lit("test"))
        .alias("split")
    )
    result = split(frame)
    assert result.kind == "given" and result.frame.collect().equals(frame.collect())
    assert result.valid_before_test
    swapped = frame.with_columns(pl.col("split").replace({"valid": "test", "test": "valid"}))
    late = pl.concat([swapped, events([("u1", "e", 20)]).with_columns(pl.lit("valid").alias("split"))])
    assert not split(late).valid_before_test
    assert split(frame, time="none").valid_before_test is False
    replaced = split(frame, "leave-last-out")
    assert any("replaced by a leave-last-out split" in note for note in replaced.notes)
    with pytest.raises(DataError, match=r"leaves no valid interactions of 7"):
        split(frame.filter(pl.col("split") != "valid"))


def test_checks_see_a_broken_split() -> None:
    result = split(TOY)
    with pytest.raises(DataError, match=r"no training row after the cutoff: 1 of 10 training rows are later than 5"):
        check(result, cutoff_time=5)
    with pytest.raises(DataError, match=r"partition: 1 of 10 rows that are lost"):
        check(result, n_rows=11)
    spoilt = result.frame.with_columns(pl.when(pl.col("timestamp") != 4).then(pl.col("split")).alias("split"))
    with pytest.raises(DataError, match=r"partition: 1 of 10"):
        check_split(spoilt, kind="given", time="utc")
    late = result.frame.with_columns(
        pl.when(pl.col("timestamp") == 10).then(pl.lit("train")).otherwise(pl.col("split")).alias("split")
    )
    with pytest.raises(DataError, match=r"no training row after the cutoff: 1 of 10"):
        check_split(late, kind="global-time", time="utc", cutoff_time=6, valid_cutoff_time=8)
    with pytest.raises(DataError, match=r"give both"):
        check_split(late, kind="global-time", time="utc")
    ordered = split(TOY, "leave-last-out").frame
    turned = ordered.with_columns(pl.col("split").replace({"valid": "test", "test": "valid"}))
    with pytest.raises(DataError, match=r"valid before test: 2 of 3 users with valid later than test"):
        check_split(turned, kind="leave-last-out", time="order")
    two = ordered.with_columns(pl.col("split").replace("valid", "test"))
    with pytest.raises(DataError, match=r"one held out: 2 of 3 users"):
        check_split(two, kind="leave-last-out", time="order")


def test_pairs_in_both_parts_are_counted_not_refused() -> None:
    frame = events([("u", "a", 1), ("u", "b", 2), ("u", "a", 3)])
    checks = check(split(frame, "leave-last-out"))
    assert checks["pairs in train and test"] == {
        "passed": None, "bad": 1, "of": 3, "says": "user-item pairs in both train and test",
    }  # fmt: skip
    renamed = split(frame, "leave-last-out").frame.rename({"user_id": "user_idx", "item_id": "item_idx"})
    assert check_split(renamed, kind="leave-last-out", time="utc")["partition"]["passed"]


def test_codes_of_ids_that_cleaning_dropped_are_no_users_and_no_items() -> None:
    frame = pl.LazyFrame({"user_id": [1, 1, 5, 5], "item_id": [9, 3, 9, 3], "timestamp": [1, 2, 3, 4]})
    split = split_interactions(frame, kind="global-time", valid=0.25, test=0.25, time="utc", seed=0)
    counted = {name: split.counts[name] for name in ("users", "users_without_train", "test_items_without_train")}
    assert counted == {"users": 2, "users_without_train": 1, "test_items_without_train": 0}


@pytest.mark.parametrize("kind", ["per-user-ratio", "cold-items", "leave-last-out", "global-time"])
def test_codes_are_split_as_the_ids_that_they_stand_for(kind: str) -> None:
    """Codes of which cleaning has left gaps give the same parts as strings in the same order."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 20, 300), rng.integers(0, 15, 300)
    rows = {"timestamp": rng.permutation(300)}
    ids = pl.LazyFrame({"user_id": [f"u{u:02}" for u in user], "item_id": [f"i{i:02}" for i in item], **rows})
    codes = pl.LazyFrame({"user_id": 3 * user, "item_id": 5 * item + 2, **rows})
    parts = [
        split_interactions(frame, kind=kind, valid=0.2, test=0.2, time="utc", seed=1).frame.sort("timestamp").collect()
        for frame in (ids, codes)
    ]
    assert parts[0]["split"].equals(parts[1]["split"])
