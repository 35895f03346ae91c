"""Times written as text: ISO dates and times, dates with the day or the month first, month names, 12-hour clocks."""

from __future__ import annotations

import polars as pl

from reckg.data.text_table import ROW, Table, collect
from reckg.errors import DataError

SAMPLE = 1000  # first values that choose the forms
_YEAR_LAST = r"^(\d{1,2})[/.\-](\d{1,2})[/.\-](\d{4})(.*)$"
_YEAR_FIRST = r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})"
_ISO_TIMES = ("T%H:%M:%S%.f", "T%H:%M", "T%I:%M:%S %p", "T%I:%M %p", "")
_DATES = ("%Y-%m-%d", "%d-%b-%Y", "%b-%d-%Y")
# Patterns and their replacements, in this order: zones, dates with the year first, month names, the T, 12-hour clocks.
_REWRITTEN = (
    (r"(?i)\s*(?:utc|gmt|z)$", "+0000"),
    (r"(:\d{2}(?:\.\d+)?)\s*([+\-]\d{2})$", "${1}${2}00"),
    (_YEAR_FIRST, "${1}-${2}-${3}"),
    (r"(?i)^(\d{1,2})[ \-]([a-z]{3})[a-z]{0,6}\.?,?[ \-](\d{4}),?", "${1}-${2}-${3}"),
    (r"(?i)^([a-z]{3})[a-z]{0,6}\.? (\d{1,2}),? (\d{4}),?", "${1}-${2}-${3}"),
    (r"^(\S*\d{4}|\d{4}-\S+) +(\d)", "${1}T${2}"),
    (r"(?i)(\d)\s*([ap])\.?m\.?$", "${1} ${2}m"),
)
USUAL = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d")
FORMS = (
    *USUAL,
    *(date + time + zone for date in _DATES for time in _ISO_TIMES for zone in ("%z", "") if time or not zone),
)


def parse_times(table: Table, text: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Parses a column of texts. Times without a zone are taken as UTC.

    Args:
        table: for the values of the column.
        text: without blanks at the ends.
    Returns:
        Expressions for the time (Datetime, UTC; null for a text that is no time) and for whether a zone was given.
    Raises:
        DataError: a date has two readings, or both orders occur.
    """
    iso = _with_iso_dates(table, text)
    sample = collect(table.frame.select(iso.alias("text")).head(SAMPLE), table.label)["text"].drop_nulls().unique()
    seen = [form for form in FORMS if form in USUAL or _reads(sample, form)]
    zoned = [_parsed(iso, form).dt.replace_time_zone(None) for form in seen if form.endswith("%z")]
    naive = [_parsed(iso, form) for form in seen if not form.endswith("%z")]
    return pl.coalesce(*zoned, *naive), pl.any_horizontal(*(each.is_not_null() for each in zoned))


def _parsed(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.to_datetime(form, strict=False, time_unit="us")


def _reads(sample: pl.Series, form: str) -> bool:
    found = sample.str.to_datetime(form, strict=False, time_unit="us")
    return found.null_count() < len(sample)


def _with_iso_dates(table: Table, given: pl.Expr) -> pl.Expr:
    """Brings dates to the form 2024-01-31 or 31-Jan-2024, with "T" before the time and zones as +0000."""
    text = given
    for pattern, form in _REWRITTEN:
        text = text.str.replace(pattern, form)
    order = _day_and_month(table, text, given)
    if order is None:
        return text
    day, month = ("${1}", "${2}") if order == "day" else ("${2}", "${1}")
    return text.str.replace(_YEAR_LAST, "${3}-" + month + "-" + day + "${4}")


def _day_and_month(table: Table, text: pl.Expr, given: pl.Expr) -> str | None:
    """Tells whether dates such as 31/01/2024 begin with the day or the month; None without such dates.

    Args:
        given: the texts as they are in the file, for the message.
    """
    first, second, year = (text.str.extract(_YEAR_LAST, group).cast(pl.Int64, strict=False) for group in (1, 2, 3))
    there = first.is_not_null()
    counts = (there.sum().alias("all"), (first > 12).sum().alias("day"), (second > 12).sum().alias("month"))
    shown = {"row": pl.col(ROW), "text": given, "first": first, "second": second, "year": year}
    example = [value.filter(there).first().alias(name) for name, value in shown.items()]
    found = collect(table.frame.select(*counts, *example), table.label).row(0, named=True)
    if not found["all"]:
        return None
    if bool(found["day"]) != bool(found["month"]):
        return "day" if found["day"] else "month"
    where = f"{table.label}: {table.row_word} {found['row']}: 'timestamp' is {found['text']!r}"
    if found["day"]:
        raise DataError(
            f"{where}. {found['day']:_} of {found['all']:_} such dates can only begin with the day, and "
            f"{found['month']:_} only with the month. Write all as 2024-01-31."
        )
    readings = [f"{found['year']}-{month:02}-{day:02}" for day, month in _both(found["first"], found["second"])]
    raise DataError(
        f"{where}: {readings[0]} if the day comes first, {readings[1]} if the month does, and no other row tells "
        "which. Write dates as 2024-01-31."
    )


def _both(first: int, second: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pairs day and month in both orders."""
    return (first, second), (second, first)
