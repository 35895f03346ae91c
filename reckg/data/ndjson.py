"""JSON Lines files as lazy tables."""

from __future__ import annotations

import codecs
import io
import json
from pathlib import Path

import polars as pl

from reckg.data.text_table import ROW, Table, collect, open_lines
from reckg.errors import DataError


def open_ndjson(path: Path, notes: list[str]) -> Table:
    """Opens a file with one JSON object per line as a lazy table.

    Columns have the types of their values. Blank lines are left out and counted; row numbers do not count them.

    Args:
        path: the file.
        notes: gets a sentence for every counted decision.
    Raises:
        DataError: lines that are no JSON object (with their count and the first), or a column of mixed types.
    """
    lines = open_lines(path, notes)
    line = pl.col("line").str.strip_chars()
    odd = ~(line.str.starts_with("{") & line.str.ends_with("}"))
    found = collect(lines.frame.select(odd.sum().alias("odd"), pl.len().alias("rows")), path.name).row(0)
    if found[0]:
        _refuse(path)
    with path.open("rb") as file:
        bom = file.read(3) == codecs.BOM_UTF8
    pattern = any(mark in str(path) for mark in "*?[")  # scan_ndjson would expand such a path
    source = io.BytesIO(path.read_bytes().removeprefix(codecs.BOM_UTF8)) if bom or pattern else path
    try:
        frame = pl.scan_ndjson(source, infer_schema_length=None, row_index_name=ROW, row_index_offset=1)
        frame.collect_schema()
        frame.select(pl.all().count()).collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        _refuse(path)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        raise DataError(f"{path.name}: its lines do not make one table: {reason}. Has a column mixed types?") from error
    return Table(frame, path.name)


def _refuse(path: Path) -> None:
    """Raises a DataError that counts the lines that are no JSON object. Returns if all are."""
    bad, first, total = 0, 0, 0
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            total += 1
            try:
                fine = isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                fine = False
            if not fine:
                bad += 1
                first = first or number
    if bad:
        raise DataError(f"{path.name}: {bad:_} of {total:_} lines are no JSON object (first: line {first}).")
