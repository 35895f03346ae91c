"""Recommendations over a bundle: retrieve, leave out the seen, extract features, rerank.

The server, the batch job and the offline evaluation all call `recommend_batch` for users of the bundle, and server and
batch job `recommend_users` for all requests, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reckg.compressed_rows import Rows, take_rows
from reckg.feature_values import FeatureValue, feature_values
from reckg.inductive.fold_in import FoldedUsers, UserRequest, Users, fold_in
from reckg.ranking.candidates import first_of_order
from reckg.ranking.diversity import Diversity
from reckg.retrieval.exact import empty_result
from reckg.retrieval.filters import Filters
from reckg.retrieval.scored_items import ScoredItems
from reckg.two_stage import best_items, resized

if TYPE_CHECKING:
    import polars as pl

    from reckg.bundle import Bundle
    from reckg.inductive.embedder import EmbeddedItems

FallbackPolicy = Literal["popular"]
NO_DIVERSITY = Diversity()
DegradedReason = Literal["cold_user", "no_rerank", "unknown_recent_items", "unknown_attributes"]


@dataclass(frozen=True)
class RecommendedItem:
    """One item of an answer; ``title`` is empty where the catalogue has no text column. Higher scores are better."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Recommendations:
    """An answer, best item first.

    ``fallback`` names the policy that answered in place of the model (None: the model answered); ``degraded`` says
    why the answer may be worse than usual: ``cold_user``: no interaction of the user is known; ``no_rerank``: there is
    a ranker, and it was not applied; ``unknown_recent_items`` and ``unknown_attributes``: some of what was given is not
    known to the bundle, and the fields of that name say what.
    """

    items: list[RecommendedItem]
    bundle_version: str
    fallback: FallbackPolicy | None = None
    degraded: tuple[DegradedReason, ...] = ()
    unknown_recent_items: tuple[str, ...] = ()
    unknown_attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class UserAnswers:
    """Answers to n requests: found (n, k); the rest for each as in Recommendations."""

    found: ScoredItems
    fallback: list[FallbackPolicy | None]
    degraded: list[tuple[DegradedReason, ...]]
    unknown_recent_items: list[tuple[str, ...]]
    unknown_attributes: list[tuple[str, ...]]


def recommend_users(
    bundle: Bundle,
    requests: Sequence[UserRequest],
    k: int,
    *,
    exclude_seen: bool = True,
    rerank: bool = True,
    diversity: Diversity | None = None,
    allowed: np.ndarray | None = None,
) -> UserAnswers:
    """The best k items for n requests: users of the bundle, of a given history, of attributes alone, or of nothing.

    A request with recent items or attributes is answered from a vector that is made for it, and reranked with the
    whole history; without any history the retrieval order is the answer, because rankers learn from users who have
    one. A user of whom nothing is known gets the most popular items. An answer does not depend on the other requests.

    Args:
        rerank, diversity: as in recommend_batch.
        allowed: (n_items,) bool, the items that any of them may get; None: all.
    Raises:
        ValueError: k < 1. OlderBundleError: the bundle cannot embed users, and a request asks for it.
    """
    n = len(requests)
    ids = [None if request.user_id is None else bundle.user_ids.get(request.user_id) for request in requests]
    user_idx = np.array([-1 if idx is None else idx for idx in ids], dtype=np.int64)
    plain = np.array([request.is_plain for request in requests], dtype=bool)
    cold, popular, reranked = (np.ones(n, dtype=bool) for _ in range(3))
    unknown_items: list[tuple[str, ...]] = [()] * n
    unknown_attributes = list(unknown_items)
    parts: list[tuple[np.ndarray, ScoredItems]] = []
    known = np.flatnonzero(plain & (user_idx >= 0))
    if len(known):
        found = recommend_batch(
            bundle,
            user_idx[known],
            k,
            exclude_seen=exclude_seen,
            rerank=rerank,
            diversity=diversity,
            allowed=allowed,
        )
        parts.append((known, found))
        cold[known] = is_cold(bundle, user_idx[known])
        popular[known] = gets_popular(bundle, user_idx[known], rerank)
        reranked[known] = rerank
    strangers = np.flatnonzero(plain & (user_idx < 0))
    rows = np.flatnonzero(~plain)
    if len(rows):
        folded = fold_in(bundle, [requests[row] for row in rows.tolist()])
        cold[rows] = np.diff(folded.history.indptr) == 0
        popular[rows] = ~folded.vectors.any(axis=1)
        reranked[rows] = (~cold[rows] | ranks_cold(bundle)) & rerank
        for which in (True, False):
            some = np.flatnonzero(~popular[rows] & (reranked[rows] == which))
            seen = take_rows((folded.history.indptr, folded.history.item_idx), some) if exclude_seen else None
            found = best_items(bundle, folded, some, k, seen, which, diversity if rerank else NO_DIVERSITY, allowed)
            parts.append((rows[some], found))
        for row, items, attributes in zip(rows, folded.unknown_items, folded.unknown_attributes, strict=True):
            unknown_items[row], unknown_attributes[row] = items, attributes
        strangers = np.concatenate([strangers, rows[popular[rows]]])
    parts.append((strangers, popular_items(bundle, k, n=len(strangers), allowed=allowed)))
    found = empty_result(n, k)
    for where, part in parts:
        found.item_idx[where], found.score[where] = part.item_idx, part.score
    skipped = ~reranked & ~popular & (bundle.ranker is not None)
    reasons: dict[DegradedReason, Any] = {
        "cold_user": cold,
        "no_rerank": skipped,
        "unknown_recent_items": unknown_items,
        "unknown_attributes": unknown_attributes,
    }
    return UserAnswers(
        found,
        ["popular" if each else None for each in popular],
        [tuple(reason for reason, holds in reasons.items() if holds[row]) for row in range(n)],
        unknown_items,
        unknown_attributes,
    )


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
    Returns:
        (n, k) items; rows with fewer are padded as ScoredItems says.
    Raises:
        ValueError: k below 1, a user_idx out of range, or ``exclude`` of another number of rows.
    """
    user_idx = _checked(user_idx, len(bundle.user_ids), "user_idx")
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    seen = exclude
    if exclude is None and exclude_seen:
        indptr, positions = bundle.history.rows(user_idx)
        seen = indptr, bundle.history.item_idx[positions]
    if seen is not None and len(seen[0]) != len(user_idx) + 1:
        raise ValueError(f"exclude has {len(seen[0]) - 1} rows for {len(user_idx)} users")
    users = Users(bundle.user_vectors, bundle.history, bundle.features)
    found = best_items(bundle, users, user_idx, k, seen, rerank, diversity if rerank else NO_DIVERSITY, allowed)
    cold = np.flatnonzero(gets_popular(bundle, user_idx, rerank))
    if len(cold):
        left_out = None if seen is None else take_rows(seen, cold)
        popular = popular_items(bundle, k, exclude=left_out, n=len(cold), allowed=allowed)
        found.item_idx[cold], found.score[cold] = popular.item_idx, popular.score
    return found


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
    tables = bundle.features
    return first_of_order(tables.popular, tables.popular_score, n, k, exclude, allowed)


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
    itself = np.arange(len(item_idx) + 1), item_idx
    return resized(bundle.index.search(bundle.item_vectors[item_idx], depth, seen=itself, allowed=allowed), k)


class Recommender:
    """Answers by raw ids; safe to share between threads.

    recommender = reckg.load("run/bundle")
    recommender.recommend("some user", k=10).items
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def recommend(
        self,
        user_id: str | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        *,
        rerank: bool = True,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
        diversity: Diversity | None = None,
        filters: Filters | None = None,
    ) -> Recommendations:
        """The best k items of one user.

        A user that the bundle does not know is made of what is given of it, and gets the most popular items where that
        is nothing.

        Args:
            recent_items: raw item ids, oldest first: what the user did last, after what the bundle knows. They are
                left out of the answer with ``exclude_seen``. The answer names those that the bundle does not know.
            attributes: a column of the users table to a value or a list of values, in place of the bundle's.
            diversity: what is done with the candidates after ranking; None: as the bundle is configured.
            filters: what every item of the answer must satisfy; k items come back where k do.
        Raises:
            ValueError: k < 1, or nothing of the user is given.
            DataError: a filter on an unknown column, or one that does not fit it.
            OlderBundleError: recent items or attributes are given, and the bundle cannot embed users.
        """
        request = UserRequest(user_id, recent_items, attributes or {})
        if not user_id and request.is_plain:
            raise ValueError("give a user_id, recent_items or attributes: of nothing there is nothing to recommend")
        allowed = None if filters is None else self.bundle.item_filters.allowed(filters)
        answers = recommend_users(
            self.bundle,
            [request],
            k,
            exclude_seen=exclude_seen,
            rerank=rerank,
            diversity=diversity,
            allowed=allowed,
        )
        answer = self._answer(answers.found, answers.fallback[0], answers.degraded[0])
        unknown = {name: getattr(answers, name)[0] for name in ("unknown_recent_items", "unknown_attributes")}
        return replace(answer, **unknown)

    def embed_items(self, items: pl.DataFrame | Sequence[tuple[str, Mapping[str, Any]]]) -> EmbeddedItems:
        """The vectors of items that the bundle does not have, in the space of its own, from texts and attributes.

        Args, Raises: as Inductive.embed_items; OlderBundleError: the bundle has nothing to embed with.
        """
        return self.bundle.embedder.embed_items(items)

    def embed_users(self, requests: Sequence[UserRequest]) -> FoldedUsers:
        """The vectors of n users, in the space of the bundle's own, and what of them is unknown to it.

        Raises:
            OlderBundleError: the bundle has nothing to embed with.
        """
        return fold_in(self.bundle, requests)

    def explain_features(
        self,
        user_id: str | None,
        item_ids: Sequence[str],
        *,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> dict[str, dict[str, FeatureValue]]:
        """By item id and feature: what the ranker sees of given items for a user, and why a value is missing.

        Args, Raises: as recommend and feature_values.feature_values.
        """
        return feature_values(self.bundle, UserRequest(user_id, recent_items, attributes or {}), item_ids)

    def similar_items(self, item_id: str, k: int = 10) -> Recommendations:
        """The k items closest to one item, by the cosine of their vectors; never the item itself.

        Raises:
            UnknownIdError: the bundle does not know the item.
            ValueError: k < 1.
        """
        item_idx = np.array([self.bundle.item_ids.idx(item_id)])
        return self._answer(similar_items(self.bundle, item_idx, k), None, ())

    def _answer(
        self, found: ScoredItems, fallback: FallbackPolicy | None, degraded: tuple[DegradedReason, ...]
    ) -> Recommendations:
        """Row 0 of ``found`` as an answer."""
        item_idx = found.item_idx[0][found.item_idx[0] >= 0]
        ids, titles = self.bundle.item_ids.ids, self.bundle.titles(item_idx)
        rows = zip(item_idx.tolist(), titles, found.score[0].tolist(), strict=False)  # the scores are padded
        items = [RecommendedItem(ids[item], title, score) for item, title, score in rows]
        return Recommendations(items, self.bundle.version, fallback, degraded)


def _checked(idx: np.ndarray, n: int, what: str) -> np.ndarray:
    """``idx`` as (n,) int64. Raises ValueError where one is out of range, which NumPy would take from the end."""
    idx = np.asarray(idx, dtype=np.int64)
    if idx.ndim != 1:
        raise ValueError(f"{what} must have one dimension, got shape {idx.shape}")
    if len(idx) and (idx.min() < 0 or idx.max() >= n):
        raise ValueError(f"{what} must be 0..{n - 1}, got {idx.min()}..{idx.max()}")
    return idx
