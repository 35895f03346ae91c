"""Checks of a table's values, all in one streamed query: how many are bad, and where the first one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from reckg.data.text_table import ROW, Table, collect
from reckg.errors import DataError


class Check(NamedTuple):
    """``bad`` is true where a value of ``column`` breaks the contract; ``origin`` is the column to quote from."""

    column: str
    origin: str
    bad: pl.Expr
    what: str


def id_checks(columns: Sequence[str]) -> list[Check]:
    """The checks of columns of ids: none may be empty."""
    return [Check(name, name, (pl.col(name) == "").fill_null(True), "are empty") for name in columns]


def id_column(name: str, dtype: pl.DataType, label: str) -> pl.Expr:
    """The column as strings. Raises DataError where its type cannot hold ids."""
    if dtype == pl.String:
        return pl.col(name)
    if dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum) or dtype == pl.Null:
        return pl.col(name).cast(pl.String)
    raise DataError(f"{label}: column {name!r} is of type {dtype}; it must hold strings or integers. Convert it first.")


def check_values(
    table: Table, checks: Sequence[Check], notes: list[str], origin: pl.LazyFrame | None = None, ids: Sequence[str] = ()
) -> int:
    """Runs the checks; returns the number of rows.

    Args:
        ids: columns of ids, in which white space at the ends is noted, and kept.
        origin: the frame before its columns were cast, to quote the first bad value as it was written.
    Raises:
        DataError: no rows, or any bad value: every check that fails, with its count and the first row.
    """
    exprs = [pl.len().alias("rows")]
    schema = table.frame.collect_schema()
    padded = [name for name in ids if schema[name] == pl.String]
    for i, check in enumerate(checks):
        exprs.append(check.bad.sum().alias(f"bad {i}"))
        exprs.append(pl.col(ROW).filter(check.bad).min().alias(f"first {i}"))
    exprs.extend((pl.col(c) != pl.col(c).str.strip_chars()).sum().alias(f"padded {c}") for c in padded)
    found = collect(table.frame.select(exprs), table.label).row(0, named=True)
    if not found["rows"]:
        raise DataError(f"{table.label} holds no rows.")
    problems = []
    for i, check in enumerate(checks):
        if found[f"bad {i}"]:
            first = found[f"first {i}"]
            quoted = table.frame if origin is None else origin
            value = collect(quoted.filter(pl.col(ROW) == first).select(check.origin), table.label).item(0, 0)
            said = "" if value is None or value == "" else f", {str(value)[:60]!r}"
            problems.append(
                f"{found[f'bad {i}']:_} of {found['rows']:_} values of {check.column!r} {check.what} "
                f"(first: {table.row_word} {first}{said})"
            )
    if problems:
        raise DataError(f"{table.label}: {'; '.join(problems)}.")
    for c in padded:
        if found[f"padded {c}"]:
            count = found[f"padded {c}"]
            notes.append(f"{table.label}: {count:_} values of {c!r} begin or end with white space; kept as they are.")
    return int(found["rows"])
