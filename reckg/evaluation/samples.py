"""Sample users of the report: their history, their held-out items, and the lists of the systems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from reckg.arrays.ragged_rows import take_rows
from reckg.data.history import History
from reckg.evaluation.protocol import HeldOut

LATEST = 8  # latest items of a history, which are shown


def sample_rows(held: HeldOut, users: int, seed: int) -> np.ndarray:
    """Draws rows of ``held`` at random, independent of the lists."""
    return np.random.default_rng((seed, 1)).permutation(len(held.users))[:users]


class ListedItem(TypedDict):
    """An item of a list, and whether the user took it later."""

    title: str
    hit: bool


class Sample(TypedDict):
    """A user with history and held-out items (titles), and the systems' lists."""

    name: str
    history_length: int
    history: list[str]
    held_out: list[str]
    lists: dict[str, list[ListedItem]]


def sample_section(
    rows: np.ndarray,
    lists: Mapping[str, np.ndarray],
    held: HeldOut,
    history: History,
    titles: Callable[[np.ndarray], list[str]],
    names: Sequence[str],
) -> list[Sample]:
    """Describes the sample users.

    Args:
        rows: (s,) of ``held``.
        lists: system -> (s, k) item_idx.
        titles: of (n,) item_idx.
        names: (s,) of the users.
    """
    users: list[Sample] = []
    for place, row in enumerate(rows.tolist()):
        taken = history.items(int(held.users[row]))
        wanted = take_rows(held.relevant, np.array([row]))[1]
        shown: dict[str, list[ListedItem]] = {}
        for system, items in lists.items():
            mine = items[place][items[place] >= 0].astype(np.int64)
            hits = np.isin(mine, wanted).tolist()
            shown[system] = [{"title": t, "hit": hit} for t, hit in zip(titles(mine), hits, strict=True)]
        users.append(
            {
                "name": names[place],
                "history_length": len(taken),
                "history": titles(taken[-LATEST:]),
                "held_out": titles(wanted),
                "lists": shown,
            }
        )
    return users
