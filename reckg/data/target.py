"""The question of a run: items that are new to their user, any items, or items that come again."""

from __future__ import annotations

import numpy as np
import polars as pl

from reckg.data.ids import codes_of
from reckg.data.schema import Target

# Share of repeats from which on they belong to the question. MovieLens 100K and Amazon Beauty have none, the orders of
# 106 members of a grocery .75.
REPEATS = 0.1


def repeat_share(rows: pl.DataFrame) -> float:
    """Measures how often users take an item again.

    A repeat is an interaction with an item that its user had at an earlier time. The interactions of a user's first
    moment cannot repeat anything and do not count.

    >>> import polars as pl
    >>> from reckg.data.target import repeat_share
    >>> log = pl.DataFrame({"user_id": [0, 0, 0], "item_id": [5, 5, 6], "timestamp": [1, 2, 3]})
    >>> repeat_share(log)
    0.5

    Args:
        rows: user_id and item_id (codes), timestamp.
    Returns:
        Repeats among the interactions after each user's first moment; 0 without any.
    """
    user, item, time = codes_of(rows["user_id"]), codes_of(rows["item_id"]), rows["timestamp"].to_numpy()
    first = np.full(int(user.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, user, time)
    order = np.lexsort((time, item, user))
    pair = np.stack([user[order], item[order]])
    starts = np.append(True, (pair[:, 1:] != pair[:, :-1]).any(axis=0))[: len(order)]
    earliest = time[order][np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    repeated = time[order] > earliest
    able = int((time > first[user]).sum())
    return float(repeated.sum() / able) if able else 0.0


def derive_target(share: float) -> Target:
    """Chooses the question by the share of repeats: any from REPEATS on, else new."""
    return "any" if share >= REPEATS else "new"
