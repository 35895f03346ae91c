"""Lists for blocks of users and items as arrays, shared by the server, the batch job and the evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reckg.arrays.ragged_rows import Rows
from reckg.bundle.bundle import Bundle
from reckg.data.history import History
from reckg.ranking.sources.candidates import first_of_order
from reckg.recommend.fold_in import Users
from reckg.recommend.trace import Trace
from reckg.recommend.two_stage import best_items
from reckg.recommend.wanted import NO_DIVERSITY, Wanted, without_unavailable
from reckg.retrieval.scored_items import ScoredItems, empty_result, resize


def recommend_batch(bundle: Bundle, user_idx: np.ndarray, wanted: Wanted, trace: Trace | None = None) -> ScoredItems:
    """Recommends items to users of the bundle. Deterministic; a user's list does not depend on the other users.

    The candidates of all sources are reranked. The retrieval order continues after them, so that k items are returned
    if k exist. Users without any interaction in the bundle's history get the most popular items, unless the bundle's
    ranker is for them too. Memory grows with n x candidates: call it with blocks of users.

    Args:
        user_idx: (n,) int, 0..n_users-1.
        wanted: ``left_out`` has n rows.
        trace: with evidence for n = 1 only. When too little time is left to rank, the lists are those without
            ``rerank``.
    Returns:
        (n, k) items; shorter rows are padded as ScoredItems says.
    Raises:
        ValueError: a user_idx is out of range, or ``left_out`` has another number of rows.
        DeadlineError: the deadline passed.
    """
    trace = trace or Trace()
    user_idx = _check_indices(user_idx, len(bundle.user_ids), "user_idx")
    if wanted.left_out is not None and len(wanted.left_out[0]) != len(user_idx) + 1:
        raise ValueError(f"left_out has {len(wanted.left_out[0]) - 1} rows for {len(user_idx)} users")
    if not wanted.rerank:
        wanted = replace(wanted, diversity=NO_DIVERSITY)
    found, popular = empty_result(len(user_idx), wanted.k), gets_popular(bundle, user_idx, wanted.rerank)
    warm, users = np.flatnonzero(~popular), Users(bundle.user_vectors, bundle.history, bundle.features)
    if len(warm):
        part = best_items(bundle, users, user_idx[warm], wanted.for_users(warm), trace)
        found.item_idx[warm], found.score[warm] = part.item_idx, part.score
        popular |= gets_popular(bundle, user_idx, wanted.rerank and not trace.deadline.rerank_skipped)
    cold = np.flatnonzero(popular)
    if len(cold):
        trace.deadline.begin("popular")
        left_out = wanted.for_users(cold).without_seen(bundle, users, user_idx[cold]).left_out
        part = popular_items(bundle, wanted.k, exclude=left_out, n=len(cold), allowed=wanted.allowed)
        found.item_idx[cold], found.score[cold] = part.item_idx, part.score
        trace.deadline.end()
    return found


def gets_popular(bundle: Bundle, user_idx: np.ndarray, rerank: bool) -> np.ndarray:
    """Tests which users get the most popular items.

    Args:
        user_idx: (n,) int64.
        rerank: whether the ranker is applied.
    Returns:
        (n,) bool.
    """
    return is_cold(bundle.history, user_idx) & ~(rerank and ranks_cold(bundle))


def ranks_cold(bundle: Bundle) -> bool:
    """Tests whether the bundle's ranker is for users without a history too."""
    return bundle.ranker is not None and bundle.ranker.ranks_cold


def is_cold(history: History, user_idx: np.ndarray) -> np.ndarray:
    """Tests which of (n,) users have no interaction in the history; (n,) bool."""
    return np.asarray(history.indptr[user_idx + 1] == history.indptr[user_idx])


def popular_items(
    bundle: Bundle, k: int, *, exclude: Rows | None = None, n: int = 1, allowed: np.ndarray | None = None
) -> ScoredItems:
    """Lists the k most popular items n times.

    Args:
        exclude: compressed rows of n lists of item_idx to leave out.
        n: number of lists.
        allowed: (n_items,) bool, the items that may be listed. None: all.
    Returns:
        (n, k) items in the feature tables' order, which is the source "popular" too; the score is popular_score.
    Raises:
        ValueError: k < 1, or ``exclude`` does not have n rows.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if exclude is not None and len(exclude[0]) != n + 1:
        raise ValueError(f"exclude has {len(exclude[0]) - 1} rows, expected {n}")
    exclude, allowed = without_unavailable(bundle, exclude, allowed, n)
    return first_of_order(bundle.features.popular, bundle.features.popular_score, n, k, exclude, allowed)


def similar_items(bundle: Bundle, item_idx: np.ndarray, k: int, allowed: np.ndarray | None = None) -> ScoredItems:
    """Finds the k items closest to each of n items by inner product of their vectors, without the item itself.

    Args:
        item_idx: (n,) int, 0..n_items-1.
        allowed: (n_items,) bool, the items that may be found. None: all.
    Returns:
        (n, k) items; rows with fewer are padded as ScoredItems says.
    Raises:
        ValueError: k < 1, or an item_idx out of range.
    """
    item_idx = _check_indices(item_idx, len(bundle.item_ids), "item_idx")
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    depth = min(k, len(bundle.item_ids))
    seen, allowed = without_unavailable(bundle, (np.arange(len(item_idx) + 1), item_idx), allowed, len(item_idx))
    return resize(bundle.index.search(bundle.item_vectors[item_idx], depth, seen=seen, allowed=allowed), k)


def _check_indices(idx: np.ndarray, n: int, name: str) -> np.ndarray:
    """Converts indices to (m,) int64. Raises ValueError if one is outside 0..n-1: NumPy counts -1 from the end."""
    idx = np.asarray(idx, dtype=np.int64)
    if idx.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {idx.shape}")
    if len(idx) and (idx.min() < 0 or idx.max() >= n):
        raise ValueError(f"{name} must be 0..{n - 1}, got {idx.min()}..{idx.max()}")
    return idx
