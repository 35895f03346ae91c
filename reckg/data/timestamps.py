"""Conversion of timestamps in any usual form to epoch seconds (UTC), or to places in a user's order."""

from __future__ import annotations

import time as clock
from typing import NamedTuple

import polars as pl

from reckg.data.schema import TimeKind
from reckg.data.text_table import ROW, Table, collect
from reckg.data.text_times import parse_times
from reckg.data.value_checks import Check, check_values
from reckg.errors import DataError

AHEAD_S = 86_400  # a time may be so far ahead of the clock, because clocks of devices are wrong
_DATES = (("%Y%m%d", 1900_01_01, 2100_12_31), ("%Y%m%d%H%M%S", 1900_01_01_000000, 2100_12_31_235959))
_EXCEL = (20_000, 80_000)  # day numbers of a sheet from 1954 to 2119
_WAY_OUT = "Write epoch seconds or dates such as 2024-01-31T10:00:00Z"
# Seconds reach 1e11 in the year 5138; milliseconds are above that from 1973 on, and so forth.
_UNITS = (("seconds", 1.0, 1e11), ("milliseconds", 1e3, 1e14), ("microseconds", 1e6, 1e17), ("nanoseconds", 1e9, 1e20))


class _Parsed(NamedTuple):
    value: pl.Expr  # Float64 or Int64, null for a value that is no time
    problem: str


def conform_timestamp(table: Table, time: TimeKind, notes: list[str]) -> pl.Expr:
    """Builds an expression that converts the column ``timestamp`` to Int64.

    Milliseconds, micro- and nanoseconds are recognised by their size and divided. A fraction of a second is cut off.
    Numbers such as 20240131 and 20240131100000 are dates and times. All this is noted. Dates and times without a zone
    are taken as UTC.

    Args:
        table: a table with the column ``timestamp``.
        time: ``utc`` for epoch seconds, ``order`` for places in a user's order.
        notes: gets a sentence for every counted decision.
    Raises:
        DataError: values are no times, negative or ahead of the clock, their units differ from row to row, or they look
            like day numbers of a sheet.
    """
    dtype = table.frame.collect_schema()["timestamp"]
    if dtype == pl.String:
        parsed = _parse_string(table, time, notes)
    elif dtype.is_temporal() and dtype not in (pl.Time, pl.Duration) and time == "utc":
        if dtype == pl.Date or getattr(dtype, "time_zone", None) is None:
            notes.append(f"{table.label}: 'timestamp' has no time zone; taken as UTC.")
        moment = pl.col("timestamp").cast(pl.Datetime("us")) if dtype == pl.Date else pl.col("timestamp")
        parsed = _Parsed(moment.dt.epoch("s"), "are empty")
    elif dtype.is_numeric():
        parsed = _Parsed(
            pl.col("timestamp").cast(pl.Float64 if dtype.is_float() else pl.Int64, strict=False), "are empty"
        )
    else:
        raise DataError(f"{table.label}: column 'timestamp' is of type {dtype}, expected epoch seconds or dates.")
    value = parsed.value
    number = value.cast(pl.Float64)
    bad = ~number.is_finite().fill_null(False)
    checks = [
        Check("timestamp", "timestamp", bad, parsed.problem),
        Check("timestamp", "timestamp", (number < 0) & ~bad, "are before 1970" if time == "utc" else "are negative"),
        Check("timestamp", "timestamp", (number >= 1e20) & ~bad, "are too large"),
    ]
    rows = check_values(table, checks, [])
    whole = (value.floor() if _is_float(table, value) else value).cast(pl.Int64, strict=False)
    if time == "order":
        return whole
    seconds = whole if dtype.is_temporal() else _numbers_to_seconds(table, value, number, rows, notes)
    _refuse_ahead(table, seconds)
    return seconds


def _refuse_ahead(table: Table, seconds: pl.Expr) -> None:
    """Raises DataError if times are more than AHEAD_S ahead of the clock. One such row would age all others."""
    now = int(clock.time())
    moment = pl.from_epoch(seconds.clip(0, 10**11)).dt.strftime("%Y-%m-%d %H:%M UTC").alias("moment")
    shown = Table(table.frame.with_columns(moment), table.label, table.row_word)
    problem = "are more than a day ahead of the clock; correct these rows or leave them out"
    check_values(shown, [Check("timestamp", "moment", seconds > now + AHEAD_S, problem)], [])


def _numbers_to_seconds(table: Table, value: pl.Expr, number: pl.Expr, rows: int, notes: list[str]) -> pl.Expr:
    """Reads numbers as dates if all of them are written as such, else as epoch seconds or fractions of these."""
    span = collect(table.frame.select(number.min().alias("low"), number.max().alias("high")), table.label).row(0)
    if _EXCEL[0] <= span[0] and span[1] <= _EXCEL[1]:
        raise DataError(
            f"{table.label}: the values of 'timestamp' are from {span[0]:g} to {span[1]:g}. These look like the day "
            f"numbers of a sheet (45292 is 2024-01-01), not like seconds. {_WAY_OUT}."
        )
    for form, low, high in _DATES:
        if low <= span[0] and span[1] <= high:
            moment = number.cast(pl.Int64).cast(pl.String).str.to_datetime(form, strict=False, time_unit="us")
            wrong = collect(
                table.frame.select((moment.is_null() | (number != number.floor())).sum()), table.label
            ).item()
            if not wrong:
                pair = number.cast(pl.Int64).first().alias("number"), moment.first().alias("moment")
                first = collect(table.frame.select(pair), table.label).row(0)
                notes.append(f"{table.label}: 'timestamp' has dates written as numbers; {first[0]} is {first[1]} UTC.")
                return moment.dt.epoch("s")
    return _to_seconds(table, value, number, rows, notes)


def _is_float(table: Table, value: pl.Expr) -> bool:
    return table.frame.select(value.alias("v")).collect_schema()["v"].is_float()


def _to_seconds(table: Table, value: pl.Expr, number: pl.Expr, rows: int, notes: list[str]) -> pl.Expr:
    lower = 0.0
    exprs = []
    for name, divisor, upper in _UNITS:
        inside = (number >= lower) & (number < upper) & (number > 0)
        exprs += [inside.sum().alias(name), pl.col(ROW).filter(inside).min().alias(f"first {name}")]
        exprs.append((inside & ((number / divisor).floor() * divisor != number)).sum().alias(f"cut {name}"))
        lower = upper
    found = collect(table.frame.select(exprs), table.label).row(0, named=True)
    used = [unit for unit in _UNITS if found[unit[0]]]
    if len(used) > 1:
        listed = ", ".join(f"{found[n]:_} in {n} (first: {table.row_word} {found[f'first {n}']})" for n, _, _ in used)
        raise DataError(f"{table.label}: the {rows:_} values of 'timestamp' look to be of different units: {listed}.")
    name, divisor, _ = used[0] if used else _UNITS[0]
    if name != "seconds":
        notes.append(
            f"{table.label}: {found[name]:_} of {rows:_} values of 'timestamp' are in {name} "
            f"(first: {table.row_word} {found[f'first {name}']}); divided by {divisor:_.0f} to seconds."
        )
    if found[f"cut {name}"]:
        notes.append(f"{table.label}: {found[f'cut {name}']:_} values of 'timestamp' have a fraction of a second; cut.")
    if not _is_float(table, value):
        return value.floordiv(int(divisor)).cast(pl.Int64)
    return (value / divisor).floor().cast(pl.Int64)


def _parse_string(table: Table, time: TimeKind, notes: list[str]) -> _Parsed:
    """Parses numbers or dates and times, by the form of the first values."""
    text = pl.col("timestamp").str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    sample = collect(table.frame.select(text, number.alias("number")).head(100), table.label)
    given = sample["timestamp"].drop_nulls().len()
    if time == "order" or sample["number"].drop_nulls().len() * 2 >= given:
        return _Parsed(number, "are no number")
    moment, has_zone = parse_times(table, text)
    unzoned = collect(table.frame.select((~has_zone & moment.is_not_null()).sum()), table.label).item()
    if unzoned:
        notes.append(f"{table.label}: {unzoned:_} values of 'timestamp' have no time zone; taken as UTC.")
    return _Parsed(moment.dt.epoch("s"), "are neither a number nor a date and time. Write them as 2024-01-31T10:00:00Z")
