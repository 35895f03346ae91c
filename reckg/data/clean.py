"""Cleaning of interactions: a threshold of weight, repeated interactions, the k-core. Every step is counted."""

from __future__ import annotations

import numpy as np
import polars as pl

from reckg.data.text_table import collect
from reckg.errors import DataError

_LABEL = "interactions"
DUPLICATES = ("keep", "first", "last", "sum")


def clean_interactions(
    frame: pl.LazyFrame, *, min_weight: float | None = None, duplicates: str = "keep", k_core: int = 0
) -> tuple[pl.LazyFrame, dict[str, int]]:
    """Drops light, repeated and rare interactions, in this order.

    The frame stays lazy, but where duplicates are dropped: they are found in memory, and the rest stays there.

    Args:
        frame: user_id, item_id and optional timestamp, weight, event, split.
        min_weight: interactions with a lower weight are dropped.
        duplicates: of a user's repeated (item, event), within one part of a given split: keep all, the first, the
            last (by time, else as the rows come), or the last with the weights summed.
        k_core: users and items with fewer interactions than this are dropped, until none is left that has fewer.
    Returns:
        (frame, counts): counts has rows_read, dropped_below_min_weight, dropped_duplicates, dropped_k_core,
        k_core_rounds, rows, users, items.
    Raises:
        DataError: no column of weights where one is needed, an unknown option, or nothing left.
    """
    columns = frame.collect_schema().names()
    if duplicates not in DUPLICATES:
        raise DataError(f"duplicates must be one of {', '.join(DUPLICATES)}, got {duplicates!r}.")
    if k_core < 0:
        raise DataError(f"k_core must be 0 or more, got {k_core}.")
    counts = {"rows_read": _rows(frame)}
    if min_weight is not None:
        if "weight" not in columns:
            raise DataError(f"min_weight is {min_weight}, but the interactions have no column 'weight'.")
        frame = frame.filter(pl.col("weight") >= min_weight)
    light = counts["rows_read"] if min_weight is None else _rows(frame)
    counts["dropped_below_min_weight"] = counts["rows_read"] - light
    if duplicates != "keep":
        frame = collect(_deduplicate(frame, columns, duplicates), _LABEL).lazy()
    single = light if duplicates == "keep" else _rows(frame)
    counts["dropped_duplicates"] = light - single
    frame, rounds = _k_core(frame, k_core)
    query = frame.select(
        pl.len(), pl.col("user_id").n_unique().alias("users"), pl.col("item_id").n_unique().alias("items")
    )
    rows, users, items = collect(query, _LABEL).row(0)
    counts |= {"dropped_k_core": single - rows, "k_core_rounds": rounds, "rows": rows, "users": users, "items": items}
    if not rows:
        raise DataError(
            f"cleaning leaves none of {counts['rows_read']:_} interactions: "
            f"{counts['dropped_below_min_weight']:_} are below min_weight {min_weight}, "
            f"{counts['dropped_duplicates']:_} are duplicates, {counts['dropped_k_core']:_} are outside the "
            f"{k_core}-core. Loosen these options."
        )
    return frame, counts


def _rows(frame: pl.LazyFrame) -> int:
    return int(collect(frame.select(pl.len()), _LABEL).item())


def _deduplicate(frame: pl.LazyFrame, columns: list[str], duplicates: str) -> pl.LazyFrame:
    key = [name for name in ("user_id", "item_id", "event", "split") if name in columns]
    if "timestamp" in columns:
        frame = frame.sort("timestamp", maintain_order=True)
    if duplicates == "sum" and "weight" not in columns:
        frame = frame.with_columns(pl.lit(1.0, pl.Float32).alias("weight"))
        columns = [*columns, "weight"]
    if duplicates != "sum":
        return frame.unique(key, keep="first" if duplicates == "first" else "last", maintain_order=True)
    rest = [pl.col(name).last() for name in columns if name not in key and name != "weight"]
    total = pl.col("weight").cast(pl.Float64).sum().cast(pl.Float32)
    return frame.group_by(key, maintain_order=True).agg(total, *rest).select(columns)


def _k_core(frame: pl.LazyFrame, k: int) -> tuple[pl.LazyFrame, int]:
    """The rounds count those that dropped something. In memory are two integers an interaction."""
    if k < 2:
        return frame, 0
    users = collect(frame.select("user_id").unique().sort("user_id"), _LABEL).with_row_index("user")
    items = collect(frame.select("item_id").unique().sort("item_id"), _LABEL).with_row_index("item")
    codes = frame.select("user_id", "item_id").join(users.lazy(), on="user_id").join(items.lazy(), on="item_id")
    pairs = collect(codes.select("user", "item"), _LABEL)
    user, item = pairs["user"].to_numpy(), pairs["item"].to_numpy()
    rounds = 0
    while len(user):
        enough_users = np.bincount(user, minlength=len(users)) >= k
        enough_items = np.bincount(item, minlength=len(items)) >= k
        keep = enough_users[user] & enough_items[item]
        if keep.all():
            break
        user, item = user[keep], item[keep]
        rounds += 1
    left_users = users.filter(pl.Series(np.bincount(user, minlength=len(users)) > 0)).select("user_id")
    left_items = items.filter(pl.Series(np.bincount(item, minlength=len(items)) > 0)).select("item_id")
    kept = frame.join(left_users.lazy(), on="user_id", how="semi").join(left_items.lazy(), on="item_id", how="semi")
    return kept, rounds
