"""The two stages for users of a bundle or of requests: candidates of every source, reranked and diversified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reckg.arrays.ragged_rows import Rows, take_rows
from reckg.metrics.ranking import hit_matrix
from reckg.ranking.diversity import Diversity, diversify
from reckg.ranking.features.extract import block_users, candidate_features
from reckg.ranking.sources.candidates import retrieve, source_top
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.trees.ranker import Ranker
from reckg.recommend.deadline import Stages
from reckg.recommend.evidence import Evidence
from reckg.recommend.fold_in import Users
from reckg.retrieval.exact import empty_result
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    from reckg.bundle.bundle import Bundle


def best_items(
    bundle: Bundle,
    users: Users,
    rows: np.ndarray,
    k: int,
    seen: Rows | None,
    allowed: np.ndarray | None,
    rerank: bool,
    diversity: Diversity | None,
    stages: Stages,
    evidence: Evidence | None = None,
) -> ScoredItems:
    """(n, k) for (n,) rows of users: retrieved and, where asked and in time, reranked and diversified.

    evidence: of one user alone, what the list is made from.
    """
    diversity = bundle.diversity if diversity is None else diversity
    found = None
    if rerank and bundle.ranker is not None:
        found = _reranked(bundle, bundle.ranker, users, rows, k, seen, allowed, stages, evidence)
        diversity = Diversity() if found is None else diversity
    plain = diversity.strategy == "none"
    if found is None:
        stages.begin("retrieve")
        few = plain and bundle.index.kind == "flat"  # exact search finds the same, however many are asked for
        depth = k if few else max(k, bundle.candidates)
        found = bundle.index.search(users.vectors[rows], min(depth, len(bundle.item_ids)), seen, allowed)
        if evidence is not None:
            evidence.sources = {"vectors": found}
    if not plain:
        stages.begin("diversify")
        found = diversify(found, k, bundle.candidates, diversity, bundle.traits(diversity), users.history, rows)
    stages.end()
    return resized(found, k)


def _reranked(
    bundle: Bundle,
    ranker: Ranker,
    users: Users,
    rows: np.ndarray,
    k: int,
    seen: Rows | None,
    allowed: np.ndarray | None,
    stages: Stages,
    evidence: Evidence | None,
) -> ScoredItems | None:
    """The candidates of all sources, reranked; at least k columns. None where too little time is left for it."""
    parts = []
    block = block_users(users.features, bundle.candidates)
    for start in range(0, len(rows), block):
        if not stages.may_rerank():
            return None
        stages.begin("retrieve")
        some = slice(start, min(start + block, len(rows)))
        scores = UserScores(users.features, users.history, rows[some], users.vectors[rows[some]], bundle.item_vectors)
        part_seen = None if seen is None else take_rows(seen, some)
        kept = None if evidence is None else evidence.sources
        candidates = retrieve(scores, bundle.index, ranker.depths, part_seen, allowed, kept)
        if not stages.may_rerank():
            return None
        stages.begin("features")
        features = candidate_features(scores, candidates)
        if evidence is not None:
            evidence.ranked(scores, candidates, features)
        stages.begin("rerank")
        found = ranker.rerank(candidates, features.reshape(-1, features.shape[2]))
        parts.append(_continued(bundle, scores, found, k, part_seen, allowed))
    width = max((part.item_idx.shape[1] for part in parts), default=k)
    parts = [resized(part, width) for part in parts]
    return ScoredItems(
        np.concatenate([np.zeros((0, width), dtype=np.int64), *(part.item_idx for part in parts)]),
        np.concatenate([np.zeros((0, width), dtype=np.float32), *(part.score for part in parts)]),
    )


def _continued(
    bundle: Bundle, scores: UserScores, found: ScoredItems, k: int, seen: Rows | None, allowed: np.ndarray | None
) -> ScoredItems:
    """Where a row has fewer than k items, the others follow in retrieval order, with scores that go on falling."""
    length = (found.item_idx >= 0).sum(axis=1)
    if not len(length) or k <= length.min():
        return found
    tail = bundle.index.search(scores.vectors, min(k, len(bundle.item_ids)), seen=seen, allowed=allowed)
    order = np.sort(found.item_idx, axis=1)
    listed = hit_matrix(tail.item_idx, (np.concatenate([[0], np.cumsum(length)]), order[order >= 0]))
    out = resized(found, max(k, found.item_idx.shape[1]))
    for row in np.flatnonzero(length < k):
        more = np.flatnonzero(~listed[row] & (tail.item_idx[row] >= 0))[: k - length[row]]
        places = slice(length[row], length[row] + len(more))
        out.item_idx[row, places] = tail.item_idx[row, more]
        last = found.score[row, length[row] - 1] if length[row] else np.float32(0)
        out.score[row, places] = last + (tail.score[row, more] - tail.score[row, more[:1]])
    return out


def resized(found: ScoredItems, k: int) -> ScoredItems:
    """A copy with exactly k columns: cut, or padded."""
    n, width = found.item_idx.shape
    resized = empty_result(n, k)
    resized.item_idx[:, : min(k, width)] = found.item_idx[:, :k]
    resized.score[:, : min(k, width)] = found.score[:, :k]
    return resized


def recommend_by_source(bundle: Bundle, name: str, user_idx: np.ndarray, k: int, exclude: Rows) -> ScoredItems:
    """(n, k): what one source of candidates alone would list; for comparison.

    Args:
        name: one of candidates.available_sources of the bundle's tables.
        exclude: item_idx to leave out, one row per user.
    """
    block = block_users(bundle.features, k)
    found = empty_result(len(user_idx), k)
    for start in range(0, len(user_idx), block):
        some = slice(start, min(start + block, len(user_idx)))
        rows = user_idx[some]
        scores = UserScores(bundle.features, bundle.history, rows, bundle.user_vectors[rows], bundle.item_vectors)
        part = source_top(name, scores, bundle.index, k, take_rows(exclude, some))
        found.item_idx[some], found.score[some] = part.item_idx, part.score
    return found
