"""Times as people and programs write them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from reckg.data.text_table import ROW, Table
from reckg.data.timestamps import conform_timestamp
from reckg.errors import DataError

TEN = int(datetime(2024, 1, 31, 10, 5, tzinfo=UTC).timestamp())
MIDNIGHT = int(datetime(2024, 1, 31, tzinfo=UTC).timestamp())


def seconds(*texts: str) -> list[int]:
    frame = pl.LazyFrame({"timestamp": texts}).with_row_index(ROW, offset=2)
    table = Table(frame, "log.csv", "line")
    return frame.select(conform_timestamp(table, "utc", [])).collect().to_series().to_list()


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31T10:05:00Z",
        "2024-01-31 10:05:00 UTC",
        "2024-01-31T10:05",
        "2024-01-31 10:05",
        "2024-01-31T12:05:00+02",
        "2024-01-31T12:05:00+0200",
        "2024-01-31 12:05:00+02:00",
        "2024-01-31 12:05+02:00",
        "2024-01-31T10:05:00.000Z",
        "2024/01/31 10:05:00",
        "31/01/2024 10:05",
        "01/31/2024 10:05:00",
        "31.01.2024 10:05",
        "31-01-2024 10:05",
        "2024-01-31 10:05 AM",
        "01/31/2024 10:05:00 am",
        "31 Jan 2024 10:05",
        "31-Jan-2024 10:05:00",
        "January 31, 2024 10:05",
        "Jan 31, 2024, 10:05 AM",
        "31 January 2024 10:05:00 UTC",
    ],
)
def test_a_time_is_read_in_its_form(text: str) -> None:
    assert seconds(text) == [TEN]


@pytest.mark.parametrize("text", ["2024-01-31", "31/01/2024", "1/31/2024", "31 Jan 2024", "Jan 31, 2024", "2024.01.31"])
def test_a_date_is_its_midnight(text: str) -> None:
    assert seconds(text) == [MIDNIGHT]


def test_the_afternoon_is_twelve_hours_later() -> None:
    assert seconds("2024-01-31 10:05 PM") == [TEN + 12 * 3600]
    assert seconds("2024-01-31 12:05 AM") == [TEN - 10 * 3600]


def test_one_date_tells_the_order_of_all() -> None:
    assert seconds("01/02/2024", "31/01/2024") == [MIDNIGHT + 86_400, MIDNIGHT]
    assert seconds("02/01/2024", "01/31/2024") == [MIDNIGHT + 86_400, MIDNIGHT]
    assert seconds("22-01-2024 10:05", "4/2/2024 10:05") == [TEN - 9 * 86_400, TEN + 4 * 86_400]


def test_without_a_telling_date_the_two_readings_are_shown() -> None:
    with pytest.raises(DataError) as caught:
        seconds("01/02/2024 10:00", "03/04/2024 10:00")
    message = str(caught.value)
    assert message.startswith("log.csv: line 2: 'timestamp' is '01/02/2024 10:00': 2024-02-01 if the day comes first")
    assert "2024-01-02 if the month does" in message and "Write dates as 2024-01-31" in message


def test_both_orders_in_one_log_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 of 2 such dates can only begin with the day, and 1 only with the month"):
        seconds("31/01/2024", "01/31/2024")


@pytest.mark.parametrize("text", ["soon", "2024-13-01", "31/31/2024", "10:05", "2024-01-31T25:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"timestamp"):
        seconds("2024-01-31T10:05:00Z", text)
