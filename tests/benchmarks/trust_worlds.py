"""Logs of the trust benchmark in which the answer is known, or a simple order is hard to beat."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

START = 1_600_000_000
DAY = 86_400


def late_comers(seed: int, n_users: int, n_items: int = 400, genres: int = 8) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generates users who take many items in a few days and leave, as raters of films do; a few stay longer.

    In a split by time most test users are new. Items come out over time and are taken most when they are new.

    Returns:
        Events and items.
    """
    rng = np.random.default_rng(seed)
    genre, quality = rng.integers(0, genres, n_items), rng.gamma(0.6, size=n_items)
    released = np.sort(rng.uniform(-300, 350, n_items))
    rows: list[tuple[str, str, int]] = []
    for user in range(n_users):
        day = rng.uniform(0, 360)
        taste = rng.choice(genres, 2, replace=False)
        chance = quality * np.where(np.isin(genre, taste), 4.0, 1.0) * (1 + 4 * np.exp(-(day - released) / 40))
        chance = np.where(released <= day, chance, 0)
        number = min(int(np.clip(rng.lognormal(3.0, 0.7), 8, 120)), int((chance > 0).sum()))
        taken = rng.choice(n_items, number, replace=False, p=chance / chance.sum())
        stay = rng.choice([2.0, 150.0], p=[0.7, 0.3])  # days
        times = START + (day + np.sort(rng.uniform(0, stay, number))) * DAY
        rows += [(f"u{user}", f"i{item}", int(time)) for item, time in zip(taken.tolist(), times, strict=True)]
    items = pl.DataFrame({"item_id": [f"i{item}" for item in range(n_items)], "genre": [f"g{g}" for g in genre]})
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), items


def with_noise(items: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Replaces the attributes of items by ones that mean nothing."""
    rng = np.random.default_rng(seed)
    columns = {f"noise_{n}": [f"v{value}" for value in rng.integers(0, 12, len(items))] for n in range(3)}
    return items.select("item_id").with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def bigbasket() -> pl.DataFrame | None:
    """Reads the grocery orders of the shared data; None where the folder is absent."""
    root = Path(os.environ.get("RECKG_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    path = root / "bigbasket" / "BigBasket.csv"
    if not path.is_file():
        return None
    rows = pl.read_csv(path, infer_schema_length=0)
    rows = rows.rename({"Member": "user_id", "SKU": "item_id", "Created On": "timestamp"})
    time = pl.col("timestamp").str.replace_all("/", "-").str.to_datetime("%d-%m-%Y %H:%M")
    return rows.select("user_id", "item_id", time)
