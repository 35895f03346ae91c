"""Generated events of any number for the benchmarks of feature jobs: a dataset folder, streamed in chunks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

CHUNK = 1_000_000
START, SECONDS = 1_600_000_000, 2 * 365 * 86_400
REPEATS = 0.05  # of the events, those that repeat a recent one of the chunk with a later time
SETTINGS = """name = "events"
time = "utc"

[items]
categorical = ["category", "brand"]
number = ["price"]

[users]
categorical = ["country"]
"""


def write_events(folder: Path, *, events: int, users: int, items: int, seed: int = 0) -> None:
    """Writes interactions, items and users; the same for the same numbers. Memory grows with CHUNK and the users.

    A user's and an item's chances fall with a power of their number (-1/3 and -1/2), in random order; times are even
    over two years, in no order; weights are 1 to 5.
    """
    parts = folder / "parts"
    parts.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    user_ids = pl.Series("user_id", [f"u{number:07d}" for number in rng.permutation(users)])
    item_ids = pl.Series("item_id", [f"i{number:06d}" for number in rng.permutation(items)])
    for number, start in enumerate(range(0, events, CHUNK)):
        rows = min(CHUNK, events - start)
        _chunk(rows, user_ids, item_ids, np.random.default_rng([seed, number])).write_parquet(
            parts / f"{number:05d}.parquet"
        )
    pl.scan_parquet(sorted(parts.iterdir())).sink_parquet(folder / "interactions.parquet", maintain_order=True)
    shutil.rmtree(parts)
    _names = {"category": 50, "brand": 2000}
    columns = {name: pl.Series([f"{name}{value}" for value in rng.integers(0, n, items)]) for name, n in _names.items()}
    price = np.round(rng.lognormal(3, 1, items), 2)
    pl.DataFrame({"item_id": item_ids, **columns, "price": price}).write_parquet(folder / "items.parquet")
    country = pl.Series([f"country{value}" for value in rng.integers(0, 40, users)])
    pl.DataFrame({"user_id": user_ids, "country": country}).write_parquet(folder / "users.parquet")
    (folder / "dataset.toml").write_text(SETTINGS, encoding="utf-8")


def _chunk(rows: int, user_ids: pl.Series, item_ids: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    user = (rng.random(rows) ** 1.5 * len(user_ids)).astype(np.int64)
    item = (rng.random(rows) ** 2 * len(item_ids)).astype(np.int64)
    time = START + rng.integers(0, SECONDS, rows)
    again = np.flatnonzero(rng.random(rows) < REPEATS)
    of = rng.integers(0, rows, len(again))
    user[again], item[again] = user[of], item[of]
    return pl.DataFrame(
        {
            "user_id": user_ids.gather(user),
            "item_id": item_ids.gather(item),
            "timestamp": time,
            "weight": rng.integers(1, 6, rows).astype(np.float32),
        }
    )
