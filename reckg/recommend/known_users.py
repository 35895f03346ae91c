"""Lists for blocks of users and items, as arrays: what the server, the batch job and the evaluation share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reckg.arrays.ragged_rows import Rows, joined_rows, take_rows
from reckg.ranking.diversity import Diversity
from reckg.ranking.sources.candidates import first_of_order
from reckg.recommend.deadline import Stages
from reckg.recommend.evidence import Evidence
from reckg.recommend.fold_in import Users
from reckg.recommend.two_stage import best_items, resized
from reckg.retrieval.exact import empty_result
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    from reckg.bundle.bundle import Bundle

NO_DIVERSITY = Diversity()
FEW_UNAVAILABLE = 200  # up to so many are left out as what a user has seen is: without a bitmap over the catalogue


def recommend_batch(
    bundle: Bundle,
    user_idx: np.ndarray,
    k: int,
    *,
    exclude_seen: bool = True,
    rerank: bool = True,
    exclude: Rows | None = None,
    diversity: Diversity | None = None,
    allowed: np.ndarray | None = None,
    stages: Stages | None = None,
    evidence: Evidence | None = None,
) -> ScoredItems:
    """The best k items of n users. Deterministic; a user's answer does not depend on the others in the batch.

    The candidates of all sources are reranked; beyond them the retrieval order continues, so that k items come back
    where k exist. Users without any interaction in the bundle's history get the most popular items, unless the ranker
    was shown to rank for them better. Memory grows with n x candidates: call it with blocks of users.

    Args:
        user_idx: (n,) int, 0..n_users-1.
        k: items per user, k >= 1.
        exclude_seen: leave out the items of the user's history.
        rerank: apply the bundle's ranker, where it has one, and ``diversity``; else the retrieval order comes back.
        exclude: item_idx to leave out, one row per user, in place of the history; ``exclude_seen`` is then ignored.
        diversity: what is done with the candidates after ranking; None: as the bundle is configured.
        allowed: (n_items,) bool, the items that any of them may get; None: all.
        stages: times the stages and ends them by the deadline; where too little time is left to rank, the answer is as
            without ``rerank``.
        evidence: keeps what the answer is made from; of one user alone.
    Returns:
        (n, k) items; rows with fewer are padded as ScoredItems says.
    Raises:
        ValueError: k below 1, a user_idx out of range, or ``exclude`` of another number of rows.
        DeadlineError: the deadline of ``stages`` passed.
    """
    stages = stages or Stages()
    user_idx = _checked(user_idx, len(bundle.user_ids), "user_idx")
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    seen = history_rows(bundle, user_idx, exclude_seen) if exclude is None else exclude
    if seen is not None and len(seen[0]) != len(user_idx) + 1:
        raise ValueError(f"exclude has {len(seen[0]) - 1} rows for {len(user_idx)} users")
    seen, allowed = limits(bundle, seen, allowed, len(user_idx))
    users = Users(bundle.user_vectors, bundle.history, bundle.features)
    how = diversity if rerank else NO_DIVERSITY
    found, popular = empty_result(len(user_idx), k), gets_popular(bundle, user_idx, rerank)
    warm = np.flatnonzero(~popular)
    if len(warm):
        of_warm = None if seen is None else take_rows(seen, warm)
        part = best_items(bundle, users, user_idx[warm], k, of_warm, allowed, rerank, how, stages, evidence)
        found.item_idx[warm], found.score[warm] = part.item_idx, part.score
        popular |= gets_popular(bundle, user_idx, rerank and not stages.rerank_skipped)
    cold = np.flatnonzero(popular)
    if len(cold):
        stages.begin("popular")
        of_cold = None if seen is None else take_rows(seen, cold)
        part = _most_popular(bundle, len(cold), k, of_cold, allowed)
        found.item_idx[cold], found.score[cold] = part.item_idx, part.score
        stages.end()
    return found


def history_rows(bundle: Bundle, user_idx: np.ndarray, wanted: bool) -> Rows | None:
    """Compressed rows of what (n,) users have taken; None where it is not wanted."""
    if not wanted:
        return None
    indptr, positions = bundle.history.rows(user_idx)
    return indptr, bundle.history.item_idx[positions]


def limits(
    bundle: Bundle, seen: Rows | None, allowed: np.ndarray | None, n: int
) -> tuple[Rows | None, np.ndarray | None]:
    """What n users leave out and may get, less the items that may not be recommended."""
    gone = bundle.unavailable
    if len(gone) > FEW_UNAVAILABLE or (len(gone) and allowed is not None):
        return seen, bundle.available if allowed is None else allowed & bundle.available
    if not len(gone):
        return seen, allowed
    return joined_rows(seen, (np.arange(n + 1) * len(gone), np.tile(gone, n))), allowed


def gets_popular(bundle: Bundle, user_idx: np.ndarray, rerank: bool) -> np.ndarray:
    """(n,) bool: which of (n,) users get the most popular items."""
    return is_cold(bundle, user_idx) & ~(rerank and ranks_cold(bundle))


def ranks_cold(bundle: Bundle) -> bool:
    """Whether the bundle's ranker is for users without a history too."""
    return bundle.ranker is not None and bundle.ranker.ranks_cold


def is_cold(bundle: Bundle, user_idx: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n,) users have no interaction in the bundle's history."""
    return bundle.history.indptr[user_idx + 1] == bundle.history.indptr[user_idx]


def popular_items(
    bundle: Bundle, k: int, *, exclude: Rows | None = None, n: int = 1, allowed: np.ndarray | None = None
) -> ScoredItems:
    """The k most popular of the allowed items, n times, less those that ``exclude`` names in each of its n rows.

    Returns:
        (n, k) items in the feature tables' order, which is the source "popular" too; the score is popular_score.
    Raises:
        ValueError: k < 1, or ``exclude`` does not have n rows.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if exclude is not None and len(exclude[0]) != n + 1:
        raise ValueError(f"exclude has {len(exclude[0]) - 1} rows, expected {n}")
    exclude, allowed = limits(bundle, exclude, allowed, n)
    return _most_popular(bundle, n, k, exclude, allowed)


def _most_popular(bundle: Bundle, n: int, k: int, exclude: Rows | None, allowed: np.ndarray | None) -> ScoredItems:
    return first_of_order(bundle.features.popular, bundle.features.popular_score, n, k, exclude, allowed)


def similar_items(bundle: Bundle, item_idx: np.ndarray, k: int, allowed: np.ndarray | None = None) -> ScoredItems:
    """The k items closest to each of n items by inner product of their vectors, never the item itself.

    Args:
        item_idx: (n,) int, 0..n_items-1.
        allowed: (n_items,) bool, the items that may be found; None: all.
    Returns:
        (n, k) items; rows with fewer are padded as ScoredItems says.
    Raises:
        ValueError: k < 1, or an item_idx out of range.
    """
    item_idx = _checked(item_idx, len(bundle.item_ids), "item_idx")
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    depth = min(k, len(bundle.item_ids))
    seen, allowed = limits(bundle, (np.arange(len(item_idx) + 1), item_idx), allowed, len(item_idx))
    return resized(bundle.index.search(bundle.item_vectors[item_idx], depth, seen=seen, allowed=allowed), k)


def _checked(idx: np.ndarray, n: int, what: str) -> np.ndarray:
    """``idx`` as (n,) int64. Raises ValueError where one is out of range, which NumPy would take from the end."""
    idx = np.asarray(idx, dtype=np.int64)
    if idx.ndim != 1:
        raise ValueError(f"{what} must have one dimension, got shape {idx.shape}")
    if len(idx) and (idx.min() < 0 or idx.max() >= n):
        raise ValueError(f"{what} must be 0..{n - 1}, got {idx.min()}..{idx.max()}")
    return idx
