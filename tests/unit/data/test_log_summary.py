from __future__ import annotations

import polars as pl

from reckg.data.log_summary import PARTS, bars, summarize_log

DAY = 86_400
LOG = pl.LazyFrame(
    {
        "user_id": ["a", "a", "b", "b"],
        "item_id": ["x", "x", "x", "y"],
        "timestamp": [0, 12 * DAY, 24 * DAY, 24 * DAY],
    }
)


def test_a_log_in_figures_and_words() -> None:
    found = summarize_log(LOG, "utc")
    assert (found.events, found.users, found.items, found.density) == (4, 2, 2, 0.75)
    assert sum(found.histogram) == 4 and len(found.histogram) == PARTS
    assert (found.histogram[0], found.histogram[12], found.histogram[-1]) == (1, 1, 2)
    assert found.lines() == [
        "4 events of 2 users and 2 items; 75.00% of all pairs",
        "first 1970-01-01 00:00, last 1970-01-25 00:00 (UTC), 24.0 days",
        "events over time: ▃           ▃          ▆, each 1 days",
    ]
    assert max(map(len, found.lines())) < 80


def test_without_utc_there_are_no_dates() -> None:
    for time in ("order", "none"):
        assert len(summarize_log(LOG, time).lines()) == 1  # type: ignore[arg-type]


def test_one_moment_is_a_log_too() -> None:
    found = summarize_log(LOG.head(1), "utc")
    assert found.histogram[0] == 1 and found.first == found.last == 0


def test_bars() -> None:
    assert bars((0, 1, 8)) == " ▁█" and bars(()) == ""
