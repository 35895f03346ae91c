"""Candidates: the union of the best items of several sources, and how many each gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reckg.compressed_rows import Rows, not_listed, take_rows
from reckg.ranking.tables import FeatureTables
from reckg.ranking.user_scores import UserScores
from reckg.retrieval.exact import empty_result, pair_scores, search_checked, write_best
from reckg.retrieval.index import ItemIndex
from reckg.retrieval.scored_items import ScoredItems

SOURCES: dict[str, str] = {
    "vectors": "inner product of the model's vectors, by the index",
    "profile": "the graph's vectors of the history's items, the latest counting most, by the index",
    "cooccurrence": "items next to those of the history in other histories",
    "walk": "two steps from the history: item, user, item",
    "entities": "items that share rare attributes with the history",
    "text": "items whose text is like that of the history",
    "linear": "EASE; small catalogues only",
    "factors": "weighted matrix factorisation; catalogues up to 50,000 items",
    "popular": "the most popular items, recently where times are known",
}
FACTOR_ITEMS = 50_000  # above this an exact search over the factors would take most of a request
STEP = 20  # candidates by which a source is extended at a time
DEEPEST = 200  # candidates of a source other than the vectors at most
LABEL_USERS = 4000  # over whom the depths are chosen, at most

Depths = Mapping[str, int]  # source -> candidates that it gives; "vectors" always gives some


def available_sources(tables: FeatureTables) -> tuple[str, ...]:
    """The sources that these tables can answer from."""
    lacking = {
        "entities": not tables.entity_neighbours.nnz,
        "text": tables.text_neighbours is None,
        "linear": tables.linear is None,
        "factors": not tables.factors.shape[1] or len(tables.items) > FACTOR_ITEMS,
    }
    return tuple(name for name in SOURCES if not lacking.get(name, False))


def source_top(
    name: str, scores: UserScores, index: ItemIndex, k: int, seen: Rows | None, allowed: np.ndarray | None = None
) -> ScoredItems:
    """(n, k): the best k items of one source for the users of ``scores``; fewer where it knows of fewer.

    Args:
        name: one of ``available_sources``.
        seen: compressed rows of the items that each user leaves out.
        allowed: (n_items,) bool: the only items that may be given.
    """
    tables = scores.tables
    if name == "vectors":
        return index.search(scores.vectors, k, seen, allowed)
    if name == "profile":
        profile = np.zeros_like(scores.vectors)
        profile[:, : tables.graph_dim] = scores.profiles[0]
        return _less(index.search(profile, k, seen, allowed), scores.length == 0, None)
    if name == "factors":
        return _less(
            search_checked(scores.factors, tables.factors, k, seen, longest=tables.longest_factor),
            scores.length == 0,
            allowed,
        )
    if name == "popular":
        return first_of_order(tables.popular, tables.popular_score, scores.n, k, seen, allowed)
    sums = getattr(scores, {"entities": "entity_neighbours", "text": "text_neighbours"}.get(name, name))
    return sums.top(1 if name == "cooccurrence" and scores.ahead else 0, k, seen, allowed)


def retrieve(
    scores: UserScores, index: ItemIndex, depths: Depths, seen: Rows | None, allowed: np.ndarray | None = None
) -> ScoredItems:
    """(n, c): each user's candidates, the union over the sources, in the order of the vectors' scores.

    c is what the longest union needs; shorter rows are padded.
    """
    parts = [source_top(name, scores, index, k, seen, allowed).item_idx for name, k in depths.items() if k]
    item_idx = np.sort(np.concatenate(parts, axis=1), axis=1)
    new = item_idx >= 0
    new[:, 1:] &= item_idx[:, 1:] != item_idx[:, :-1]
    row, place = np.nonzero(new)
    item = item_idx[row, place]
    found = empty_result(scores.n, max(1, int(new.sum(axis=1).max(initial=0))))
    write_best(found, 0, row, item, pair_scores(scores.vectors, scores.item_vectors, row, item))
    return found


def choose_depths(
    lists: Mapping[str, np.ndarray], relevant: Rows, budget: int
) -> tuple[dict[str, int], dict[str, float]]:
    """How many candidates each source should give, so that their union has at most ``budget`` on average.

    Greedy: as long as the budget lasts, the source is extended that finds most further relevant items for every
    candidate that it adds. Where no source finds any more, the rest goes to the vectors.

    Args:
        lists: of each source (n, DEEPEST) item_idx, best first, -1 is padding; "vectors" (n, at least budget).
        relevant: compressed rows of the n users' relevant items.
        budget: candidates of a user.
    Returns:
        The depths; and the recall: the share of the relevant items that each source's whole depth finds alone, and
        that the union ("union") and the vectors with the whole budget ("vectors alone") find.
    """
    ranks, hit, users, n_relevant = _ranks(lists, relevant)
    names = list(lists)
    depths = dict.fromkeys(names, 0) | {"vectors": min(STEP, budget)}
    chosen = ranks[:, names.index("vectors")] < depths["vectors"]
    while True:
        best, gain = None, 0.0
        for place, name in enumerate(names):
            deepest = budget if name == "vectors" else min(DEEPEST, budget)
            more = (ranks[:, place] < min(depths[name] + STEP, deepest)) & ~chosen
            added = int(more.sum())
            if depths[name] < deepest and added and chosen.sum() + added <= budget * users:
                found = int((more & hit).sum()) / added
                if found > gain:
                    best, gain = name, found
        if best is None:
            break
        depths[best] = min(depths[best] + STEP, budget if best == "vectors" else DEEPEST)
        chosen |= ranks[:, names.index(best)] < depths[best]
    while users and depths["vectors"] < budget and (room := (budget * users - int(chosen.sum())) // users):
        depths["vectors"] = min(depths["vectors"] + room, budget)
        chosen |= ranks[:, names.index("vectors")] < depths["vectors"]
    recall = {name: (ranks[:, place] < depths[name])[hit].sum() for place, name in enumerate(names) if depths[name]}
    recall |= {"union": chosen[hit].sum(), "vectors alone": (ranks[:, names.index("vectors")] < budget)[hit].sum()}
    return {name: depth for name, depth in depths.items() if depth}, {
        name: round(float(found) / max(n_relevant, 1), 4) for name, found in recall.items()
    }


def _ranks(lists: Mapping[str, np.ndarray], relevant: Rows) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Of every (user, item) pair of any list: (p, sources) its rank in each, a large number where it is in none; (p,)
    whether it is relevant; the users; the relevant items."""
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
    hit = np.isin(keys, wanted[relevant[1] < n_items])
    return ranks, hit, len(every), len(relevant[1])


def first_of_order(
    order: np.ndarray, score: np.ndarray, n: int, k: int, seen: Rows | None, allowed: np.ndarray | None
) -> ScoredItems:
    """(n, k): the first k allowed items of one order for n users, less those that each has seen.

    Args:
        order: (n_items,) item_idx by falling score (n_items,).
    """
    order = order if allowed is None else order[allowed[order]]
    found = empty_result(n, k)
    for row in range(n):
        first = order[:k]
        if seen is not None:
            own = take_rows(seen, slice(row, row + 1))
            first = order[: k + len(own[1])]
            first = first[not_listed(own, np.zeros_like(first), first, len(score))][:k]
        found.item_idx[row, : len(first)] = first
        found.score[row, : len(first)] = score[first]
    return found


def _less(found: ScoredItems, users: np.ndarray, allowed: np.ndarray | None) -> ScoredItems:
    """Without the items that are not allowed, and with nothing for some (n,) users; the gaps stay."""
    if allowed is None and not users.any():
        return found
    out = np.broadcast_to(users[:, None], found.item_idx.shape)
    if allowed is not None:
        out = out | ~np.append(allowed, False)[found.item_idx]
    return ScoredItems(np.where(out, -1, found.item_idx), np.where(out, -np.inf, found.score).astype(np.float32))
