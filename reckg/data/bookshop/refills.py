"""The bookshop with a funnel and repeats: readers view, put into the cart, buy, and buy some articles again."""

from __future__ import annotations

import numpy as np
import polars as pl

from reckg.data.bookshop.catalog import DAY, END

ARTICLES = 0.3  # share of the books that stand for articles of use, bought again until used up
INTERVAL_DAYS = 28.0  # median days between two purchases of an article
IN_CART = 0.7  # share of the purchases that were in the cart before
VIEWED_AGAIN = 0.3  # share of the repeated purchases that begin with a view
MOST = 24  # purchases of an article by one reader


def with_refills(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Turns interactions of a block into a log of views, carts and purchases with repeats.

    Every article has an interval that is its own and one that is the reader's. Both together say when it is due again.

    Args:
        rows: user_id, item_id, timestamp, weight, event (view or purchase), by user and time.
        rng: of the block.
    Returns:
        user_id, item_id, timestamp and event, by user and time; no weights.
    """
    bought = rows.filter(pl.col("event") == "purchase").select("user_id", "item_id", "timestamp")
    number = bought["item_id"].str.slice(1).cast(pl.Int64).to_numpy()
    article = (number * 2654435761 % 2**32) / 2**32 < ARTICLES
    pace = rng.lognormal(0, 0.4, bought["user_id"].n_unique())[bought["user_id"].rank("dense").to_numpy() - 1]
    interval = INTERVAL_DAYS * DAY * pace * np.exp(0.8 * np.sin(number))
    times = np.where(article, np.minimum(rng.geometric(1 / 8, len(bought)), MOST), 1)
    source = np.repeat(np.arange(len(bought)), times)
    step = np.arange(len(source)) - np.repeat(np.cumsum(times) - times, times)
    gap = np.where(step > 0, interval[source] * rng.normal(1, 0.12, len(source)).clip(0.5, 1.5), 0)
    later = np.cumsum(gap)
    later -= np.repeat(later[np.cumsum(times) - times], times)
    at = bought["timestamp"].to_numpy()[source] + later.astype(np.int64)
    kept = at < END
    source, step, at = source[kept], step[kept], at[kept]
    views = np.where(step == 0, 1 + rng.poisson(0.8, len(at)), rng.random(len(at)) < VIEWED_AGAIN).astype(np.int64)
    viewed = np.repeat(np.arange(len(at)), views)
    in_cart = np.flatnonzero(rng.random(len(at)) < IN_CART)
    parts = [
        (source, at, "purchase"),
        (source[in_cart], at[in_cart] - rng.integers(60, 3600, len(in_cart)), "cart"),
        (source[viewed], at[viewed] - rng.integers(3600, int(3 * DAY), len(viewed)), "view"),
    ]
    frames = [
        bought[index].with_columns(pl.Series("timestamp", time), pl.lit(event).alias("event"))
        for index, time, event in parts
    ]
    frames.append(rows.filter(pl.col("event") == "view").select(frames[0].columns))
    return pl.concat(frames).sort("user_id", "timestamp", "item_id", "event")
