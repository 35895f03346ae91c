"""The report's slices: every system over parts of the users or of the held-out items, and the worst parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import polars as pl

from reckg.arrays.ragged_rows import Rows
from reckg.evaluation.protocol import ItemGroups, SystemResult
from reckg.metrics.ranking import ranking_metrics
from reckg.metrics.significance import Interval, Resampled, resample

HISTORY_EDGES = (0, 1, 5, 10, 20, 50, 100)
DAY_EDGES = (0, 1, 7, 30, 90, 365)
DAY_NAMES = ("same day", "1 to 6 days", "7 to 29 days", "30 to 89 days", "90 to 364 days", "a year or more")
VALUES = 8  # most frequent values of an attribute
WORST_USERS = 30  # least users of a slice among the worst
WORST = 8


class SliceRow(TypedDict):
    """A group of users or held-out items.

    Args:
        systems: system -> metric -> interval.
        difference: reckg minus the best baseline.
    """

    name: str
    users: int
    systems: dict[str, dict[str, Interval]]
    difference: Interval


class Slice(TypedDict):
    """Every system over the groups of a partition."""

    title: str
    explanation: str
    rows: list[SliceRow]


class WorstRow(TypedDict):
    """A row of a slice where reckg does badly."""

    slice: str
    key: str
    name: str
    users: int
    reckg: Interval
    baseline: float
    difference: Interval
    against_average: float


def user_slices(
    results: Mapping[str, SystemResult],
    best: str,
    groups: Sequence[tuple[str, np.ndarray]],
    metrics: Sequence[str],
    samples: int,
    seed: int,
    title: str,
    explanation: str,
) -> Slice:
    """Measures every system over groups of users, which may overlap.

    Args:
        best: the baseline that reckg is compared with.
        groups: name, and (n,) bool over the users of the results. Groups without a user are left out.
        metrics: the first decides the comparison.
    """
    rows = []
    for name, inside in groups:
        if inside.any():
            values = {s: {m: result.per_user[m][inside] for m in metrics} for s, result in results.items()}
            rows.append(_row(name, int(inside.sum()), values, best, metrics[0], samples, seed))
    return {"title": title, "explanation": explanation, "rows": rows}


def item_slices(
    per_group: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    names: Mapping[str, str],
    best: str,
    metrics: Sequence[str],
    samples: int,
    seed: int,
    title: str,
    explanation: str,
) -> Slice:
    """Measures every system over groups of held-out items.

    Args:
        per_group: system -> group -> metric -> (n,) float64, NaN for users without a held-out item of the group.
        names: group -> its name in the report. Groups without a held-out item are left out.
    """
    rows = []
    for group, name in names.items():
        found = {system: values[group] for system, values in per_group.items() if group in values}
        if found:
            known = ~np.isnan(found["reckg"][metrics[0]])
            values = {system: {m: value[m][known] for m in metrics} for system, value in found.items()}
            rows.append(_row(name, int(known.sum()), values, best, metrics[0], samples, seed))
    return {"title": title, "explanation": explanation, "rows": rows}


def _row(
    name: str,
    users: int,
    values: Mapping[str, Mapping[str, np.ndarray]],
    best: str,
    metric: str,
    samples: int,
    seed: int,
) -> SliceRow:
    stacked = {f"{system} {m}": array for system, found in values.items() for m, array in found.items()}
    drawn = resample(stacked, samples, seed)
    intervals = drawn.intervals()
    return {
        "name": name,
        "users": users,
        "systems": {system: {m: intervals[f"{system} {m}"] for m in found} for system, found in values.items()},
        "difference": _difference(drawn, best, metric),
    }


def _difference(drawn: Resampled, best: str, metric: str) -> Interval:
    return drawn.difference(f"reckg {metric}", f"{best} {metric}")


def worst_slices(slices: Mapping[str, Slice], metric: str, best: str, average: float) -> list[WorstRow]:
    """Finds the rows of all slices where reckg does worst beside the best baseline, by the interval's lower end.

    Slices of fewer than WORST_USERS users are left out.
    """
    rows: list[WorstRow] = [
        {
            "slice": part["title"],
            "key": key,
            "name": row["name"],
            "users": row["users"],
            "reckg": row["systems"]["reckg"][metric],
            "baseline": row["systems"][best][metric]["mean"],
            "difference": row["difference"],
            "against_average": row["systems"]["reckg"][metric]["mean"] - average,
        }
        for key, part in slices.items()
        for row in part["rows"]
        if row["users"] >= WORST_USERS
    ]
    return sorted(rows, key=lambda row: row["difference"]["low"])[:WORST]


def by_history(length: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Groups users by the (n,) length of their history."""
    groups = []
    for place, low in enumerate(HISTORY_EDGES):
        above = HISTORY_EDGES[place + 1] if place + 1 < len(HISTORY_EDGES) else None
        inside = (length >= low) & (length < above) if above is not None else length >= low
        name = f"{low}" if above == low + 1 else f"{low} to {above - 1}" if above is not None else f"{low} and more"
        groups.append((name, inside))
    return groups


def by_days(days: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Groups users by the (n,) days since their last event. NaN: in no group."""
    place = np.where(np.isnan(days), -1, np.digitize(np.nan_to_num(days), DAY_EDGES) - 1)
    return [(name, place == number) for number, name in enumerate(DAY_NAMES)]


def by_value(column: pl.Series) -> list[tuple[str, np.ndarray]]:
    """Groups rows by a column: the most frequent values of texts and lists, quarters of numbers, and the unknown.

    Rows of a list are in the group of each of its values. A number on the edge of two quarters is in the lower one.
    """
    unknown = column.is_null().to_numpy()
    groups: list[tuple[str, np.ndarray]] = []
    if column.dtype.is_numeric():
        value = column.cast(pl.Float64).to_numpy()
        unknown = unknown | ~np.isfinite(value)
        edges = np.quantile(value[~unknown], [0.25, 0.5, 0.75]) if (~unknown).any() else np.zeros(3)
        place = np.where(unknown, -1, np.searchsorted(edges, np.where(unknown, 0.0, value), "left"))
        low, middle, high = (f"{edge:.6g}" for edge in edges)
        names = (f"up to {low}", f"{low} to {middle}", f"{middle} to {high}", f"above {high}")
        groups = [(name, place == number) for number, name in enumerate(names) if (place == number).any()]
    else:
        rows = column.to_frame("value").with_row_index("row")
        rows = rows.explode("value") if column.dtype == pl.List else rows
        rows = rows.drop_nulls().with_columns(pl.col("value").cast(pl.String)).unique()
        unknown = ~np.isin(np.arange(len(column)), rows["row"].to_numpy())
        frequent = rows.group_by("value").len().sort(["len", "value"], descending=[True, False]).head(VALUES)
        for name in frequent["value"].to_list():
            inside = np.zeros(len(column), dtype=bool)
            inside[rows.filter(pl.col("value") == name)["row"].to_numpy()] = True
            groups.append((name, inside))
    return [*groups, ("unknown", unknown)] if unknown.any() else groups


def value_metrics(
    lists: np.ndarray, relevant: Rows, groups: Sequence[tuple[str, np.ndarray]], metrics: Sequence[str], k: int
) -> dict[str, dict[str, np.ndarray]]:
    """Computes metrics over each group's held-out items alone.

    Args:
        lists: (n, k).
        groups: name, and (n_items,) bool; groups may overlap.
    Returns:
        group -> metric -> (n,), NaN without any.
    """
    n = len(lists)
    row = np.repeat(np.arange(n), np.diff(relevant[0]))
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, inside in groups:
        mine = inside[relevant[1]]
        length = np.bincount(row[mine], minlength=n)
        some = np.flatnonzero(length)
        if len(some):
            indptr = np.concatenate([[0], np.cumsum(length[some])])
            values = ranking_metrics(lists[some].astype(np.int64), (indptr, relevant[1][mine]), (k,))
            found[name] = {}
            for metric in metrics:
                found[name][metric] = np.full(n, np.nan)
                found[name][metric][some] = values[metric]
    return found


def popularity_groups(train_users: np.ndarray) -> ItemGroups:
    """Groups items as head, middle, tail and cold by their users in training.

    head: the most popular items that together hold the first half of all training interactions; middle: the next
    three tenths; tail: the last fifth; cold: items without any.

    Args:
        train_users: (n_items,) distinct users of each item in training.
    """
    order = np.argsort(-train_users, kind="stable")
    total = max(1.0, float(train_users.sum()))
    before = np.empty(len(train_users))
    before[order] = np.concatenate([[0.0], np.cumsum(train_users[order])[:-1]]) / total
    group = np.digitize(before, [0.5, 0.8])
    group[train_users == 0] = 3
    return ItemGroups(("head", "middle", "tail", "cold"), group.astype(np.int64))


POPULARITY_WORDS = (
    "Only the held-out items of the group count. Head: the most popular items, which hold the first half of all "
    "training interactions; middle: the next three tenths; tail: the last fifth; cold: items without a training "
    "interaction."
)
