"""Recommendations over a bundle: retrieve, leave out the seen, extract features, rerank.

The server, the batch job and the offline evaluation all call `recommend_batch` for users of the bundle, and server and
batch job `recommend_users` for all requests, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reckg.arrays.ragged_rows import Rows, joined_rows, take_rows
from reckg.ranking.diversity import Diversity
from reckg.recommend.answers import DegradedReason, FallbackPolicy, RankedItems, Recommendations, RecommendedItem
from reckg.recommend.deadline import Stages
from reckg.recommend.evidence import Evidence, FeatureValue, SourceScore
from reckg.recommend.feature_values import feature_values
from reckg.recommend.fold_in import FoldedUsers, UserRequest, fold_in
from reckg.recommend.known_users import (
    NO_DIVERSITY,
    gets_popular,
    history_rows,
    is_cold,
    limits,
    popular_items,
    ranks_cold,
    recommend_batch,
    similar_items,
)
from reckg.recommend.rank_items import rank_items
from reckg.recommend.two_stage import best_items
from reckg.retrieval.exact import empty_result
from reckg.retrieval.filters import Filters
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    import polars as pl

    from reckg.bundle.bundle import Bundle
    from reckg.inductive.embedder import EmbeddedItems


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
    left_out: Rows | None = None,
    stages: Stages | None = None,
    evidence: Evidence | None = None,
) -> UserAnswers:
    """The best k items for n requests: users of the bundle, of a given history, of attributes alone, or of nothing.

    A request with recent items or attributes is answered from a vector that is made for it, and reranked with the
    whole history; without any history the retrieval order is the answer, because rankers learn from users who have
    one. A user of whom nothing is known gets the most popular items. An answer does not depend on the other requests.

    Args:
        rerank, diversity: as in recommend_batch.
        allowed: (n_items,) bool, the items that any of them may get; None: all.
        left_out: compressed rows of item_idx that each request does not get, whatever ``exclude_seen`` says.
        stages: times the stages and ends them by the deadline; where too little time is left to rank, nobody's items
            are ranked that were not yet.
        evidence: keeps what the answer is made from; of one request alone.
    Raises:
        ValueError: k < 1. CannotEmbedError: the bundle cannot embed users, and a request asks for it.
        DeadlineError: the deadline of ``stages`` passed.
    """
    stages = stages or Stages()
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
        exclude = None
        if left_out is not None:
            history = history_rows(bundle, user_idx[known], exclude_seen)
            exclude = joined_rows(history, take_rows(left_out, known))
        found = recommend_batch(
            bundle,
            user_idx[known],
            k,
            exclude_seen=exclude_seen,
            rerank=rerank,
            exclude=exclude,
            diversity=diversity,
            allowed=allowed,
            stages=stages,
            evidence=evidence,
        )
        parts.append((known, found))
        cold[known] = is_cold(bundle, user_idx[known])
        reranked[known] = rerank and not stages.rerank_skipped
        popular[known] = gets_popular(bundle, user_idx[known], rerank and not stages.rerank_skipped)
    strangers = np.flatnonzero(plain & (user_idx < 0))
    rows = np.flatnonzero(~plain)
    if len(rows):
        stages.begin("fold_in")
        folded = fold_in(bundle, [requests[row] for row in rows.tolist()])
        cold[rows] = np.diff(folded.history.indptr) == 0
        popular[rows] = ~folded.vectors.any(axis=1)
        reranked[rows] = (~cold[rows] | ranks_cold(bundle)) & rerank
        for which in (True, False):
            some = np.flatnonzero(~popular[rows] & (reranked[rows] == which))
            if not len(some):
                continue
            seen = take_rows((folded.history.indptr, folded.history.item_idx), some) if exclude_seen else None
            seen = joined_rows(seen, None if left_out is None else take_rows(left_out, rows[some]))
            within = limits(bundle, seen, allowed, len(some))
            how = diversity if rerank and not stages.rerank_skipped else NO_DIVERSITY
            found = best_items(bundle, folded, some, k, *within, which, how, stages, evidence)
            parts.append((rows[some], found))
            reranked[rows[some]] &= not stages.rerank_skipped
        for row, items, attributes in zip(rows, folded.unknown_items, folded.unknown_attributes, strict=True):
            unknown_items[row], unknown_attributes[row] = items, attributes
        strangers = np.concatenate([strangers, rows[popular[rows]]])
    if len(strangers):
        stages.begin("popular")
    exclude = None if left_out is None else take_rows(left_out, strangers)
    parts.append((strangers, popular_items(bundle, k, exclude=exclude, n=len(strangers), allowed=allowed)))
    stages.end()
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


@dataclass(frozen=True)
class Shown:
    """What an answer shows of its evidence."""

    evidence: Evidence
    features: bool = False
    sources: bool = False

    def of(self, item_idx: int) -> tuple[dict[str, FeatureValue], tuple[SourceScore, ...]]:
        """An item's features and sources."""
        features = self.evidence.feature_values(item_idx) if self.features else {}
        return features, self.evidence.source_scores(item_idx) if self.sources else ()


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
        recent_times: Sequence[int] = (),
        attributes: Mapping[str, Any] | None = None,
        context_items: Sequence[str] = (),
        diversity: Diversity | None = None,
        filters: Filters | None = None,
        with_features: bool = False,
        with_sources: bool = False,
        stages: Stages | None = None,
    ) -> Recommendations:
        """The best k items of one user.

        A user that the bundle does not know is made of what is given of it, and gets the most popular items where that
        is nothing.

        Args:
            recent_items, recent_times, attributes: as in UserRequest. Recent items are left out of the answer with
                ``exclude_seen``. The answer names those that the bundle does not know.
            context_items: raw ids of what the user has before them: the latest of the history, never in the answer.
            diversity: what is done with the candidates after ranking; None: as the bundle is configured.
            filters: what every item of the answer must satisfy; k items come back where k do.
            with_features, with_sources: whether each item brings what the ranker saw of it, and what found it.
            stages: as in recommend_batch.
        Raises:
            ValueError: k < 1, or nothing of the user is given.
            DeadlineError: the deadline of ``stages`` passed.
            FilterError: a filter on an unknown column, or one that does not fit it.
            ConfigError: a diversity that the catalogue has no column for.
            CannotEmbedError: recent items or attributes are given, and the bundle cannot embed users.
        """
        stages = stages or Stages()
        request, context, unknown = self._request(user_id, recent_items, recent_times, attributes, context_items)
        if not user_id and request.is_plain:
            raise ValueError("give a user_id, recent_items or attributes: of nothing there is nothing to recommend")
        shown = Shown(Evidence(), with_features, with_sources) if with_features or with_sources else None
        answers = recommend_users(
            self.bundle,
            [request],
            k,
            exclude_seen=exclude_seen,
            rerank=rerank,
            diversity=diversity,
            allowed=None if filters is None else self.bundle.item_filters.allowed(filters),
            left_out=(np.array([0, len(context)]), context) if len(context) else None,
            stages=stages,
            evidence=None if shown is None else shown.evidence,
        )
        return replace(
            self._answer(answers.found, answers.fallback[0], answers.degraded[0], shown),
            unknown_recent_items=answers.unknown_recent_items[0],
            unknown_attributes=answers.unknown_attributes[0],
            unknown_context_items=unknown,
            stages=tuple(stages.seconds),
        )

    def rank_items(
        self,
        user_id: str | None,
        item_ids: Sequence[str],
        *,
        recent_items: Sequence[str] = (),
        recent_times: Sequence[int] = (),
        attributes: Mapping[str, Any] | None = None,
        context_items: Sequence[str] = (),
        with_features: bool = False,
        stages: Stages | None = None,
    ) -> RankedItems:
        """Given items in the order in which a user is most likely to want them; all that are known come back.

        Args: as recommend; item_ids: distinct.
        Raises:
            ValueError: nothing of the user is given, or an item twice. DeadlineError, CannotEmbedError: as recommend.
        """
        stages = stages or Stages()
        request, _, unknown = self._request(user_id, recent_items, recent_times, attributes, context_items)
        if not user_id and request.is_plain:
            raise ValueError("give a user_id, recent_items or attributes: of nothing there is no order")
        if len(set(item_ids)) < len(item_ids):
            raise ValueError("item_ids must not repeat")
        found = [self.bundle.item_ids.get(item_id) for item_id in item_ids]
        items = np.array([idx for idx in found if idx is not None], dtype=np.int64)
        shown = Shown(Evidence(), features=True) if with_features else None
        ranked = rank_items(self.bundle, request, items, stages, None if shown is None else shown.evidence)
        reasons: dict[DegradedReason, bool] = {
            "cold_user": ranked.cold,
            "no_rerank": self.bundle.ranker is not None and not ranked.reranked and not ranked.popular,
            "unknown_recent_items": bool(ranked.unknown_items),
            "unknown_attributes": bool(ranked.unknown_attributes),
        }
        degraded = tuple(reason for reason, holds in reasons.items() if holds)
        answer = replace(
            self._answer(ranked.found, "popular" if ranked.popular else None, degraded, shown),
            unknown_recent_items=ranked.unknown_items,
            unknown_attributes=ranked.unknown_attributes,
            unknown_context_items=unknown,
            stages=tuple(stages.seconds),
        )
        return RankedItems(answer, tuple(i for i, idx in zip(item_ids, found, strict=True) if idx is None))

    def _request(
        self,
        user_id: str | None,
        recent_items: Sequence[str],
        recent_times: Sequence[int],
        attributes: Mapping[str, Any] | None,
        context_items: Sequence[str],
    ) -> tuple[UserRequest, np.ndarray, tuple[str, ...]]:
        """The request with the context as the latest items; the context's (m,) item_idx; what of it is not known."""
        context = {item_id: self.bundle.item_ids.get(item_id) for item_id in context_items}
        known = {item_id: idx for item_id, idx in context.items() if idx is not None}
        request = UserRequest(user_id, [*recent_items, *known], attributes or {}, recent_times)
        unknown = tuple(item_id for item_id in context if item_id not in known)
        return request, np.array(sorted(known.values()), dtype=np.int64), unknown

    def embed_items(self, items: pl.DataFrame | Sequence[tuple[str, Mapping[str, Any]]]) -> EmbeddedItems:
        """The vectors of items that the bundle does not have, in the space of its own, from texts and attributes.

        Args, Raises: as Inductive.embed_items; CannotEmbedError: the bundle has nothing to embed with.
        """
        return self.bundle.embedder.embed_items(items)

    def embed_users(self, requests: Sequence[UserRequest]) -> FoldedUsers:
        """The vectors of n users, in the space of the bundle's own, and what of them is unknown to it.

        Raises:
            CannotEmbedError: the bundle has nothing to embed with.
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

    def similar_items(self, item_id: str, k: int = 10, *, filters: Filters | None = None) -> Recommendations:
        """The k items closest to one item, by the cosine of their vectors; never the item itself.

        Raises:
            UnknownIdError: the bundle does not know the item.
            ValueError: k < 1. FilterError: as recommend.
        """
        item_idx = np.array([self.bundle.item_ids.idx(item_id)])
        allowed = None if filters is None else self.bundle.item_filters.allowed(filters)
        return self._answer(similar_items(self.bundle, item_idx, k, allowed), None, ())

    def _answer(
        self,
        found: ScoredItems,
        fallback: FallbackPolicy | None,
        degraded: tuple[DegradedReason, ...],
        shown: Shown | None = None,
    ) -> Recommendations:
        """Row 0 of ``found`` as an answer, each item with what is to be shown of it."""
        item_idx = found.item_idx[0][found.item_idx[0] >= 0]
        ids, titles = self.bundle.item_ids.ids, self.bundle.titles(item_idx)
        rows = zip(item_idx.tolist(), titles, found.score[0].tolist(), strict=False)  # the scores are padded
        items = [
            RecommendedItem(ids[item], title, score, *(shown.of(item) if shown else ())) for item, title, score in rows
        ]
        return Recommendations(items, self.bundle.version, fallback, degraded)
