"""Number of candidates of each source, chosen on users whose relevant items are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from reckg.arrays.ragged_rows import Rows

STEP = 20  # candidates of an extension
DEEPEST = 200  # most candidates of a source other than the vectors


class Cut(TypedDict):
    """A step that was given up for the latency, the milliseconds that it saved, and the recall that it lost."""

    cut: str
    saved_ms: float
    recall_lost: float


@dataclass(frozen=True)
class Choice:
    """A choice of depths and its effect.

    Args:
        depths: by source.
        recall: share of the relevant items found by each source's whole depth alone, by the union ("union"), and by the
            vectors with the whole budget ("vectors alone").
        candidates: of a user, on average.
        cuts: for the latency, in order.
    """

    depths: dict[str, int]
    recall: dict[str, float]
    candidates: float
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class RequestCosts:
    """Milliseconds of processor time of a request.

    Measured values are rounded, so that the same machine mostly gives the same.

    Args:
        shared: of every request.
        sources: of each source beside it.
        candidate: of each candidate.
    """

    shared: float
    sources: Mapping[str, float]
    candidate: float

    def of(self, choice: Choice) -> float:
        """Adds up the costs of a request with these depths."""
        return self.shared + sum(self.sources[name] for name in choice.depths) + self.candidate * choice.candidates


class LabelledLists:
    """The lists of every source for n users, and the items that they took.

    Args:
        lists: by source (n, DEEPEST) item_idx, best first, -1 is padding; "vectors" (n, at least the budget).
        relevant: compressed rows of the users' relevant items.
    """

    def __init__(self, lists: Mapping[str, np.ndarray], relevant: Rows) -> None:
        self.names = tuple(lists)
        self._ranks, self._hit = _ranks(lists, relevant)
        self._users, self._relevant = len(lists["vectors"]), len(relevant[1])

    def choose(self, budget: int, names: Sequence[str] | None = None) -> Choice:
        """Chooses each source's number of candidates, so that the union averages at most ``budget``.

        Greedy: while the budget lasts, the source is extended that finds most further relevant items per added
            candidate. If
        no source finds any more, the rest goes to the vectors.

        Args:
            budget: candidates of a user, on average.
            names: the sources to choose from, the vectors among them; None: all.
        """
        names = self.names if names is None else names
        rank = {name: self._ranks[:, self.names.index(name)] for name in names}
        hit, users = self._hit, self._users
        depths = dict.fromkeys(names, 0) | {"vectors": min(STEP, budget)}
        chosen = rank["vectors"] < depths["vectors"]
        while True:
            best, gain = None, 0.0
            for name in names:
                deepest = budget if name == "vectors" else min(DEEPEST, budget)
                more = (rank[name] < min(depths[name] + STEP, deepest)) & ~chosen
                added = int(more.sum())
                if depths[name] < deepest and added and chosen.sum() + added <= budget * users:
                    found = int((more & hit).sum()) / added
                    if found > gain:
                        best, gain = name, found
            if best is None:
                break
            depths[best] = min(depths[best] + STEP, budget if best == "vectors" else DEEPEST)
            chosen |= rank[best] < depths[best]
        while users and depths["vectors"] < budget and (room := (budget * users - int(chosen.sum())) // users):
            depths["vectors"] = min(depths["vectors"] + room, budget)
            chosen |= rank["vectors"] < depths["vectors"]
        found_by = {name: (rank[name] < depth)[hit].sum() for name, depth in depths.items() if depth}
        found_by |= {"union": chosen[hit].sum(), "vectors alone": (rank["vectors"] < budget)[hit].sum()}
        return Choice(
            {name: depth for name, depth in depths.items() if depth},
            {name: round(float(found) / max(self._relevant, 1), 4) for name, found in found_by.items()},
            float(chosen.sum()) / max(users, 1),
        )

    def choose_within(self, budget: int, costs: RequestCosts, latency_ms: float) -> Choice:
        """Chooses as ``choose`` does, for requests of at most ``latency_ms`` if possible.

        While a request costs more, a source is left out or the budget lowered by STEP, whichever loses least recall per
        millisecond of the excess. Of equal steps, the smaller is taken.

        Args:
            budget: candidates of a user, on average.
            costs: of a request.
            latency_ms: most milliseconds.
        """
        names = list(self.names)
        cuts: list[Cut] = []
        choice = self.choose(budget)
        while (now := costs.of(choice)) > latency_ms:
            ways = [(f"without {name}", budget, [n for n in names if n != name]) for name in choice.depths]
            ways = [way for way in ways if "vectors" in way[2]]
            if budget > STEP:
                ways.append((f"{budget - STEP} candidates", budget - STEP, names))
            best: tuple[float, float, str, int, list[str], Choice] | None = None
            for what, fewer, left in ways:
                other = self.choose(fewer, left)
                saved, lost = now - costs.of(other), max(0.0, choice.recall["union"] - other.recall["union"])
                if saved <= 0:
                    continue
                rate = lost / min(saved, now - latency_ms)
                if best is None or (rate, saved) < best[:2]:
                    best = rate, saved, what, fewer, left, other
            if best is None:
                break
            before = choice.recall["union"]
            _, saved, what, budget, names, choice = best
            lost = round(before - choice.recall["union"], 4)
            cuts.append({"cut": what, "saved_ms": round(saved, 2), "recall_lost": lost})
        return replace(choice, cuts=tuple(cuts))


def _ranks(lists: Mapping[str, np.ndarray], relevant: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Ranks every (user, item) pair of any list.

    Returns:
        (p, sources) its rank in each list, a large number if absent; (p,) whether it is relevant.
    """
    widths = [items.shape[1] for items in lists.values()]
    n_items = max(int(items.max(initial=0)) for items in lists.values()) + 1
    every = np.concatenate(list(lists.values()), axis=1)
    user, column = np.nonzero(every >= 0)
    keys, place = np.unique(user * n_items + every[user, column], return_inverse=True)
    ranks = np.full((len(keys), len(lists)), np.iinfo(np.int32).max, dtype=np.int32)
    start = np.cumsum([0, *widths])
    for number in range(len(widths)):
        mine = (column >= start[number]) & (column < start[number + 1])
        ranks[place[mine], number] = column[mine] - start[number]
    wanted = np.repeat(np.arange(len(relevant[0]) - 1), np.diff(relevant[0])) * n_items + relevant[1]
    return ranks, np.isin(keys, wanted[relevant[1] < n_items])
