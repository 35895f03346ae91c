"""Checks of a table's values in one streamed query, with the count and the first row of bad values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from reckg.data.text_table import ROW, Table, collect
from reckg.errors import DataError


class Check(NamedTuple):
    """A check of a column.

    Attributes:
        column: the checked column.
        origin: the column to quote a bad value from.
        bad: true for a value that breaks the contract.
        problem: the problem in words, after "3 of 9 values".
    """

    column: str
    origin: str
    bad: pl.Expr
    problem: str


def id_checks(columns: Sequence[str]) -> list[Check]:
    """Returns checks that refuse empty ids in columns."""
    return [Check(name, name, (pl.col(name) == "").fill_null(True), "are empty") for name in columns]


def id_column(name: str, dtype: pl.DataType, label: str) -> pl.Expr:
    """Casts a column of ids to strings. Raises DataError if its type cannot hold ids."""
    if dtype == pl.String:
        return pl.col(name)
    if dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum) or dtype == pl.Null:
        return pl.col(name).cast(pl.String)
    raise DataError(f"{label}: column {name!r} is of type {dtype}; it must hold strings or integers. Convert it first.")


def check_values(
    table: Table, checks: Sequence[Check], notes: list[str], origin: pl.LazyFrame | None = None, ids: Sequence[str] = ()
) -> int:
    """Runs the checks.

    Args:
        table: the table, with columns already cast.
        checks: the checks to run.
        notes: gets a sentence for ids with white space at their ends, which is kept.
        origin: the frame before the casts, to quote the first bad value as it was written.
        ids: columns of ids.
    Returns:
        the number of rows.
    Raises:
        DataError: the table has no rows or bad values; the message names every failed check with its count and first
            row.
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
            quote = "" if value is None or value == "" else f", {str(value)[:60]!r}"
            problems.append(
                f"{found[f'bad {i}']:_} of {found['rows']:_} values of {check.column!r} {check.problem} "
                f"(first: {table.row_word} {first}{quote})"
            )
    if problems:
        raise DataError(f"{table.label}: {'; '.join(problems)}.")
    for c in padded:
        if found[f"padded {c}"]:
            count = found[f"padded {c}"]
            notes.append(f"{table.label}: {count:_} values of {c!r} begin or end with white space; kept as they are.")
    return int(found["rows"])
