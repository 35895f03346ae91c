"""Cleaning of interactions: a minimum weight, removal of duplicates and the k-core. Every step is counted.

Rows with a split are cleaned within their part, so that later rows decide on no earlier one.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from reckg.data.ids import codes_of
from reckg.data.row_order import row_runs
from reckg.data.text_table import collect
from reckg.errors import DataError

_LABEL = "interactions"
DUPLICATES = ("keep", "first", "last", "sum")
_REST = ("event", "weight", "split")  # columns beside user, item and time


def clean_interactions(
    frame: pl.LazyFrame, *, min_weight: float | None = None, duplicates: str = "keep", k_core: int = 0
) -> tuple[pl.LazyFrame, dict[str, int]]:
    """Drops light, repeated and rare interactions, in this order.

    The frame stays lazy, with two exceptions that work in memory: the removal of duplicates, and the k-core of coded
    ids.

    Args:
        frame: user_id, item_id (strings, or their codes) and optional timestamp, weight, event, split.
        min_weight: interactions with a lower weight are dropped.
        duplicates: treatment of a user's repeated (item, event) within one part of a given split. ``keep`` keeps all,
            ``first`` and ``last`` one by time (rows with equal times keep their order), ``sum`` the last with the
            weights summed.
        k_core: users and items with fewer interactions are dropped, repeatedly, until all others have k_core. With a
            column split the training rows alone decide; users and items without any stay.
    Returns:
        (frame, counts): counts has rows_read, dropped_below_min_weight, dropped_duplicates, dropped_k_core,
        k_core_rounds, rows, users, items.
    Raises:
        DataError: min_weight is given without a column of weights, a weight that is left is not above 0, an option is
            unknown, or no row is left.
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
    if "weight" in columns:
        _refuse_dislikes(frame)
    light = counts["rows_read"] if min_weight is None else _rows(frame)
    counts["dropped_below_min_weight"] = counts["rows_read"] - light
    if duplicates != "keep":
        frame = _deduplicate(frame, duplicates).lazy()
    single = light if duplicates == "keep" else _rows(frame)
    counts["dropped_duplicates"] = light - single
    frame, rounds = _k_core(frame, k_core)
    rows = _rows(frame)
    users, items = (_distinct(frame, name) for name in ("user_id", "item_id"))
    counts |= {"dropped_k_core": single - rows, "k_core_rounds": rounds, "rows": rows, "users": users, "items": items}
    if not rows:
        raise DataError(
            f"cleaning leaves none of {counts['rows_read']:_} interactions: "
            f"{counts['dropped_below_min_weight']:_} are below min_weight {min_weight}, "
            f"{counts['dropped_duplicates']:_} are duplicates, {counts['dropped_k_core']:_} are outside the "
            f"{k_core}-core. Loosen these options."
        )
    return frame, counts


def drop_double_exports(frame: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
    """Drops rows that equal an earlier one in all columns, and counts them. Rows without a time are left alone.

    Args:
        frame: user_id and item_id (codes) and other columns, in memory.
    """
    columns = frame.collect_schema().names()
    if "timestamp" not in columns:
        return frame, 0
    rows = collect(frame, _LABEL)
    keys = [codes_of(rows[name]) for name in ("user_id", "item_id")]
    keys.append(rows["timestamp"].to_numpy())
    keys += [rows[name].rank("dense").to_numpy().astype(np.int64) for name in _REST if name in columns]
    order, first = row_runs(*keys)
    double = int(len(rows) - first.sum())
    if not double:
        return rows.lazy(), 0
    keep = np.zeros(len(rows), dtype=bool)
    keep[order[first]] = True
    return rows.filter(pl.Series(keep)).lazy(), double


def _refuse_dislikes(frame: pl.LazyFrame) -> None:
    """Raises DataError for weights of 0 and less: an interaction counts as liking the item."""
    bad = pl.col("weight") <= 0
    query = frame.select(pl.len(), bad.sum().alias("bad"), pl.col("weight").min().alias("least"))
    rows, count, least = collect(query, _LABEL).row(0)
    if count:
        raise DataError(
            f"{count:_} of {rows:_} interactions have a weight of 0 or less (the least: {least:g}). An interaction "
            "counts as liking the item. Leave such rows out with min_weight, or write ratings as weights above 0."
        )


def _rows(frame: pl.LazyFrame) -> int:
    return int(collect(frame.select(pl.len()), _LABEL).item())


def _distinct(frame: pl.LazyFrame, name: str) -> int:
    if frame.collect_schema()[name].is_integer():
        return int(np.count_nonzero(np.bincount(codes_of(collect(frame.select(name), _LABEL)[name]))))
    return int(collect(frame.select(pl.col(name).n_unique()), _LABEL).item())


def _deduplicate(frame: pl.LazyFrame, duplicates: str) -> pl.DataFrame:
    """Keeps one row of each run of duplicates, in the order of the rows."""
    rows = collect(frame, _LABEL)
    key = [codes_of(rows[name]) for name in ("user_id", "item_id", "event", "split") if name in rows.columns]
    order, first = row_runs(*key)
    last, run = np.append(first, True)[1:], np.cumsum(first)
    if "timestamp" in rows.columns:  # only repeats are sorted by time, and stably
        repeats = np.flatnonzero(~(first & last))
        place, time = order[repeats], rows["timestamp"].to_numpy()
        order[repeats] = place[np.lexsort((time[place], run[repeats]))]
    kept = order[first if duplicates == "first" else last]
    keep = np.zeros(len(rows), dtype=bool)
    keep[kept] = True
    if duplicates == "sum":
        weight = rows["weight"].to_numpy() if "weight" in rows.columns else np.ones(len(rows))
        total = np.zeros(len(rows), dtype=np.float32)
        total[kept] = np.bincount(run, weights=weight[order])[1:]
        rows = rows.with_columns(pl.Series("weight", total))
    return rows.filter(pl.Series(keep))


def _k_core(frame: pl.LazyFrame, k: int) -> tuple[pl.LazyFrame, int]:
    """Cuts the frame to its k-core, with two integers per interaction in memory. Returns it with the rounds taken."""
    if k < 2:
        return frame, 0
    split = ["split"] if "split" in frame.collect_schema().names() else []
    ids = collect(frame.select("user_id", "item_id", *split), _LABEL)
    user, item = codes_of(ids["user_id"]), codes_of(ids["item_id"])
    train = (ids["split"] == "train").to_numpy() if split else np.ones(len(user), dtype=bool)
    rows, rounds = np.flatnonzero(train), 0
    while len(rows):
        enough_users = np.bincount(user[rows]) >= k
        enough_items = np.bincount(item[rows]) >= k
        keep = enough_users[user[rows]] & enough_items[item[rows]]
        if keep.all():
            break
        rows = rows[keep]
        rounds += 1
    held = np.flatnonzero(~train)
    for code in (user, item):  # in the core, or never in training
        stays = np.ones(int(code.max(initial=-1)) + 1, dtype=bool)
        stays[code[train]] = False
        stays[code[rows]] = True
        held = held[stays[code[held]]]
    rows = np.sort(np.concatenate([rows, held]))
    if ids["user_id"].dtype.is_integer():  # codes are in memory anyway
        return collect(frame, _LABEL)[rows].lazy(), rounds
    kept = ids[rows].lazy()
    for name in ("user_id", "item_id"):
        frame = frame.join(kept.select(pl.col(name).unique()), on=name, how="semi")
    return frame, rounds
