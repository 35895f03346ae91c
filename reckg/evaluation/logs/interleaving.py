"""Two rankings compared on the same users: team-draft interleaving, and the preferred team."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from reckg.metrics.significance import Interval, bootstrap_means


class Preference(TypedDict):
    """The preferred of two teams.

    Args:
        wins, losses, ties: requests, of team 0.
        nothing_taken: ties without any reward.
        preference: share of requests won by team 0, ties half; the interval is a 95% bootstrap over clusters.
        decided_share: wins among the requests that are no ties; None without any.
        clusters_for, clusters_against: clusters that won more, and fewer, requests than they lost.
        p: of the two-sided sign test over these clusters.
    """

    requests: int
    wins: int
    losses: int
    ties: int
    nothing_taken: int
    preference: Interval
    decided_share: float | None
    clusters_for: int
    clusters_against: int
    p: float


class RewardsApart(TypedDict):
    """Mean rewards of two variants, and second minus first; 95% bootstrap intervals over clusters."""

    first: Interval
    second: Interval
    difference: Interval


def team_draft(
    a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray, rng: np.random.Generator, k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Merges two rankings: in every round both put in their best item that is not there yet, in random order.

    Args:
        a, b: ranked item_idx, best first, without repeats; -1 is padding.
        k: length of the list; None: the longer of the two.
    Returns:
        item_idx (m,) int64, all distinct, and team (m,) int8, 0 for a and 1 for b; m is k if the two rankings hold k
        distinct items. When one ranking has no item left, the other goes on alone.
    Raises:
        ValueError: k < 1, or a ranking holds an item twice.
    Source: Radlinski, Kurup & Joachims 2008, doi:10.1145/1458082.1458092.
    """
    lists = [[int(item) for item in ranking if item >= 0] for ranking in (a, b)]
    if any(len(set(ranking)) < len(ranking) for ranking in lists):
        raise ValueError("a ranking holds an item twice")
    if k is not None and k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    wanted = max(map(len, lists)) if k is None else k
    items: list[int] = []
    teams: list[int] = []
    there: set[int] = set()
    while len(items) < wanted:
        first = int(rng.integers(2))
        before = len(items)
        for team in (first, 1 - first):
            item = next((item for item in lists[team] if item not in there), None)
            if item is not None and len(items) < wanted:
                items.append(item)
                teams.append(team)
                there.add(item)
        if len(items) == before:
            break
    return np.array(items, dtype=np.int64), np.array(teams, dtype=np.int8)


def draft_propensities(
    a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray, k: int
) -> dict[tuple[int, int], float]:
    """Computes the probability with which `team_draft` puts an item at a place.

    Exact: the sets of items that may be there after each round are followed with their probabilities. At most two sets
        are
    possible: if both rankings put forward the same item, the next item of either joins it, and the other joins in the
        round
    after.

    Args:
        a, b, k: as of team_draft.
    Returns:
        (item_idx, place from 0) -> probability.
    """
    lists = [[int(item) for item in ranking if item >= 0] for ranking in (a, b)]
    found: dict[tuple[int, int], float] = {}
    drafts: dict[frozenset[int], float] = {frozenset(): 1.0}
    while drafts:
        after: dict[frozenset[int], float] = {}
        for there, chance in drafts.items():
            for order in ((0, 1), (1, 0)):
                now = set(there)
                for team in order:
                    item = next((item for item in lists[team] if item not in now), None)
                    if item is not None and len(now) < k:
                        place = item, len(now)
                        found[place] = found.get(place, 0.0) + chance / 2
                        now.add(item)
                if len(now) > len(there):
                    after[frozenset(now)] = after.get(frozenset(now), 0.0) + chance / 2
        drafts = after
    return found


def preference(
    request: np.ndarray, team: np.ndarray, reward: np.ndarray, cluster: np.ndarray, samples: int = 1000, seed: int = 0
) -> Preference:
    """Measures the preferred team of users: of each request, the team whose items earned more.

    Args:
        request: (n,) int from 0 without gaps, the request of each shown item.
        team: (n,) int, 0 or 1.
        reward: (n,) of each shown item.
        cluster: (n,) int from 0 without gaps: the user of each row if users have several requests, else the request.
        samples: bootstrap samples.
    Source: Chapelle, Joachims, Radlinski & Yue 2012, doi:10.1145/2094072.2094078.
    """
    from scipy.stats import binomtest

    n = int(request.max()) + 1
    credit = np.bincount(request, weights=np.where(team == 0, reward, -reward), minlength=n)
    gained = np.bincount(request, weights=np.abs(reward), minlength=n)
    credit[np.abs(credit) <= 1e-12 * gained] = 0.0  # equal sums that were added in another order
    sign = np.sign(credit)
    of_request = np.zeros(n, dtype=np.int64)
    of_request[request] = cluster
    net = np.bincount(of_request, weights=sign)
    drawn = bootstrap_means(np.column_stack([net, np.bincount(of_request)]), samples, seed)
    low, high = np.quantile(0.5 + 0.5 * drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    wins, losses = int((sign > 0).sum()), int((sign < 0).sum())
    ahead, behind = int((net > 0).sum()), int((net < 0).sum())
    return {
        "requests": n,
        "wins": wins,
        "losses": losses,
        "ties": n - wins - losses,
        "nothing_taken": int((gained == 0).sum()),
        "preference": {"mean": float(0.5 + 0.5 * sign.mean()), "low": float(low), "high": float(high)},
        "decided_share": wins / (wins + losses) if wins + losses else None,
        "clusters_for": ahead,
        "clusters_against": behind,
        "p": float(binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0,
    }


def rewards_apart(
    reward: np.ndarray, second: np.ndarray, cluster: np.ndarray, samples: int = 1000, seed: int = 0
) -> RewardsApart:
    """Compares two variants that served different requests by their mean reward.

    Args:
        reward: (n,) of each request.
        second: (n,) bool, the requests that the second variant served.
        cluster: (n,) int from 0 without gaps: the user of each request, or the request.
        samples: bootstrap samples.
    Raises:
        ValueError: a variant served nothing.
    """
    if second.all() or not second.any():
        raise ValueError("both variants need requests")
    columns = [np.where(mine, part, 0.0) for mine in (~second, second) for part in (reward, np.ones(len(reward)))]
    sums = np.column_stack([np.bincount(cluster, weights=column) for column in columns])
    drawn = bootstrap_means(sums, samples, seed)
    whole, resampled = _mean_rewards(sums.mean(axis=0)), _mean_rewards(drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)])

    def interval(name: str) -> Interval:
        low, high = np.quantile(resampled[name], [0.025, 0.975])
        return {"mean": float(whole[name]), "low": float(low), "high": float(high)}

    return {"first": interval("first"), "second": interval("second"), "difference": interval("difference")}


def _mean_rewards(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the variants' mean rewards and their difference from (..., 4) rewards and requests of both."""
    first, second = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    return {"first": first, "second": second, "difference": second - first}
