"""Recommendations over a bundle: retrieve, leave out the seen, extract features, rerank.

The server, the batch job and the offline evaluation all call `recommend_batch` for users of the bundle, and server and
batch job `recommend_users` for all requests, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reckg.ranking.diversity import Diversity
from reckg.recommend.answers import DegradedReason, FallbackPolicy, RankedItems, Recommendations, RecommendedItem
from reckg.recommend.deadline import Deadline
from reckg.recommend.evidence import Evidence, FeatureValue, ShownEvidence
from reckg.recommend.feature_values import feature_values
from reckg.recommend.fold_in import FoldedUsers, UserRequest, fold_in
from reckg.recommend.known_users import similar_items
from reckg.recommend.rank_items import rank_items
from reckg.recommend.requests import recommend_users
from reckg.recommend.trace import Trace
from reckg.recommend.wanted import Wanted
from reckg.retrieval.filters import Filters
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    import polars as pl

    from reckg.bundle.bundle import Bundle
    from reckg.inductive.embedder import EmbeddedItems


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
        deadline: Deadline | None = None,
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
            deadline: times the stages and refuses to begin one too late.
        Raises:
            ValueError: k < 1, or nothing of the user is given.
            DeadlineError: the deadline passed.
            FilterError: a filter on an unknown column, or one that does not fit it.
            ConfigError: a diversity that the catalogue has no column for.
            CannotEmbedError: recent items or attributes are given, and the bundle cannot embed users.
        """
        deadline = deadline or Deadline()
        request, context, unknown = self._request(user_id, recent_items, recent_times, attributes, context_items)
        if not user_id and request.is_plain:
            raise ValueError("give a user_id, recent_items or attributes: of nothing there is nothing to recommend")
        shown = ShownEvidence(Evidence(), with_features, with_sources) if with_features or with_sources else None
        wanted = Wanted(
            k,
            exclude_seen,
            left_out=(np.array([0, len(context)]), context) if len(context) else None,
            allowed=None if filters is None else self.bundle.item_filters.allowed(filters),
            rerank=rerank,
            diversity=diversity,
        )
        answers = recommend_users(
            self.bundle, [request], wanted, Trace(deadline, None if shown is None else shown.evidence)
        )
        return replace(
            self._answer(answers.found, answers.fallback[0], answers.degraded[0], shown),
            unknown_recent_items=answers.unknown_recent_items[0],
            unknown_attributes=answers.unknown_attributes[0],
            unknown_context_items=unknown,
            stages=tuple(deadline.seconds),
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
        deadline: Deadline | None = None,
    ) -> RankedItems:
        """Given items in the order in which a user is most likely to want them; all that are known come back.

        Args: as recommend; item_ids: distinct.
        Raises:
            ValueError: nothing of the user is given, or an item twice. DeadlineError, CannotEmbedError: as recommend.
        """
        deadline = deadline or Deadline()
        request, _, unknown = self._request(user_id, recent_items, recent_times, attributes, context_items)
        if not user_id and request.is_plain:
            raise ValueError("give a user_id, recent_items or attributes: of nothing there is no order")
        if len(set(item_ids)) < len(item_ids):
            raise ValueError("item_ids must not repeat")
        found = [self.bundle.item_ids.get(item_id) for item_id in item_ids]
        items = np.array([idx for idx in found if idx is not None], dtype=np.int64)
        shown = ShownEvidence(Evidence(), features=True) if with_features else None
        ranked = rank_items(self.bundle, request, items, Trace(deadline, None if shown is None else shown.evidence))
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
            stages=tuple(deadline.seconds),
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
        shown: ShownEvidence | None = None,
    ) -> Recommendations:
        """Row 0 of ``found`` as an answer, each item with what is to be shown of it."""
        item_idx = found.item_idx[0][found.item_idx[0] >= 0]
        ids, titles = self.bundle.item_ids.ids, self.bundle.titles(item_idx)
        rows = zip(item_idx.tolist(), titles, found.score[0].tolist(), strict=False)  # the scores are padded
        items = [
            RecommendedItem(ids[item], title, score, *(shown.of_item(item) if shown else ()))
            for item, title, score in rows
        ]
        return Recommendations(items, self.bundle.version, fallback, degraded)
