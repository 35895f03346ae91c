"""Checks of the data contract: tables of any origin become a Dataset with the contract's columns and types.

`read_dataset` and every importer end here. One set of checks decides between an error (DataError with the file, the
column, the count and the first bad row) and a counted note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from reckg.data.columns import conform_attributes
from reckg.data.schema import LINK_COLUMNS, SPLITS, TRIPLE_COLUMNS, ColumnKinds, Dataset, TimeKind
from reckg.data.text_table import ROW, Table, collect, require_columns
from reckg.data.timestamps import conform_timestamp
from reckg.data.value_checks import Check, check_values, id_checks, id_column
from reckg.errors import DataError


class NotedDataset(NamedTuple):
    """A dataset and its notes: the counted decisions made while it was read, one sentence each."""

    dataset: Dataset
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RawTables:
    """Tables with the contract's column names; types and values are not checked yet.

    ``item_columns`` and ``user_columns`` are the kinds of the attribute columns. None infers them.
    """

    name: str
    interactions: Table | tuple[Table, ...]  # several files: the parts of the table
    items: Table | None = None
    users: Table | None = None
    triples: Table | None = None
    links: Table | None = None
    item_columns: ColumnKinds | None = None
    user_columns: ColumnKinds | None = None
    time: TimeKind | None = None
    source: str = ""
    licence: str = ""


def conform(raw: RawTables, notes: list[str]) -> NotedDataset:
    """Checks and casts every table; the frames stay lazy.

    In the result every item_id of the interactions has a row in ``items``. Every user_id has a row in ``users`` if
    the data has users. Added rows are counted.

    Args:
        raw: the tables of a data set.
        notes: sentences about earlier steps; new ones are appended.
    Raises:
        DataError: missing columns, wrong types, empty or repeated ids, values that are no number, and the like.
    """
    parts = (raw.interactions,) if isinstance(raw.interactions, Table) else raw.interactions
    interactions, time = _conform_parts(parts, raw.time, notes)
    label = parts[0].label if len(parts) == 1 else f"the {len(parts)} files of interactions"
    items, item_columns = conform_attributes(raw.items, "item_id", raw.item_columns, notes)
    items = _complete(items, raw.items, interactions, label, "item_id", notes)
    users, user_columns = None, ColumnKinds()
    if raw.users is not None:
        users, user_columns = conform_attributes(raw.users, "user_id", raw.user_columns, notes)
        users = _complete(users, raw.users, interactions, label, "user_id", notes)
    triples = _conform_strings(raw.triples, tuple(TRIPLE_COLUMNS), notes)
    links = _conform_strings(raw.links, tuple(LINK_COLUMNS), notes)
    if links is not None and raw.links is not None:
        _note_links(links, items, raw.links.label, notes)
    dataset = Dataset(
        name=raw.name,
        interactions=interactions,
        items=items,
        users=users,
        triples=triples,
        links=links,
        item_columns=item_columns,
        user_columns=user_columns,
        time=time,
        source=raw.source,
        licence=raw.licence,
    )
    return NotedDataset(dataset, tuple(notes))


def _conform_parts(parts: Sequence[Table], time: TimeKind | None, notes: list[str]) -> tuple[pl.LazyFrame, TimeKind]:
    done = [_conform_interactions(part, time, notes) for part in parts]
    schemas = [frame.collect_schema() for frame, _ in done]
    for part, schema in zip(parts, schemas, strict=True):
        if schema != schemas[0]:
            raise DataError(
                f"{part.label} gives the columns {_names(schema.names())}, {parts[0].label} gives "
                f"{_names(schemas[0].names())}; the parts of one table must have the same."
            )
    return (done[0][0] if len(done) == 1 else pl.concat([frame for frame, _ in done])), done[0][1]


def _conform_interactions(table: Table, time: TimeKind | None, notes: list[str]) -> tuple[pl.LazyFrame, TimeKind]:
    require_columns(table, ("user_id", "item_id"))
    there = table.columns()
    schema = table.frame.collect_schema()
    if time in ("utc", "order") and "timestamp" not in there:
        raise DataError(f"{table.label}: no column 'timestamp', though the data set's time is {time!r}.")
    keep = [id_column(name, schema[name], table.label) for name in ("user_id", "item_id")]
    checks = id_checks(["user_id", "item_id"])
    if "weight" in there:
        keep.append(pl.col("weight").cast(pl.Float32, strict=False))
        checks.append(Check("weight", "weight", ~pl.col("weight").is_finite().fill_null(False), "are no finite number"))
    if "event" in there:
        keep.append(id_column("event", schema["event"], table.label))
        checks.append(Check("event", "event", (pl.col("event") == "").fill_null(True), "are empty"))
    if "split" in there:
        keep.append(pl.col("split").cast(pl.String, strict=False))
        checks.append(Check("split", "split", ~pl.col("split").is_in(SPLITS), f"are none of {', '.join(SPLITS)}"))
    kind: TimeKind = time or ("utc" if "timestamp" in there else "none")
    if kind != "none":
        keep.append(pl.col("timestamp"))
    elif "timestamp" in there:
        notes.append(f"{table.label}: column 'timestamp' is left out, for the data set's time is 'none'.")
    orders = ["order_id"] if "order_id" in there and kind != "none" else []
    keep += [pl.col(name).cast(pl.String, strict=False) for name in orders]
    notes += [f"{table.label}: the items of an {name} count as taken at its last row's time." for name in orders]
    known = {"user_id", "item_id", "timestamp", "weight", "event", "split", *orders}
    extra = [name for name in there if name not in known]
    if extra:
        notes.append(f"{table.label}: column {_names(extra)} left out; the contract has no place for it.")
    frame = table.frame.select(ROW, *keep)
    check_values(Table(frame, table.label, table.row_word), checks, notes, table.frame, ("user_id", "item_id"))
    if kind != "none":
        timestamp = conform_timestamp(Table(frame, table.label, table.row_word), kind, notes)
        frame = frame.with_columns(timestamp.alias("timestamp"))
    for name in orders:  # a row without an order stays as it is
        last = pl.col("timestamp").max().over("user_id", name)
        frame = frame.with_columns(pl.when(pl.col(name).is_null()).then("timestamp").otherwise(last))
    order = [name for name in ("user_id", "item_id", "timestamp", "weight", "event", "split") if name in there]
    return frame.select([name for name in order if name != "timestamp" or kind != "none"]), kind


def _conform_strings(table: Table | None, columns: Sequence[str], notes: list[str]) -> pl.LazyFrame | None:
    if table is None:
        return None
    require_columns(table, columns)
    schema = table.frame.collect_schema()
    frame = table.frame.select(ROW, *[id_column(name, schema[name], table.label) for name in columns])
    check_values(Table(frame, table.label, table.row_word), id_checks(columns), notes, table.frame, columns)
    extra = [name for name in table.columns() if name not in columns]
    if extra:
        notes.append(f"{table.label}: column {_names(extra)} left out; the contract has no place for it.")
    return frame.select(columns)


def _complete(
    frame: pl.LazyFrame | None, table: Table | None, interactions: pl.LazyFrame, label: str, key: str, notes: list[str]
) -> pl.LazyFrame:
    """Adds a row without attributes for every id of the interactions that the table lacks."""
    ids = interactions.select(key).unique()
    if frame is None or table is None:
        found = collect(ids, label).sort(key)
        notes.append(f"There is no table of {key}s: the {len(found):_} of {label} were taken, without attributes.")
        return found.lazy()
    missing = collect(ids.join(frame.select(key), on=key, how="anti"), label).sort(key)
    if not len(missing):
        return frame
    total = collect(ids.select(pl.len()), label).item()
    first = missing[key][0]
    if len(missing) == total:
        raise DataError(
            f"{table.label}: none of the {total:_} {key}s of {label} occurs in it (first: {first!r}). "
            "Are the ids written in the same way in both files?"
        )
    notes.append(
        f"{table.label}: {len(missing):_} of {total:_} {key}s of {label} have no row (first: {first!r}); "
        "added without attributes."
    )
    return pl.concat([frame, missing.lazy()], how="diagonal")


def _note_links(links: pl.LazyFrame, items: pl.LazyFrame, label: str, notes: list[str]) -> None:
    counts: dict[str, Any] = collect(links.select(rows=pl.len(), items=pl.col("item_id").n_unique()), label).row(
        0, named=True
    )
    stray = collect(links.join(items.select("item_id"), on="item_id", how="anti").select(pl.len()), label).item()
    if stray:
        notes.append(f"{label}: {stray:_} of {counts['rows']:_} links are of items that the items table lacks.")
    if counts["items"] < counts["rows"]:
        notes.append(f"{label}: {counts['rows'] - counts['items']:_} links repeat an item; all are kept.")


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))
