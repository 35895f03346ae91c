"""The log of served recommendations: its columns, and the reading of files that may break them.

A row is a shown item. A log is a file, or a folder of parts of the same shape. Rewards may come from a second table of
events in place of the log's own column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from reckg.data.read import EXTENSIONS, open_table
from reckg.data.text_table import ROW, Table, collect, require_columns
from reckg.data.timestamps import conform_timestamp
from reckg.data.value_checks import Check, check_values, id_checks, id_column
from reckg.errors import DataError

# Columns that the server writes and the reader returns; see docs/evaluation-from-logs.md.
SCHEMA: dict[str, pl.DataType] = {
    "request_id": pl.String(),
    "user_id": pl.String(),  # absent or null: not known
    "timestamp": pl.Int64(),  # epoch seconds
    "variant": pl.String(),  # variant of the request, or of the item if two were interleaved
    "position": pl.Int64(),  # 1 is the first place
    "item_id": pl.String(),
    "propensity": pl.Float64(),  # 0..1; null: not logged
    "score": pl.Float64(),
    "reward": pl.Float64(),  # 0 or 1: taken; or any number
    "bundle_version": pl.String(),
    "placement": pl.String(),  # place in the product
}
REQUIRED = ("request_id", "timestamp", "position", "item_id")
EVENT_COLUMNS = ("request_id", "item_id", "timestamp")
_IDS = ("request_id", "item_id")
_FILE = "__file__"


@dataclass(frozen=True)
class ServedLog:
    """A log as read.

    Args:
        rows: the columns of SCHEMA, in the order of the files and their rows.
        counts: files, rows, repeated (exact repeats, left out), requests, and with events events, events_unmatched (of
            an item that was not shown), events_outside_window.
        notes: decisions, a sentence each.
    """

    rows: pl.DataFrame
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)


def read_served_log(path: Path, events: Path | None = None, window_s: int = 86_400) -> ServedLog:
    """Reads a log of served recommendations: a Parquet, CSV, TSV or JSON Lines file, or a folder of such parts.

    Args:
        path: the file or folder. Files of a folder that begin with a dot or an underscore are unfinished, and left out.
        events: a table of request_id, item_id, timestamp and, optionally, reward. The log's own rewards are then left
            out. An item's reward is the sum of its events' rewards; 1 if the table has no such column.
        window_s: seconds after the request within which an event counts.
    Raises:
        DataError: anything that breaks the contract, with the file, the column, the count and the first row.
    """
    notes: list[str] = []
    files = _files(Path(path), notes)
    parts = [part for file in files if (part := _read_part(file, events is None, notes)) is not None]
    if not parts:
        raise DataError(f"{path} holds no rows: nothing was served, or nothing was logged.")
    rows = pl.concat(parts)
    distinct = rows.unique(subset=list(SCHEMA), maintain_order=True)
    counts = {"files": len(files), "rows": len(distinct), "repeated": len(rows) - len(distinct)}
    _check_requests(distinct)
    log = distinct.select(list(SCHEMA))
    counts["requests"] = log["request_id"].n_unique()
    if events is not None:
        log = _with_events(log, Path(events), window_s, counts, notes)
    return ServedLog(log, counts, notes)


def _files(path: Path, notes: list[str]) -> list[Path]:
    """Lists the parts by name."""
    if not path.is_dir():
        return [path]
    there = sorted(path.iterdir())
    parts = [p for p in there if p.is_file() and p.suffix.lower() in EXTENSIONS and p.name[0] not in "._"]
    if not parts:
        raise DataError(f"{path} holds no part of a log; expected files that end in {', '.join(EXTENSIONS)}.")
    if len(parts) < len(there):
        others = [p.name for p in there if p not in parts]
        notes.append(f"{path.name}: {len(others):,} entries are no parts of the log (first: {others[0]!r}); left out.")
    return parts


def _read_part(path: Path, with_reward: bool, notes: list[str]) -> pl.DataFrame | None:
    """Reads a file with the columns of SCHEMA, _FILE and ROW; None for a file without rows."""
    table = open_table(path, notes)
    if path.suffix.lower() == ".parquet" and not collect(table.frame.select(pl.len()), table.label).item():
        notes.append(f"{path.name} holds no rows.")
        return None
    require_columns(table, (*REQUIRED, "reward") if with_reward else REQUIRED)
    there = table.columns()
    extra = [name for name in there if name not in SCHEMA]
    if extra:
        notes.append(f"{path.name}: column {', '.join(map(repr, extra))} left out; it is not the log's.")
    if "reward" in there and not with_reward:
        notes.append(f"{path.name}: the log's own rewards are left out; they come from the events.")
        there.remove("reward")
    frame = _checked(table, [name for name in there if name in SCHEMA], notes)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in there]
    return frame.with_columns(*missing, pl.lit(path.name).alias(_FILE)).select(*SCHEMA, _FILE, ROW)


def _checked(table: Table, there: Sequence[str], notes: list[str]) -> pl.DataFrame:
    """Converts columns to the contract's types. Raises DataError for a value that does not convert."""
    types = table.frame.collect_schema()
    ids = [name for name in there if SCHEMA[name] == pl.String]
    numbers = [name for name in there if SCHEMA[name] == pl.Float64 or name == "position"]
    for name in numbers:
        if not (types[name].is_numeric() or types[name] in (pl.String, pl.Boolean, pl.Null)):
            raise DataError(f"{table.label}: column {name!r} is of type {types[name]}; it must hold numbers.")
    columns = [id_column(name, types[name], table.label).alias(name) for name in ids if name in _IDS]
    known = {name: id_column(name, types[name], table.label) for name in ids if name not in _IDS}
    columns += [pl.when(value != "").then(value).alias(name) for name, value in known.items()]
    columns += [pl.col(name).cast(pl.Float64, strict=False).alias(name) for name in numbers]
    cast = Table(
        table.frame.with_columns(*columns, *[pl.col(name).is_not_null().alias(f"given {name}") for name in numbers]),
        table.label,
        table.row_word,
    )
    check_values(cast, [*id_checks([n for n in ids if n in _IDS]), *_number_checks(numbers)], notes, table.frame, _IDS)
    when = conform_timestamp(cast, "utc", notes)
    exact = [when.alias("timestamp"), *[pl.col(name).cast(pl.Int64) for name in there if name == "position"]]
    return collect(cast.frame.with_columns(exact).select(ROW, *there), table.label)


def _number_checks(numbers: Sequence[str]) -> list[Check]:
    """Checks that numbers are valid: a place is a whole number from 1, a propensity a probability."""
    checks = []
    for name in numbers:
        value, given = pl.col(name), pl.col(f"given {name}")
        finite = value.is_finite().fill_null(False)
        checks.append(Check(name, name, given & ~finite, "are no number"))
        if name == "position":
            checks.append(Check(name, name, finite & ((value < 1) | (value != value.floor())), "are no place from 1"))
        if name == "propensity":
            checks.append(Check(name, name, finite & ((value < 0) | (value > 1)), "are no probability"))
        if name in ("position", "reward"):
            checks.append(Check(name, name, ~given, "are empty"))
    return checks


def _check_requests(rows: pl.DataFrame) -> None:
    """Raises DataError for a request with two items at a place, an item twice, or two users."""
    for name, what in (("position", "a place"), ("item_id", "an item")):
        twice = rows.filter(pl.struct("request_id", name).is_duplicated())
        if len(twice):
            raise DataError(
                f"{_where(twice)}: {len(twice):_} of {len(rows):_} rows have {what} of their request that another row "
                f"has, too ({_first(twice, name)}); a row is one shown item."
            )
    users = rows.group_by("request_id", maintain_order=True).agg(pl.col("user_id").n_unique().alias("users"))
    mixed = rows.join(users.filter(pl.col("users") > 1), on="request_id", how="semi", maintain_order="left")
    if len(mixed):
        raise DataError(
            f"{_where(mixed)}: {mixed['request_id'].n_unique():_} requests have more than one 'user_id' "
            f"({_first(mixed, 'user_id')}); a request is of one user."
        )


def _where(rows: pl.DataFrame) -> str:
    return str(rows[_FILE][0])


def _first(rows: pl.DataFrame, name: str) -> str:
    row = rows.row(0, named=True)
    return f"first: row {row[ROW]}, request {row['request_id']!r}, {name} {row[name]!r}"


def _with_events(
    log: pl.DataFrame, path: Path, window_s: int, counts: dict[str, int], notes: list[str]
) -> pl.DataFrame:
    """Adds the rewards of an event table to the log, and counts to ``counts``."""
    if window_s < 0:
        raise DataError(f"an event's window must be 0 seconds or more, got {window_s}.")
    table = open_table(path, notes)
    require_columns(table, EVENT_COLUMNS)
    graded = "reward" in table.columns()
    names = [*EVENT_COLUMNS, "reward"] if graded else list(EVENT_COLUMNS)
    events = _checked(table, names, notes).with_row_index("event").rename({"timestamp": "taken"})
    shown = log.select("request_id", "item_id", shown="timestamp")
    matched = events.join(shown, on=["request_id", "item_id"], how="inner")
    inside = matched.filter((pl.col("taken") - pl.col("shown")).is_between(0, window_s))
    counts |= {
        "events": len(events),
        "events_unmatched": len(events) - len(matched),
        "events_outside_window": len(matched) - len(inside),
    }
    reward = pl.col("reward").sum() if graded else pl.lit(1.0).alias("reward")
    gained = inside.group_by("request_id", "item_id").agg(reward)
    joined = log.drop("reward").join(gained, on=["request_id", "item_id"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("reward").fill_null(0.0)).select(list(SCHEMA))
