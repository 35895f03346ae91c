"""Two stages for users of a bundle or of requests: candidates of every source, then reranking and diversity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reckg.arrays.ragged_rows import hit_matrix, take_rows
from reckg.bundle.bundle import Bundle
from reckg.ranking.diversity import diversify
from reckg.ranking.features.extract import block_users, candidate_features
from reckg.ranking.sources.candidates import retrieve, source_top
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.trees.ranker import Ranker
from reckg.recommend.fold_in import Users
from reckg.recommend.trace import Trace
from reckg.recommend.wanted import NO_DIVERSITY, Wanted
from reckg.retrieval.scored_items import ScoredItems, empty_result, resize


def best_items(bundle: Bundle, users: Users, rows: np.ndarray, wanted: Wanted, trace: Trace) -> ScoredItems:
    """Retrieves the best items of users; reranks and diversifies them if wanted and in time.

    The guard of the ranker may have kept another order for users with a short or a long history.

    Args:
        rows: (n,) rows of ``users``.
    Returns:
        (n, k) items.
    """
    wanted = wanted.without_seen(bundle, users, rows)
    if not wanted.rerank or bundle.ranker is None:
        return _lists(bundle, users, rows, wanted, trace, "retrieval")
    indptr = users.history.indptr
    orders = bundle.ranker.order_of(indptr[rows + 1] - indptr[rows])
    kinds = np.unique(orders)
    if len(kinds) == 1:
        return _lists(bundle, users, rows, wanted, trace, str(kinds[0]))
    found = empty_result(len(rows), wanted.k)
    for order in kinds:
        places = np.flatnonzero(orders == order)
        part = _lists(bundle, users, rows[places], wanted.for_users(places), trace, str(order))
        found.item_idx[places], found.score[places] = part.item_idx, part.score
    return found


def _lists(bundle: Bundle, users: Users, rows: np.ndarray, wanted: Wanted, trace: Trace, order: str) -> ScoredItems:
    """Makes the lists of users in one order: that of the ranker, of retrieval, or of popularity.

    Args:
        wanted: with all seen items in ``left_out``.
    """
    diversity = bundle.diversity if wanted.diversity is None else wanted.diversity
    found = None
    if order == "ranker" and bundle.ranker is not None:
        found = _rerank_candidates(bundle, bundle.ranker, users, rows, wanted, trace)
        diversity = NO_DIVERSITY if found is None else diversity
    plain = diversity.strategy == "none"
    if found is None:
        trace.deadline.begin("retrieve")
        source = "popular" if order == "popular" else "vectors"
        few = plain and bundle.index.kind == "flat"  # exact search finds the same items at every depth
        depth = min(wanted.k if few else max(wanted.k, bundle.candidates), len(bundle.item_ids))
        scores = UserScores(users.features, users.history, rows, users.vectors[rows], bundle.item_vectors)
        found = source_top(source, scores, bundle.index, depth, wanted.left_out, wanted.allowed)
        if trace.evidence is not None:
            trace.evidence.sources = {source: found}
    if not plain:
        trace.deadline.begin("diversify")
        traits = bundle.traits(diversity)
        found = diversify(found, wanted.k, bundle.candidates, diversity, traits, users.history, rows)
    trace.deadline.end()
    return resize(found, wanted.k)


def _rerank_candidates(
    bundle: Bundle, ranker: Ranker, users: Users, rows: np.ndarray, wanted: Wanted, trace: Trace
) -> ScoredItems | None:
    """Reranks the candidates of all sources; at least k columns. None: too little time is left.

    Args:
        wanted: with all seen items in ``left_out``.
    """
    deadline, evidence = trace.deadline, trace.evidence
    parts = []
    block = block_users(users.features, bundle.candidates)
    for start in range(0, len(rows), block):
        if not deadline.may_rerank():
            return None
        deadline.begin("retrieve")
        some = slice(start, min(start + block, len(rows)))
        scores = UserScores(users.features, users.history, rows[some], users.vectors[rows[some]], bundle.item_vectors)
        left_out = None if wanted.left_out is None else take_rows(wanted.left_out, some)
        kept = None if evidence is None else evidence.sources
        candidates = retrieve(scores, bundle.index, ranker.depths, left_out, wanted.allowed, kept)
        if not deadline.may_rerank():
            return None
        deadline.begin("features")
        features = candidate_features(scores, candidates)
        if evidence is not None:
            evidence.keep_features(scores, candidates, features)
        deadline.begin("rerank")
        found = ranker.rerank(candidates, features.reshape(-1, features.shape[2]))
        parts.append(_append_retrieval_order(bundle, scores, found, replace(wanted, left_out=left_out)))
    width = max((part.item_idx.shape[1] for part in parts), default=wanted.k)
    parts = [resize(part, width) for part in parts]
    return ScoredItems(
        np.concatenate([np.zeros((0, width), dtype=np.int64), *(part.item_idx for part in parts)]),
        np.concatenate([np.zeros((0, width), dtype=np.float32), *(part.score for part in parts)]),
    )


def _append_retrieval_order(bundle: Bundle, scores: UserScores, found: ScoredItems, wanted: Wanted) -> ScoredItems:
    """Fills rows with fewer than k items in retrieval order, with scores that go on falling."""
    length, k = (found.item_idx >= 0).sum(axis=1), wanted.k
    if not len(length) or k <= length.min():
        return found
    depth = min(k, len(bundle.item_ids))
    tail = source_top("vectors", scores, bundle.index, depth, wanted.left_out, wanted.allowed)
    order = np.sort(found.item_idx, axis=1)
    listed = hit_matrix(tail.item_idx, (np.concatenate([[0], np.cumsum(length)]), order[order >= 0]))
    out = resize(found, max(k, found.item_idx.shape[1]))
    for row in np.flatnonzero(length < k):
        more = np.flatnonzero(~listed[row] & (tail.item_idx[row] >= 0))[: k - length[row]]
        places = slice(length[row], length[row] + len(more))
        out.item_idx[row, places] = tail.item_idx[row, more]
        last = found.score[row, length[row] - 1] if length[row] else np.float32(0)
        out.score[row, places] = last + (tail.score[row, more] - tail.score[row, more[:1]])
    return out
