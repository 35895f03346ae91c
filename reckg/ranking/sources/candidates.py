"""Candidates: the union of the best items of several sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reckg.arrays.extended_array import ExtendedArray
from reckg.arrays.ragged_rows import Rows, kept_entries, not_listed, take_rows
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.row_sums import RowSums
from reckg.retrieval.exact import pair_scores, search_checked, write_best
from reckg.retrieval.index import ItemIndex
from reckg.retrieval.scored_items import ScoredItems, empty_result

# docs/ranking.md describes the sources, evaluation/comparison.py (SYSTEMS) has their names in reports.
SOURCES = ("vectors", "profile", "cooccurrence", "walk", "entities", "text", "linear", "factors", "popular", "own")
REPEATED = ("vectors", "own")  # sources where only items of the history are candidates
FACTOR_ITEMS = 50_000  # above this an exact search over the factors would take most of a request

CandidateCounts = Mapping[str, int]  # number of candidates by source; "vectors" always has some


def available_sources(tables: FeatureTables) -> tuple[str, ...]:
    """Lists the sources that these tables support."""
    if tables.target == "repeat":
        return REPEATED
    lacking = {
        "own": not tables.own,
        "entities": not tables.entity_neighbours.nnz,
        "text": tables.text_neighbours is None,
        "linear": tables.linear is None,
        "factors": not tables.factors.shape[1] or len(tables.items) > FACTOR_ITEMS,
    }
    return tuple(name for name in SOURCES if not lacking.get(name, False))


def source_top(
    name: str, scores: UserScores, index: ItemIndex, k: int, seen: Rows | None, allowed: np.ndarray | None = None
) -> ScoredItems:
    """Finds the best items of a source.

    Args:
        name: a value of ``available_sources``.
        scores: of n users.
        seen: compressed rows of the items that each user leaves out.
        allowed: (n_items,) bool: the only candidates.
    Returns:
        (n, k); short lists are padded.
    """
    tables = scores.tables
    if name == "own" or tables.target == "repeat":
        return _own_top(name, scores, k, seen, allowed)
    if name == "vectors":
        return index.search(scores.vectors, k, seen, allowed)
    if name == "profile":
        profile = np.zeros_like(scores.vectors)
        profile[:, : tables.graph_dim] = scores.profiles[0]
        return without_items(index.search(profile, k, seen, allowed), scores.length == 0, None)
    if name == "factors":
        factors = tables.factors
        if isinstance(factors, ExtendedArray):  # added items have no factors
            factors = factors.base
            seen = None if seen is None else kept_entries(seen, seen[1] < len(factors))
        found = search_checked(scores.factors, factors, k, seen, longest=tables.longest_factor)
        return without_items(found, scores.length == 0, allowed)
    if name == "popular":
        return first_of_order(tables.popular, tables.popular_score, scores.n, k, seen, allowed)
    sums: RowSums = getattr(scores, {"entities": "entity_neighbours", "text": "text_neighbours"}.get(name, name))
    return sums.top(1 if name == "cooccurrence" and scores.ahead else 0, k, seen, allowed)


def _own_top(name: str, scores: UserScores, k: int, seen: Rows | None, allowed: np.ndarray | None) -> ScoredItems:
    """Finds the best of each user's own items, by rhythm (own) or by the vectors: (n, k)."""
    own = scores.own.taken() if scores.tables.target == "repeat" else scores.own
    if name == "own":
        return own.top(k, seen, allowed)
    return own.nearest(scores.vectors, scores.item_vectors, k, seen, allowed)


def retrieve(
    scores: UserScores,
    index: ItemIndex,
    depths: CandidateCounts,
    seen: Rows | None,
    allowed: np.ndarray | None = None,
    kept: dict[str, ScoredItems] | None = None,
) -> ScoredItems:
    """Finds each user's candidates: the union over the sources, ordered by the vectors' scores.

    Args:
        depths: number of candidates by source.
        kept: receives the lists of each source.
    Returns:
        (n, c), as wide as the longest union; shorter rows are padded.
    """
    parts = {name: source_top(name, scores, index, k, seen, allowed) for name, k in depths.items() if k}
    if kept is not None:
        kept |= parts
    item_idx = np.sort(np.concatenate([part.item_idx for part in parts.values()], axis=1), axis=1)
    new = item_idx >= 0
    new[:, 1:] &= item_idx[:, 1:] != item_idx[:, :-1]
    row, place = np.nonzero(new)
    item = item_idx[row, place]
    found = empty_result(scores.n, max(1, int(new.sum(axis=1).max(initial=0))))
    write_best(found, 0, row, item, pair_scores(scores.vectors, scores.item_vectors, row, item))
    return found


def first_of_order(
    order: np.ndarray, score: np.ndarray, n: int, k: int, seen: Rows | None, allowed: np.ndarray | None
) -> ScoredItems:
    """Takes the first k allowed items of an order for n users, without those that each has seen.

    Args:
        order: (n_items,) item_idx by falling score.
        score: (n_items,).
    Returns:
        (n, k).
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


def without_items(found: ScoredItems, users: np.ndarray, allowed: np.ndarray | None) -> ScoredItems:
    """Removes the items that are not allowed, and all items of some users. The gaps stay.

    Args:
        users: (n,) bool: users that keep their items.
    """
    if allowed is None and not users.any():
        return found
    out = np.broadcast_to(users[:, None], found.item_idx.shape)
    if allowed is not None:
        out = out | ~np.append(allowed, False)[found.item_idx]
    return ScoredItems(np.where(out, -1, found.item_idx), np.where(out, -np.inf, found.score).astype(np.float32))
