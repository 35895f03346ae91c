"""Importer of sequence files: one line per user, the user's id and then item ids in time order (SASRec, S3-Rec)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.schema import ColumnKinds
from reckg.data.text_table import ROW, Table, collect, open_lines
from reckg.errors import DataError

_SUFFIX = "_item2attributes.json"


def import_sequences(src: Path, *, name: str | None = None) -> NotedDataset:
    """Reads a sequence file and, if present, the `*_item2attributes.json` beside it.

    An interaction's timestamp is its place in the user's line, from 0; `Dataset.time` is ``order``. The attributes
    become one list column, ``attribute``.

    Args:
        src: the file, or a folder with one .txt file.
        name: of the data set; default: the file's.
    Raises:
        DataError: no line has a user and an item, a user is on two lines, or the attribute file is broken.
    """
    path = _find(Path(src))
    notes: list[str] = []
    lines = open_lines(path, notes)
    sequences = _sequences(lines, notes)
    items = _attributes(path, name, sequences, notes)
    raw = RawTables(
        name=name or path.stem,
        interactions=Table(sequences.frame.explode("item_id", "timestamp"), path.name, "line"),
        items=items,
        item_columns=ColumnKinds(list=("attribute",)) if items else None,
        time="order",
        source=f"sequence file {path.name}",
    )
    return conform(raw, notes)


def split_sequences(lines: Table, notes: list[str], noun: str = "user") -> Table:
    """Splits lines of white-space separated ids into columns ``user_id`` and ``item_id`` (a list, never empty).

    Args:
        lines: a table with the column ``line``.
        notes: gets a sentence about lines without items, which are left out.
        noun: the kind of a line's first id in messages.
    Raises:
        DataError: no line holds an item, or an id is the first of two lines.
    """
    ids = pl.col("line").str.strip_chars().str.replace_all("[ \t]+", " ").str.split(" ")
    frame = lines.frame.select(ROW, ids.list.first().alias("user_id"), ids.list.slice(1).alias("item_id"))
    bare = pl.col("item_id").list.len() == 0
    query = frame.select(pl.len(), bare.sum().alias("bare"), pl.col("user_id").n_unique().alias("users"))
    rows, without, users = collect(query, lines.label).row(0)
    if without == rows:
        raise DataError(f"{lines.label}: no line holds a {noun} and an item separated by spaces.")
    if users < rows:
        doubles = collect(frame.filter(pl.col("user_id").is_duplicated()).select(ROW, "user_id"), lines.label).sort(ROW)
        row, user = doubles.row(0)
        raise DataError(
            f"{lines.label}: {rows - users:_} of {rows:_} lines repeat a {noun} id (first: line {row}, {user!r}); "
            f"give every {noun} one line."
        )
    if without:
        notes.append(f"{lines.label}: {without:_} of {rows:_} lines hold a {noun} without items; left out.")
    return Table(frame.filter(~bare), lines.label, "line")


def _sequences(lines: Table, notes: list[str]) -> Table:
    table = split_sequences(lines, notes)
    places = pl.int_ranges(0, pl.col("item_id").list.len()).alias("timestamp")
    return Table(table.frame.with_columns(places), table.label, "line")


def _find(src: Path) -> Path:
    if not src.is_dir():
        return src
    files = sorted(src.glob("*.txt"))
    if len(files) != 1:
        raise DataError(f"{src} holds {len(files)} .txt files; name the sequence file itself.")
    return files[0]


def _attributes(path: Path, name: str | None, sequences: Table, notes: list[str]) -> Table | None:
    file = path.with_name(path.stem + _SUFFIX)
    if not file.exists():
        notes.append(f"There is no {file.name} beside {path.name}: the items have no attributes.")
        return None
    values = _read_attributes(file, notes)
    table = pl.LazyFrame(
        {ROW: range(1, len(values) + 1), "item_id": list(values), "attribute": list(values.values())},
        schema={ROW: pl.Int64, "item_id": pl.String, "attribute": pl.List(pl.String)},
    )
    used = sequences.frame.select(pl.col("item_id").explode()).unique()
    unused = collect(table.join(used, on="item_id", how="anti").select(pl.len()), file.name).item()
    if unused:
        notes.append(f"{file.name}: {unused:_} of {len(values):_} items occur in no sequence; kept.")
    return Table(table, file.name, "entry")


def _read_attributes(file: Path, notes: list[str]) -> dict[str, list[str]]:
    repeated = 0

    def pairs(entries: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        repeated += len(entries) - len({key for key, _ in entries})
        return dict(entries)

    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file.name} is no JSON: {error}. Is it cut off?") from error
    if not isinstance(values, dict) or not values:
        raise DataError(f"{file.name} must be a JSON object of item id -> list of attributes, and not empty.")
    if repeated:
        raise DataError(f"{file.name}: {repeated:_} item ids are repeated; give every item one list.")
    odd = [key for key, value in values.items() if not _is_list_of_scalars(value)]
    if odd:
        raise DataError(
            f"{file.name}: {len(odd):_} of {len(values):_} entries are no list of strings (first: {odd[0]!r})."
        )
    return {key: [str(part) for part in value] for key, value in values.items()}


def _is_list_of_scalars(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str | int | float) for part in value)
