"""Size, density and times of a log in words, for import, describe and the report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from reckg.data.schema import TimeKind
from reckg.data.text_table import collect

PARTS = 24  # of the histogram over time
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class LogSummary:
    """A log in figures.

    Args:
        density: share of the pairs of user and item that occur.
        first, last: epoch seconds; None without times in UTC.
        histogram: (PARTS,) events in equal parts of the time from first to last; empty without times in UTC.
    """

    events: int
    users: int
    items: int
    density: float
    first: int | None
    last: int | None
    histogram: tuple[int, ...]

    def lines(self) -> list[str]:
        """Describes the log in lines of less than 80 columns."""
        lines = [
            f"{self.events:,} events of {self.users:,} users and {self.items:,} items; {self.density:.2%} of all pairs"
        ]
        if self.first is not None and self.last is not None:
            days = (self.last - self.first) / 86_400
            lines.append(f"first {moment(self.first)}, last {moment(self.last)} (UTC), {days:,.1f} days")
            lines.append(f"events over time: {bars(self.histogram)}, each {days / PARTS:,.3g} days")
        return lines


def summarize_log(interactions: pl.LazyFrame, time: TimeKind) -> LogSummary:
    """Measures a log.

    >>> import polars as pl
    >>> from reckg.data.log_summary import summarize_log
    >>> log = pl.LazyFrame({"user_id": ["a", "a"], "item_id": ["x", "y"], "timestamp": [0, 86_400]})
    >>> summarize_log(log, "utc").lines()[1]
    'first 1970-01-01 00:00, last 1970-01-02 00:00 (UTC), 1.0 days'

    Args:
        interactions: user_id, item_id (strings or codes) and, for the time utc, timestamp.
        time: the meaning of ``timestamp``.
    """
    timed = time == "utc"
    ids = [pl.col(name).n_unique() for name in ("user_id", "item_id")]
    coded = interactions.collect_schema()["user_id"].is_integer()  # one number a pair is counted much faster
    pair = pl.col("user_id").cast(pl.Int64) * 2**32 + pl.col("item_id") if coded else pl.struct("user_id", "item_id")
    pairs = pair.n_unique().alias("pairs")
    ends = [pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last")] if timed else []
    events, users, items, distinct, *found = collect(interactions.select(pl.len(), *ids, pairs, *ends), "log").row(0)
    density = distinct / max(users * items, 1)
    if not timed or found[0] is None:
        return LogSummary(events, users, items, density, None, None, ())
    first, last = found
    part = ((pl.col("timestamp") - first) * PARTS // max(last - first, 1)).clip(0, PARTS - 1)
    counts = dict(collect(interactions.group_by(part.alias("part")).len(), "log").rows())
    return LogSummary(events, users, items, density, first, last, tuple(counts.get(n, 0) for n in range(PARTS)))


def moment(seconds: int) -> str:
    """Formats epoch seconds as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def bars(counts: tuple[int, ...]) -> str:
    """Draws counts as bars of text; a blank for none."""
    most = max(counts, default=0)
    return "".join(" " if not n else BARS[min(len(BARS) - 1, n * len(BARS) // (most + 1))] for n in counts)
