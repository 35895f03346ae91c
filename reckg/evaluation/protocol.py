"""Full-ranking evaluation, streamed over blocks of users: only the first places of each list are ever kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from reckg.arrays.ragged_rows import Rows, hit_matrix, rows_of_pairs, take_rows
from reckg.data.schema import Target
from reckg.errors import DataError
from reckg.metrics.ranking import ranking_metrics
from reckg.metrics.significance import Interval, coverage_interval
from reckg.retrieval.exact import exact_search, pair_scores, write_best
from reckg.retrieval.scored_items import ScoredItems, empty_result

SystemSettings = dict[str, Any]  # of a system, as the report prints them
Recommend = Callable[[np.ndarray], ScoredItems]


class NoTargetError(DataError):
    """A split part holds nothing that could be predicted."""


@dataclass(frozen=True)
class HeldOut:
    """The users of a split part with their held-out items.

    Args:
        users: (n,) int64 user_idx, each with at least one held-out item.
        relevant, excluded: compressed rows in the order of ``users``, items sorted and distinct.
        counts: of the part's interactions, by use.
        excluded_parts: the split parts whose items are never listed; none where items may come again.
        only: compressed rows of the items that lists may hold, in the order of ``users``. None: all.
        target: the question.
    """

    users: np.ndarray
    relevant: Rows
    excluded: Rows
    counts: dict[str, int]
    excluded_parts: tuple[str, ...] = ("train", "valid")
    only: Rows | None = None
    target: Target = "new"

    def sample(self, n: int, seed: int) -> HeldOut:
        """Draws at most n users, without replacement."""
        if len(self.users) <= n:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self.users), n, replace=False)))

    def take(self, rows: np.ndarray) -> HeldOut:
        """Selects users by their places in ``users``, (m,) int64."""
        only = None if self.only is None else take_rows(self.only, rows)
        relevant, excluded = take_rows(self.relevant, rows), take_rows(self.excluded, rows)
        return replace(self, users=self.users[rows], relevant=relevant, excluded=excluded, only=only)

    def nearest_items(self, users: np.ndarray, items: np.ndarray, k: int) -> ScoredItems:
        """Finds the best listable items by inner product, exactly.

        Args:
            users: (n, d) vectors of ``users``.
            items: (n_items, d).
        Returns:
            (n, k).
        """
        if self.only is None:
            return exact_search(users, items, k, seen=self.excluded)
        row, item = np.repeat(np.arange(len(users)), np.diff(self.only[0])), self.only[1]
        found = empty_result(len(users), k)
        write_best(found, 0, row, item, pair_scores(users, items, row, item))
        return found


@dataclass(frozen=True)
class ItemGroups:
    """A partition of the items.

    Args:
        names: of the groups.
        group: (n_items,) int64, a place in names for every item.
    """

    names: tuple[str, ...]
    group: np.ndarray


@dataclass(frozen=True)
class SystemResult:
    """The measured figures of a system.

    Args:
        per_user: metric -> (n,) float64.
        coverage: by "coverage@10".
        per_group: group -> metric -> (n,) float64 over the held-out items of that group alone, NaN for users without
            any.
        excluded_items: number of forbidden items in lists.
        short_lists: lists with fewer filled places than wanted.
        exposure: "exposure@10" -> (n,) float64, the share of a list's places that the watched items have.
        lists: (n, keep) int32, the first places, if wanted.
    """

    per_user: dict[str, np.ndarray]
    coverage: dict[str, Interval]
    seconds: float
    per_group: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    excluded_items: int = 0
    short_lists: int = 0
    exposure: dict[str, np.ndarray] = field(default_factory=dict)
    lists: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int32))


def held_out(
    interactions: pl.DataFrame,
    part: str,
    excluded_parts: Sequence[str],
    n_users: int,
    history_parts: Sequence[str] | None = None,
    target: Target = "new",
) -> HeldOut:
    """Selects the users of a split part, their held-out items, and the items that their lists must not hold.

    Args:
        interactions: columns user_idx, item_idx, split and, optional, taken and disliked. Interactions that are not
            ``taken`` are no targets and exclude nothing.
        part: the split part to be predicted.
        excluded_parts: the parts before it. With the target new, items that a user took in these parts are never
            recommended: a held-out one is no target, and counted. Disliked items never are.
        n_users: users of the run.
        history_parts: users without an interaction in these parts are left out; None: all stay.
        target: new; any: items that the user took before are candidates and targets too; repeat: they alone are.
    Returns:
        HeldOut; counts: interactions, repeated, already_seen, targets, users, users_without_target; and with
        ``history_parts`` users_without_history and their interactions_without_history, which no other count holds.
    Raises:
        NoTargetError: nothing is left to predict.
    """
    wanted, seen, never = _pairs(interactions, part, excluded_parts)
    left_out = {}
    if history_parts is not None:
        known = interactions.filter(pl.col("split").is_in(list(history_parts))).select("user_idx").unique()
        unknown, wanted = wanted.join(known, on="user_idx", how="anti"), wanted.join(known, on="user_idx", how="semi")
        left_out = dict(users_without_history=unknown["user_idx"].n_unique(), interactions_without_history=len(unknown))
    distinct = wanted.unique()
    again, first = _both(distinct, seen, "semi"), _both(distinct, seen, "anti")
    asked = _both({"new": first, "any": distinct, "repeat": again}[target], never, "anti")
    if asked.is_empty():
        raise NoTargetError(
            f"the {part} part has {len(wanted)} interactions, but none with an item {_WHICH[target]}: "
            "nothing to evaluate. Check the [split] and [task] sections and the number of interactions."
        )
    users = np.sort(asked["user_idx"].unique().to_numpy())

    counts = {
        "interactions": len(wanted),
        "repeated": len(wanted) - len(distinct),
        "already_seen": len(again),
        "targets": len(asked),
        "users": len(users),
        "users_without_target": wanted["user_idx"].n_unique() - len(users),
    }
    return HeldOut(
        users,
        _rows_of(asked, users, n_users),
        _rows_of(pl.concat([seen, never]) if target == "new" else never, users, n_users),
        counts | left_out,
        excluded_parts=tuple(excluded_parts) if target == "new" else (),
        only=_rows_of(_both(seen, never, "anti"), users, n_users) if target == "repeat" else None,
        target=target,
    )


def _rows_of(pairs: pl.DataFrame, users: np.ndarray, n_users: int) -> Rows:
    """Compresses pairs of users and items to rows of distinct items, a row for each of (n,) users."""
    return take_rows(rows_of_pairs(pairs["user_idx"].to_numpy(), pairs["item_idx"].to_numpy(), n_users), users)


def _both(pairs: pl.DataFrame, others: pl.DataFrame, how: Literal["semi", "anti"]) -> pl.DataFrame:
    """Selects the pairs that are among others (semi), or that are not (anti)."""
    return pairs.join(others.unique(), on=["user_idx", "item_idx"], how=how)


_WHICH = {"new": "that is new to its user", "any": "at all", "repeat": "that its user had before"}


def _pairs(interactions: pl.DataFrame, part: str, before: Sequence[str]) -> tuple[pl.DataFrame, ...]:
    """Selects the pairs of user and item that were taken in a part, and those taken and disliked before it."""
    taken = pl.col("taken") if "taken" in interactions.columns else pl.lit(True)
    disliked = pl.col("disliked") if "disliked" in interactions.columns else pl.lit(False)
    earlier = pl.col("split").is_in(list(before))
    rows = (pl.col("split") == part) & taken, earlier & taken, earlier & disliked
    return tuple(interactions.filter(which).select("user_idx", "item_idx") for which in rows)


def valid_precedes_test(interactions: pl.DataFrame) -> bool:
    """Tells whether no user has a validation interaction after a test interaction; False without times."""
    if "timestamp" not in interactions.columns:
        return False
    valid = interactions.filter(pl.col("split") == "valid").group_by("user_idx").agg(pl.col("timestamp").max())
    test = interactions.filter(pl.col("split") == "test").group_by("user_idx").agg(pl.col("timestamp").min())
    both = valid.join(test, on="user_idx", suffix="_test")
    return bool((both["timestamp"] <= both["timestamp_test"]).all())


def evaluate_system(  # noqa: PLR0913 - one call measures one system
    recommend: Recommend,
    users: np.ndarray,
    relevant: Rows,
    ks: Sequence[int],
    *,
    n_items: int,
    excluded: Rows | None = None,
    groups: ItemGroups | None = None,
    group_k: int = 10,
    watched: np.ndarray | None = None,
    keep: int = 0,
    block_users: int = 1024,
    progress: Callable[[int], object] | None = None,
) -> SystemResult:
    """Measures a system over full rankings, a block of users at a time.

    Args:
        recommend: user_idx (b,) -> ScoredItems with K >= max(ks) places (fewer only if fewer items exist).
        users: (n,) user_idx to evaluate.
        relevant: held-out items, a row for each of ``users``, none empty.
        ks: cut-offs.
        n_items: candidates; the share that appears in any list is the coverage.
        excluded: items that a list must not hold, a row for each of ``users``; violations are counted.
        groups: also measure recall and NDCG at ``group_k`` over each group's held-out items alone.
        watched: (w,) item_idx whose share of the places is measured.
        keep: number of first places of every list to return.
        block_users: users of a block.
        progress: called with the number of users after each block.
    Raises:
        DataError: the system returns a list for a wrong number of users, or an item that does not exist.
    """
    users = np.asarray(users, dtype=np.int64)
    n = len(users)
    per_user: dict[str, np.ndarray] = {}
    per_group: dict[str, dict[str, np.ndarray]] = {}
    listed = _ListedItems(n, n_items, ks, watched)
    kept = np.full((n, keep), -1, dtype=np.int32)
    seconds, violations, short = 0.0, 0, 0
    for start in range(0, n, block_users):
        block = np.arange(start, min(start + block_users, n))
        began = time.perf_counter()
        lists = recommend(users[block]).item_idx
        seconds += time.perf_counter() - began
        _check_lists(lists, len(block), n_items)
        kept[block, : min(keep, lists.shape[1])] = lists[:, :keep]
        targets = take_rows(relevant, block)
        for name, values in ranking_metrics(lists, targets, ks).items():
            per_user.setdefault(name, np.full(n, np.nan))[block] = values
        if groups is not None:
            _add_groups(per_group, lists, targets, groups, group_k, block, n)
        if excluded is not None:
            violations += int(hit_matrix(lists, take_rows(excluded, block)).sum())
        short += int((lists < 0).any(axis=1).sum()) if lists.shape[1] >= max(ks) else len(block)
        listed.add(block, lists)
        if progress is not None:
            progress(len(block))
    return SystemResult(per_user, listed.coverage(), seconds, per_group, violations, short, listed.exposure, kept)


class _ListedItems:
    """Counts of the listed items at each cut-off.

    Args:
        n: users.
        watched: (w,) item_idx whose share of the places becomes ``exposure``.
    """

    def __init__(self, n: int, n_items: int, ks: Sequence[int], watched: np.ndarray | None) -> None:
        self._n = n
        self._times = {k: np.zeros(n_items, dtype=np.int64) for k in ks}
        self._shown_to = {k: np.zeros(n_items, dtype=np.int64) for k in ks}
        # the last place stands for -1
        self._watched = np.isin(np.arange(n_items + 1), watched) if watched is not None else None
        self.exposure = {f"exposure@{k}": np.zeros(n) for k in ks} if watched is not None else {}

    def add(self, block: np.ndarray, lists: np.ndarray) -> None:
        """Counts the (b, K) lists of the users at the places ``block`` (b,)."""
        for k, times in self._times.items():
            top = lists[:, :k]
            np.add.at(times, top[top >= 0], 1)
            self._shown_to[k][top[top >= 0]] = np.broadcast_to(block[:, None], top.shape)[top >= 0]
            if self._watched is not None:
                self.exposure[f"exposure@{k}"][block] = self._watched[top].sum(axis=1) / k

    def coverage(self) -> dict[str, Interval]:
        """Computes the coverage at every cut-off, by "coverage@k"."""
        return {f"coverage@{k}": coverage_interval(self._times[k], self._shown_to[k], self._n) for k in self._times}


def _check_lists(lists: np.ndarray, n_users: int, n_items: int) -> None:
    if lists.ndim != 2 or len(lists) != n_users:
        raise DataError(f"asked for {n_users} lists, got an array of shape {lists.shape}.")
    if lists.size and lists.max() >= n_items:
        raise DataError(f"a list holds item_idx {lists.max()}, but there are {n_items} items.")


def _add_groups(
    per_group: dict[str, dict[str, np.ndarray]],
    lists: np.ndarray,
    targets: Rows,
    groups: ItemGroups,
    k: int,
    block: np.ndarray,
    n: int,
) -> None:
    """Adds the block's recall and NDCG over the held-out items of each group."""
    row = np.repeat(np.arange(len(block)), np.diff(targets[0]))
    for place, name in enumerate(groups.names):
        mine = groups.group[targets[1]] == place
        length = np.bincount(row[mine], minlength=len(block))
        some = np.flatnonzero(length)
        if not len(some):
            continue
        indptr = np.concatenate([[0], np.cumsum(length[some])])
        found = ranking_metrics(lists[some], (indptr, targets[1][mine]), (k,))
        store = per_group.setdefault(name, {})
        for metric in (f"ndcg@{k}", f"recall@{k}"):
            store.setdefault(metric, np.full(n, np.nan))[block[some]] = found[metric]
