"""Slices of the test users and items for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from reckg.config.run_config import Config
from reckg.evaluation.protocol import ItemGroups, SystemResult
from reckg.evaluation.slices import (
    POPULARITY_WORDS,
    Slice,
    by_days,
    by_history,
    by_value,
    item_slices,
    user_slices,
    value_metrics,
)
from reckg.pipeline.run.test_data import RunData

ATTRIBUTES = 6  # columns of users, and of items, that the slices go by
SLICE_USERS = 10  # users of an attribute's slice at least


def slices_section(
    config: Config,
    test: RunData,
    results: Mapping[str, SystemResult],
    groups: ItemGroups,
    best: str,
    metrics: list[str],
) -> dict[str, Slice]:
    """Measures the systems on groups of test users and of held-out items.

    Args:
        results: by system.
        groups: the items by popularity.
        best: the baseline that reckg is compared with.
        metrics: NDCG and recall at one cut-off.
    Returns:
        Slices by name; the name of a slice by an attribute is ``user:COLUMN`` or ``item:COLUMN``.
    """
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    users = test.held.users
    common = (best, metrics, samples, seed)

    def of_users(named: Sequence[tuple[str, np.ndarray]], title: str, explanation: str) -> Slice:
        return user_slices(results, best, named, metrics, samples, seed, title, explanation)

    found = {
        "history_length": of_users(
            by_history(np.diff(test.history.indptr)[users]),
            "By length of the user's history",
            "Users grouped by the items in their history at test time.",
        ),
        "item_popularity": item_slices(
            {name: result.per_group for name, result in results.items()},
            {name: f"{name} ({int((groups.group == place).sum()):,} items)" for place, name in enumerate(groups.names)},
            *common,
            "By popularity of the held-out item",
            POPULARITY_WORDS,
        ),
    }
    days = days_since_last_event(test)
    if days is not None:
        found["last_event"] = of_users(
            by_days(days),
            "By time since the user's last event",
            "Days from the last interaction of the user's history to the first one of the test part.",
        )
    found |= _user_attribute_slices(test, of_users)
    return found | _item_attribute_slices(config, test, results, best, metrics)


def _user_attribute_slices(
    test: RunData, of_users: Callable[[Sequence[tuple[str, np.ndarray]], str, str], Slice]
) -> dict[str, Slice]:
    """Slices of the test users by their attributes, named ``user:COLUMN``."""
    found: dict[str, Slice] = {}
    kinds = test.prepared.info.get("user_columns", {})
    for column in [c for kind in ("categorical", "list", "number") for c in kinds.get(kind, [])][:ATTRIBUTES]:
        named = [(v, inside[test.held.users]) for v, inside in by_value(test.prepared.users[column])]
        part = of_users(
            [(v, inside) for v, inside in named if inside.sum() >= SLICE_USERS],
            f"Users by {column}",
            f"The most frequent values, of {SLICE_USERS} users at least; numbers in quarters of all users.",
        )
        found |= {f"user:{column}": part} if part["rows"] else {}
    return found


def _item_attribute_slices(
    config: Config, test: RunData, results: Mapping[str, SystemResult], best: str, metrics: list[str]
) -> dict[str, Slice]:
    """Slices of the held-out items by their attributes, named ``item:COLUMN``."""
    found: dict[str, Slice] = {}
    k = int(metrics[0].split("@")[1])
    kinds = test.prepared.info.get("item_columns", {})
    for column in [c for kind in ("list", "categorical", "number") for c in kinds.get(kind, [])][:ATTRIBUTES]:
        named = by_value(test.prepared.items[column])
        per_group = {
            name: value_metrics(result.lists, test.held.relevant, named, metrics, k) for name, result in results.items()
        }
        part = item_slices(
            per_group,
            {name: name for name, _ in named},
            best,
            metrics,
            config.evaluate.bootstrap_samples,
            config.run.seed,
            f"Items by {column}",
            "Only the held-out items with the value count; the most frequent values, numbers in quarters of all items.",
        )
        part["rows"] = [row for row in part["rows"] if row["users"] >= SLICE_USERS]
        found |= {f"item:{column}": part} if part["rows"] else {}
    return found


def days_since_last_event(test: RunData) -> np.ndarray | None:
    """Computes the days between a user's history and the test part.

    Returns:
        (n,) days of the test users, NaN without a history; None if the data have no UTC times, or the test part does
        not follow the history in time.
    """
    frame = test.prepared.interactions
    if test.prepared.info.get("time") != "utc" or "timestamp" not in frame.columns or not test.prepared.in_order:
        return None
    first = frame.filter(pl.col("split") == "test").group_by("user_idx").agg(first=pl.col("timestamp").min())
    last = (
        frame.filter(pl.col("split").is_in(list(test.parts))).group_by("user_idx").agg(last=pl.col("timestamp").max())
    )
    users = pl.DataFrame({"user_idx": test.held.users}, schema_overrides={"user_idx": frame.schema["user_idx"]})
    joined = users.join(first, on="user_idx", how="left", maintain_order="left")
    joined = joined.join(last, on="user_idx", how="left", maintain_order="left")
    return ((joined["first"] - joined["last"]).cast(pl.Float64) / 86_400).to_numpy()
