"""Checks of a split from its rows alone."""

from __future__ import annotations

from typing import TypedDict

import polars as pl

from reckg.data.schema import SPLITS, TimeKind
from reckg.data.text_table import collect
from reckg.errors import DataError

_LABEL = "interactions"


class CheckResult(TypedDict):
    """The result of a check: ``bad`` out of ``of`` rows, users or items, which ``says`` names.

    ``passed`` is None for a check that only informs.
    """

    passed: bool | None
    bad: int
    of: int
    says: str


def check_split(
    frame: pl.LazyFrame,
    *,
    kind: str,
    time: TimeKind,
    cutoff_time: int | None = None,
    valid_cutoff_time: int | None = None,
    n_rows: int | None = None,
) -> dict[str, CheckResult]:
    """Verifies a labelled frame from its rows alone.

    Args:
        frame: user_id, item_id (or user_idx, item_idx), split and, optional, timestamp.
        kind, time, cutoff_time, valid_cutoff_time: as in ``Split``.
        n_rows: the number of rows before the split, to find lost ones.
    Returns:
        name -> result.
    Raises:
        DataError: checks failed; the message names all of these.
    """
    columns = frame.collect_schema().names()
    if "user_id" not in columns:
        frame = frame.rename({"user_idx": "user_id", "item_idx": "item_id"})
    label = pl.col("split")
    unlabelled = (~label.is_in(SPLITS)).fill_null(True)
    rows, bad = collect(frame.select(pl.len(), unlabelled.sum().alias("bad")), _LABEL).row(0)
    lost = 0 if n_rows is None else abs(n_rows - rows)
    checks = {"partition": _result(bad + lost, rows, "rows that are lost, repeated or in no part")}
    if kind == "global-time":
        if cutoff_time is None or valid_cutoff_time is None:
            raise DataError("a global-time split is checked against its two cutoff times; give both.")
        checks |= _check_times(frame, cutoff_time, valid_cutoff_time, rows)
    if kind == "leave-last-out":
        held = frame.group_by("user_id").agg(
            (label == "valid").sum().alias("valid"), (label == "test").sum().alias("test")
        )
        many = (pl.col("valid") > 1) | (pl.col("test") > 1) | (pl.col("valid") != pl.col("test"))
        users, bad = collect(held.select(pl.len(), many.sum().alias("bad")), _LABEL).row(0)
        checks["one held out"] = _result(bad, users, "users without exactly one or no valid and test interaction each")
        for first, second in (("train", "valid"), ("valid", "test")):
            bad = users_out_of_order(frame, first, second)
            checks[f"{first} before {second}"] = _result(bad, users, f"users with {first} later than {second}")
    if kind == "cold-items":
        checks |= _check_cold_items(frame)
    if time == "utc":
        checks["held-out rows with equal times"] = _count_ties(frame)
    tested = frame.filter(label == "test").select("user_id", "item_id").unique()
    both = tested.join(frame.filter(label == "train"), on=["user_id", "item_id"], how="semi")
    repeated = collect(both.select(pl.len()), _LABEL).item()
    checks["pairs in train and test"] = _result(repeated, rows, "user-item pairs in both train and test")
    checks["pairs in train and test"]["passed"] = None
    failed = [f"{name}: {c['bad']:_} of {c['of']:_} {c['says']}" for name, c in checks.items() if c["passed"] is False]
    if failed:
        raise DataError(f"the {kind} split is broken: {'; '.join(failed)}. Split the data again.")
    return checks


def _count_ties(frame: pl.LazyFrame) -> CheckResult:
    """Counts the held-out rows that another row of the same user has the time of: their order is by chance."""
    tied = pl.len().over("user_id", "timestamp") > 1
    held = frame.with_columns(tied.alias("tied")).filter(pl.col("split") != "train")
    rows, bad = collect(held.select(pl.len(), pl.col("tied").sum()), _LABEL).row(0)
    result = _result(bad, rows, "validation and test rows have the time of another row of their user")
    result["passed"] = None
    return result


def _check_times(frame: pl.LazyFrame, cutoff: int, valid_cutoff: int, rows: int) -> dict[str, CheckResult]:
    time, label = pl.col("timestamp"), pl.col("split")
    query = frame.select(
        ((label == "train") & (time > cutoff)).sum().alias("train"),
        ((label == "valid") & ((time <= cutoff) | (time > valid_cutoff))).sum().alias("valid"),
        ((label == "test") & (time <= valid_cutoff)).sum().alias("test"),
    )
    train, valid, test = collect(query, _LABEL).row(0)
    return {
        "no training row after the cutoff": _result(train, rows, f"training rows are later than {cutoff}"),
        "validation inside its window": _result(
            valid, rows, f"validation rows are outside {cutoff + 1}..{valid_cutoff}"
        ),
        "test after validation": _result(test, rows, f"test rows are not later than {valid_cutoff}"),
    }


def _check_cold_items(frame: pl.LazyFrame) -> dict[str, CheckResult]:
    per_item = frame.group_by("item_id").agg(
        (pl.col("split") == "train").sum().alias("train"), pl.col("split").n_unique().alias("parts")
    )
    query = per_item.select(
        pl.len(),
        (pl.col("parts") > 1).sum().alias("split"),
        pl.col("train").sum().alias("rows"),
        pl.col("train").filter(pl.col("parts") > 1).sum().alias("known"),
    )
    items, several, rows, known = collect(query, _LABEL).row(0)
    return {
        "no training row of a cold item": _result(known, rows, "training rows are with an item of a later part"),
        "one part an item": _result(several, items, "items are in several parts"),
    }


def users_out_of_order(frame: pl.LazyFrame, first: str, second: str) -> int:
    """Counts users with an interaction in the part ``first`` that is later than an interaction in ``second``."""
    label, time = pl.col("split"), pl.col("timestamp")
    per_user = frame.group_by("user_id").agg(
        time.filter(label == first).max().alias("latest"), time.filter(label == second).min().alias("earliest")
    )
    return int(collect(per_user.select((pl.col("latest") > pl.col("earliest")).sum()), _LABEL).item())


def _result(bad: int, of: int, says: str) -> CheckResult:
    return {"passed": bad == 0, "bad": int(bad), "of": int(of), "says": says}
