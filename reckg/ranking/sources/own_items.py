"""The items that users had before, with the user's own rhythm: a source and features where items may come again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reckg.arrays.ragged_rows import Rows, not_listed
from reckg.retrieval.exact import pair_scores, write_best
from reckg.retrieval.scored_items import ScoredItems, empty_result

DAY = 86_400.0
FADING = 0.9  # weight of an item relative to one of the next moment
# Figures of an item that its user had: its summed weights, the same with the latest moments counting most, the share of
# the user's moments that have it, the moments and days since the last one, the mean days between two, the days since
# over the days between, and its interactions of the target event.
RHYTHM = ("own_count", "own_recent", "own_share", "own_since", "own_days", "own_interval", "own_due", "own_taken")
ABSENT = np.array([0, 0, 0, np.nan, np.nan, np.nan, np.nan, 0])[:, None]  # of an item that its user never had


@dataclass(frozen=True)
class Entries:
    """The h interactions of n histories, user by user, oldest first.

    Args:
        query, item: (h,) the user from 0 to n - 1, and the item.
        weight: (h,) float64.
        later: (h,) number of later moments of the same user.
        time: (h,) epoch seconds.
        taken: (h,) bool: of the target event.
    """

    query: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    later: np.ndarray
    time: np.ndarray
    taken: np.ndarray


@dataclass(frozen=True)
class OwnItems:
    """The distinct items of n users' histories.

    Args:
        query, item: (p,) int64, sorted by query and item.
        values: (len(RHYTHM), p) float64.
        n, n_items: users and items of the catalog.
    """

    query: np.ndarray
    item: np.ndarray
    values: np.ndarray
    n: int
    n_items: int

    def at(self, item_idx: np.ndarray) -> np.ndarray:
        """Looks up the figures of each user's candidates.

        Args:
            item_idx: (n, c).
        Returns:
            (len(RHYTHM), n, c).
        """
        wanted = np.arange(self.n)[:, None] * self.n_items + item_idx
        if not len(self.item):
            return np.broadcast_to(ABSENT[:, :, None], (len(RHYTHM), *item_idx.shape))
        keys = self.query * self.n_items + self.item
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, self.values[:, place], ABSENT[:, :, None])

    def taken(self) -> OwnItems:
        """Keeps the items that the user took, not only looked at."""
        took = self.values[RHYTHM.index("own_taken")] > 0
        return OwnItems(self.query[took], self.item[took], self.values[:, took], self.n, self.n_items)

    def top(self, k: int, blocked: Rows | None, allowed: np.ndarray | None) -> ScoredItems:
        """Finds each user's k items with the highest ``own_recent``: (n, k)."""
        return self._best(self.values[RHYTHM.index("own_recent")].astype(np.float32), k, blocked, allowed)

    def nearest(
        self, vectors: np.ndarray, item_vectors: np.ndarray, k: int, blocked: Rows | None, allowed: np.ndarray | None
    ) -> ScoredItems:
        """Finds each user's k items with the highest inner product: (n, k).

        Args:
            vectors: (n, d) of the users.
            item_vectors: (n_items, d).
        """
        return self._best(pair_scores(vectors, item_vectors, self.query, self.item), k, blocked, allowed)

    def _best(self, score: np.ndarray, k: int, blocked: Rows | None, allowed: np.ndarray | None) -> ScoredItems:
        keep = np.ones(len(self.item), dtype=bool) if allowed is None else allowed[self.item]
        if blocked is not None:
            keep &= not_listed(blocked, self.query, self.item, self.n_items)
        found = empty_result(self.n, k)
        write_best(found, 0, self.query[keep], self.item[keep], score[keep])
        return found


def own_items(entries: Entries, n: int, n_items: int, now: int | None) -> OwnItems:
    """Collects the items of n histories. The figures of a user depend on no other user.

    Args:
        entries: of the histories, oldest first.
        n_items: items of the catalog.
        now: epoch seconds of the state; None: without times.
    """
    order = np.argsort(entries.query * n_items + entries.item, kind="stable")  # within an item still oldest first
    pairs, start = np.unique((entries.query * n_items + entries.item)[order], return_index=True)
    query = pairs // n_items
    if not len(pairs):
        return OwnItems(query, pairs, np.zeros((len(RHYTHM), 0)), n, n_items)
    last = np.append(start[1:], len(order)) - 1
    later, weight = entries.later[order], entries.weight[order]
    begins = np.append(True, later[1:] != later[:-1])
    begins[start] = True
    moments = np.add.reduceat(begins.astype(np.int64), start)
    all_moments = np.zeros(n, dtype=np.int64)
    np.maximum.at(all_moments, entries.query, entries.later + 1)
    days, interval = np.full((2, len(pairs)), np.nan)
    if now is not None:
        time = entries.time[order].astype(np.float64)
        days = np.maximum(now - time[last], 0) / DAY
        interval = np.where(moments > 1, (time[last] - time[start]) / DAY / np.maximum(moments - 1, 1), np.nan)
    values = {
        "own_count": np.add.reduceat(weight, start),
        "own_recent": np.add.reduceat(weight * FADING**later, start),
        "own_share": moments / all_moments[query],
        "own_since": later[last],
        "own_days": days,
        "own_interval": interval,
        "own_due": days / np.where(interval > 0, interval, np.nan),
        "own_taken": np.add.reduceat(entries.taken[order].astype(np.int64), start),
    }
    return OwnItems(query, pairs % n_items, np.stack([values[name] for name in RHYTHM]), n, n_items)
