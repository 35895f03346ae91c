"""Reading a log: what it may be, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reckg.errors import DataError
from reckg.evaluation.logs.served_log import SCHEMA, read_served_log

T = 1_700_000_000


def rows(**changed: list[Any]) -> pl.DataFrame:
    """Two requests of two items each."""
    columns: dict[str, list[Any]] = {
        "request_id": ["r1", "r1", "r2", "r2"],
        "user_id": ["u1", "u1", "u2", "u2"],
        "timestamp": [T, T, T + 60, T + 60],
        "position": [1, 2, 1, 2],
        "item_id": ["a", "b", "b", "c"],
        "propensity": [0.5, 0.25, 1.0, 0.125],
        "score": [2.0, 1.0, 2.0, 1.0],
        "reward": [0, 1, 0, 0],
        "variant": ["x", "y", "x", "y"],
        "bundle_version": ["v1"] * 4,
        "placement": ["home"] * 4,
    }
    return pl.DataFrame(columns | changed)


def write(folder: Path, frame: pl.DataFrame, name: str = "log.parquet") -> Path:
    frame.write_parquet(folder / name)
    return folder / name


def test_a_log_comes_back_with_the_types_of_the_schema(tmp_path: Path) -> None:
    log = read_served_log(write(tmp_path, rows()))
    assert log.rows.schema == pl.Schema(SCHEMA)
    assert log.counts == {"files": 1, "rows": 4, "repeated": 0, "requests": 2} and log.notes == []
    assert log.rows["reward"].to_list() == [0.0, 1.0, 0.0, 0.0]
    assert log.rows["timestamp"].to_list() == [T, T, T + 60, T + 60]


def test_only_five_columns_are_needed(tmp_path: Path) -> None:
    frame = rows().select("request_id", "timestamp", "position", "item_id", "reward", extra=pl.lit(1))
    log = read_served_log(write(tmp_path, frame))
    for name in ("user_id", "propensity", "score", "variant", "bundle_version", "placement"):
        assert log.rows[name].null_count() == 4
    assert log.notes == ["log.parquet: column 'extra' left out; it is not the log's."]


def test_a_csv_with_dates_and_empty_fields(tmp_path: Path) -> None:
    frame = rows(user_id=["", "", "u2", "u2"], propensity=[None, 0.25, 1.0, 0.125])
    when = pl.from_epoch(pl.col("timestamp")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    frame.with_columns(when).write_csv(tmp_path / "log.csv")
    log = read_served_log(tmp_path / "log.csv").rows
    assert log["user_id"].to_list() == [None, None, "u2", "u2"]
    assert log["propensity"].to_list() == [None, 0.25, 1.0, 0.125]
    assert log["timestamp"].to_list() == [T, T, T + 60, T + 60]


def test_parts_of_a_folder_are_one_log(tmp_path: Path) -> None:
    write(tmp_path, rows()[:2], "a.parquet")
    write(tmp_path, rows()[1:], "b.parquet")  # one row was written again
    write(tmp_path, rows()[:0], "c.parquet")
    (tmp_path / ".d.parquet").write_text("half written")
    (tmp_path / "note.txt").write_text("hello")
    log = read_served_log(tmp_path)
    assert log.rows.equals(read_served_log(write(tmp_path.parent, rows(), "whole.parquet")).rows)
    assert log.counts == {"files": 3, "rows": 4, "repeated": 1, "requests": 2}
    assert log.notes == [
        f"{tmp_path.name}: 2 entries are no parts of the log (first: '.d.parquet'); left out.",
        "c.parquet holds no rows.",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"request_id": ["r1", "r1", "", None]},
            r"log.parquet: 2 of 4 values of 'request_id' are empty \(first: row 3",
        ),
        ({"item_id": ["a", "b", "b", ""]}, r"1 of 4 values of 'item_id' are empty \(first: row 4\)"),
        ({"position": [0, 2, 1, 2]}, r"1 of 4 values of 'position' are no place from 1 \(first: row 1, '0'\)"),
        ({"position": [1, 2, 1.5, 2]}, r"1 of 4 values of 'position' are no place from 1 \(first: row 3, '1.5'\)"),
        ({"position": [1, None, 1, 2]}, r"1 of 4 values of 'position' are empty \(first: row 2\)"),
        (
            {"propensity": [0.5, 1.2, -1.0, 1]},
            r"2 of 4 values of 'propensity' are no probability \(first: row 2, '1.2'",
        ),
        ({"propensity": [0.5, float("nan"), 1, 1]}, r"1 of 4 values of 'propensity' are no number \(first: row 2"),
        ({"reward": [0, 1, None, 1]}, r"1 of 4 values of 'reward' are empty \(first: row 3\)"),
        ({"reward": ["0", "1", "yes", "1"]}, r"1 of 4 values of 'reward' are no number \(first: row 3, 'yes'\)"),
        ({"score": [1, float("inf"), 0, 0]}, r"1 of 4 values of 'score' are no number \(first: row 2"),
        ({"timestamp": [T, None, T, T]}, r"1 of 4 values of 'timestamp' are empty \(first: row 2\)"),
        ({"reward": [[1], [1], [1], [1]]}, r"column 'reward' is of type List.*; it must hold numbers"),
        ({"user_id": [1.5] * 4}, r"column 'user_id' is of type Float64; it must hold strings or integers"),
        (
            {"position": [1, 1, 1, 2]},
            r"2 of 4 rows have a place of their request that .*row 1, request 'r1'",
        ),
        (
            {"item_id": ["a", "b", "c", "c"]},
            r"2 of 4 rows have an item of their request that .*row 3, request 'r2'",
        ),
        (
            {"user_id": ["u1", "u9", "u2", "u2"]},
            r"log.parquet: 1 requests have more than one 'user_id' \(first: row 1",
        ),
    ],
)
def test_what_breaks_the_contract_is_refused(tmp_path: Path, changed: dict[str, list[Any]], message: str) -> None:
    frame = pl.concat([rows().drop(list(changed)), pl.DataFrame(changed, strict=False)], how="horizontal")
    with pytest.raises(DataError, match=message):
        read_served_log(write(tmp_path, frame))


def test_a_bad_part_is_named(tmp_path: Path) -> None:
    write(tmp_path, rows(), "a.parquet")
    write(tmp_path, rows(request_id=["r3"] * 4, position=[1, 2, 3, -4]), "b.parquet")
    with pytest.raises(DataError, match=r"^b\.parquet: 1 of 4 values of 'position'"):
        read_served_log(tmp_path)


def test_what_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.parquet does not exist"):
        read_served_log(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds no part of a log"):
        read_served_log(tmp_path)
    with pytest.raises(DataError, match="holds no rows: nothing was served"):
        read_served_log(write(tmp_path, rows()[:0]))
    with pytest.raises(DataError, match="no column 'reward'"):
        read_served_log(write(tmp_path, rows().drop("reward")))
    (tmp_path / "log.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_served_log(tmp_path / "log.parquet")


def test_rewards_from_events(tmp_path: Path) -> None:
    """In the window, of what was shown; the log's own rewards do not count."""
    events = pl.DataFrame(
        {
            "request_id": ["r1", "r1", "r2", "r2", "r9", "r1"],
            "item_id": ["a", "a", "b", "c", "a", "c"],
            "timestamp": [T, T + 100, T + 59, T + 161, T, T],
        }
    )
    log = read_served_log(write(tmp_path, rows()), write(tmp_path, events, "events.parquet"), 100)
    assert log.rows["reward"].to_list() == [1.0, 0.0, 0.0, 0.0]
    assert log.rows.drop("reward").equals(rows().select(list(SCHEMA)).cast(SCHEMA).drop("reward"))
    assert (log.counts["events"], log.counts["events_unmatched"], log.counts["events_outside_window"]) == (6, 2, 2)
    assert log.notes == ["log.parquet: the log's own rewards are left out; they come from the events."]
    graded = events.with_columns(reward=pl.Series([2.0, 3.0, 1.0, 1.0, 1.0, 1.0]))
    log = read_served_log(write(tmp_path, rows().drop("reward")), write(tmp_path, graded, "events.parquet"), 101)
    assert log.rows["reward"].to_list() == [5.0, 0.0, 0.0, 1.0]


def test_events_that_break_the_contract(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    events = write(tmp_path, rows().select("request_id", "item_id"), "events.parquet")
    with pytest.raises(DataError, match=r"events\.parquet: no column 'timestamp'"):
        read_served_log(path, events)
    events = write(tmp_path, rows(item_id=["", "b", "c", "d"]), "events.parquet")
    with pytest.raises(DataError, match=r"events\.parquet: 1 of 4 values of 'item_id' are empty"):
        read_served_log(path, events)
    with pytest.raises(DataError, match="window must be 0 seconds or more, got -1"):
        read_served_log(path, write(tmp_path, rows(), "events.parquet"), -1)
