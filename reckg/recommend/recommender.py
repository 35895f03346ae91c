"""Recommender: answers over a bundle by raw ids.

The server, the batch job and the offline evaluation all call ``recommend_batch`` for users of the bundle. The server
and the batch job call ``recommend_users`` for all requests. So their answers cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from reckg.arrays.ragged_rows import Rows
from reckg.bundle.bundle import Bundle
from reckg.inductive.embedder import EmbeddedItems
from reckg.ranking.diversity import Diversity
from reckg.recommend.answers import DegradedReason, FallbackPolicy, RankedItems, Recommendations, RecommendedItem
from reckg.recommend.deadline import Deadline
from reckg.recommend.evidence import Evidence, FeatureValue, ShownEvidence
from reckg.recommend.feature_values import feature_values
from reckg.recommend.fold_in import FoldedUsers, UserRequest, fold_in
from reckg.recommend.known_users import similar_items
from reckg.recommend.rank_items import rank_items
from reckg.recommend.requests import recommend_users, tabulate_answers
from reckg.recommend.trace import Trace
from reckg.recommend.wanted import Wanted
from reckg.retrieval.filters import Filters
from reckg.retrieval.scored_items import ScoredItems, empty_result

BLOCK = 1024  # requests of recommend_many answered at once: a few megabytes of candidates


@dataclass(frozen=True)
class _Given:
    """A request with its context.

    Args:
        request: with the known context items as its latest items.
        left_out: one compressed row, the known context items. None: no context.
        unknown_context: ids of the other context items.
    """

    request: UserRequest
    left_out: Rows | None
    unknown_context: tuple[str, ...]


class Recommender:
    """Answers requests by raw ids over one bundle. Safe to share between threads.

    >>> import reckg
    >>> recommender = reckg.load("run/bundle")
    >>> answer = recommender.recommend("u03", k=2)
    >>> answer.items[0].score >= answer.items[1].score
    True
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def recommend(  # noqa: PLR0913 - the options of a request, by keyword
        self,
        user_id: str | None = None,
        k: int = 10,
        exclude_seen: bool | None = None,
        rerank: bool = True,
        *,
        recent_items: Sequence[str] = (),
        recent_times: Sequence[int] = (),
        recent_types: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
        context_items: Sequence[str] = (),
        diversity: Diversity | None = None,
        filters: Filters | None = None,
        with_features: bool = False,
        with_sources: bool = False,
        deadline: Deadline | None = None,
    ) -> Recommendations:
        """Recommends the best k items to one user.

        The recent items and attributes stand for a user that the bundle does not know. A user without any known fact
        gets the most popular items.

        Args:
            user_id: raw id, known or not. None: only recent items or attributes.
            k: items to return, k >= 1; fewer are returned only if fewer remain.
            exclude_seen: leave out the items that the user took, and the recent items. None: if the bundle's question
                is the new items.
            rerank: apply the bundle's ranker, if it has one, and the diversity. False: retrieval order.
            recent_items, recent_times, recent_types, attributes: as in UserRequest. The answer names the unknown ones.
            context_items: raw ids of the items in the user's view: the latest of the history, never in the answer.
            diversity: strategy applied after ranking. None: the bundle's own.
            filters: conditions that every item of the answer satisfies.
            with_features: give each item the ranker's feature values.
            with_sources: give each item the candidate sources that found it.
            deadline: times the stages and refuses to begin one too late.
        Raises:
            ValueError: k < 1, or neither a user id nor recent items nor attributes are given.
            FilterError, ConfigError: a filter or the diversity names an unknown column, or does not fit it.
            CannotEmbedError: recent items or attributes are given, and the bundle cannot embed users.
            DeadlineError: the deadline passed.

        >>> import reckg
        >>> cheap = reckg.Filters(where={"price": {"<": 5.0}})
        >>> len(reckg.load("run/bundle").recommend("u03", k=2, filters=cheap).items)
        2
        """
        given = self._given(
            UserRequest(user_id, recent_items, attributes or {}, recent_times, recent_types), context_items
        )
        wanted = Wanted(k, exclude_seen, given.left_out, self._allowed(filters), rerank, diversity)
        shown = ShownEvidence(Evidence(), with_features, with_sources)
        return self._recommend(given, wanted, shown, deadline or Deadline())

    def _recommend(self, given: _Given, wanted: Wanted, shown: ShownEvidence, deadline: Deadline) -> Recommendations:
        """Answers one request."""
        trace = Trace(deadline, shown.evidence if shown.features or shown.sources else None)
        answers = recommend_users(self.bundle, [given.request], wanted, trace)
        return replace(
            self._answer(answers.found, answers.fallback[0], answers.degraded[0], shown),
            unknown_recent_items=answers.unknown_recent_items[0],
            unknown_attributes=answers.unknown_attributes[0],
            unknown_context_items=given.unknown_context,
            stages=tuple(deadline.seconds),
        )

    def recommend_many(
        self,
        users: Iterable[str | UserRequest],
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        rerank: bool = True,
        diversity: Diversity | None = None,
        filters: Filters | None = None,
    ) -> pl.DataFrame:
        """Recommends the best k items to each of many users, as ``recommend`` would to each alone.

        Args:
            users: raw user ids, known or not, or requests. A Polars or pandas series of ids works too.
            k, exclude_seen, rerank, diversity, filters: as in ``recommend``.
        Returns:
            user_id (as given, null for a request without one), rank (from 1), item_id, score; the rows of each user
            together, in the order of ``users``.
        Raises:
            TypeError: ``users`` is a single id.
            ValueError, FilterError, ConfigError, CannotEmbedError: as ``recommend``.

        >>> import reckg
        >>> recommender = reckg.load("run/bundle")
        >>> recommender.recommend_many(["u03", "u04", "nobody"], k=2).select("user_id", "rank").rows()
        [('u03', 1), ('u03', 2), ('u04', 1), ('u04', 2), ('nobody', 1), ('nobody', 2)]
        """
        if isinstance(users, str):
            raise TypeError(f"users must be several ids or requests, got the single id {users!r}")
        requests = [user if isinstance(user, UserRequest) else UserRequest(user) for user in users]
        allowed = self._allowed(filters)
        wanted = Wanted(k, exclude_seen, allowed=allowed, rerank=rerank, diversity=diversity)
        parts = [tabulate_answers(self.bundle, [], empty_result(0, k))]
        for start in range(0, len(requests), BLOCK):
            block = requests[start : start + BLOCK]
            found = recommend_users(self.bundle, block, wanted).found
            parts.append(tabulate_answers(self.bundle, [request.user_id for request in block], found))
        return pl.concat(parts)

    def rank_items(  # noqa: PLR0913 - the options of a request, by keyword
        self,
        user_id: str | None,
        item_ids: Sequence[str],
        *,
        recent_items: Sequence[str] = (),
        recent_times: Sequence[int] = (),
        recent_types: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
        context_items: Sequence[str] = (),
        with_features: bool = False,
        deadline: Deadline | None = None,
    ) -> RankedItems:
        """Orders given items by how likely a user is to want them. All known items are returned.

        Args:
            item_ids: distinct raw ids.
            user_id, recent_items, recent_times, recent_types, attributes, context_items, with_features, deadline: as
                in ``recommend``.
        Raises:
            ValueError: neither a user id nor recent items nor attributes are given, or an item is repeated.
            DeadlineError, CannotEmbedError: as ``recommend``.

        >>> import reckg
        >>> ranked = reckg.load("run/bundle").rank_items("u03", ["i01", "i02", "i03"])
        >>> sorted(item.item_id for item in ranked.order.items)
        ['i01', 'i02', 'i03']
        """
        deadline = deadline or Deadline()
        given = self._given(
            UserRequest(user_id, recent_items, attributes or {}, recent_times, recent_types), context_items
        )
        if len(set(item_ids)) < len(item_ids):
            raise ValueError("item_ids must not repeat")
        found = [self.bundle.item_ids.get(item_id) for item_id in item_ids]
        items = np.array([idx for idx in found if idx is not None], dtype=np.int64)
        shown = ShownEvidence(Evidence(), features=True) if with_features else None
        ranked = rank_items(
            self.bundle, given.request, items, Trace(deadline, None if shown is None else shown.evidence)
        )
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
            unknown_context_items=given.unknown_context,
            stages=tuple(deadline.seconds),
        )
        return RankedItems(answer, tuple(i for i, idx in zip(item_ids, found, strict=True) if idx is None))

    def similar_items(self, item_id: str, k: int = 10, *, filters: Filters | None = None) -> Recommendations:
        """Finds the k items closest to one item by the cosine of their vectors, without the item itself.

        Args:
            item_id: raw id of an item of the bundle.
            k: items to return, k >= 1.
            filters: conditions that every item of the answer satisfies.
        Raises:
            UnknownIdError: the bundle does not know the item.
            ValueError: k < 1.
            FilterError: as ``recommend``.

        >>> import reckg
        >>> len(reckg.load("run/bundle").similar_items("i01", k=4).items)
        4
        """
        item_idx = np.array([self.bundle.item_ids.idx(item_id)])
        return self._answer(similar_items(self.bundle, item_idx, k, self._allowed(filters)), None, ())

    def explain_features(
        self,
        user_id: str | None,
        item_ids: Sequence[str],
        *,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> dict[str, dict[str, FeatureValue]]:
        """Computes the ranker's features of given items for one user, and why a value is missing.

        Args:
            item_ids: raw ids of items of the bundle.
            user_id, recent_items, attributes: as in ``recommend``.
        Returns:
            By item id and feature name.
        Raises:
            UnknownIdError: the bundle does not know an item.
            CannotEmbedError: the request is not a known user alone, and the bundle cannot embed users.

        >>> import reckg
        >>> reckg.load("run/bundle").explain_features("u03", ["i01"])["i01"]["popularity"].cause
        ''
        """
        return feature_values(self.bundle, UserRequest(user_id, recent_items, attributes or {}), item_ids)

    def embed_items(self, items: pl.DataFrame | Sequence[tuple[str, Mapping[str, Any]]]) -> EmbeddedItems:
        """Computes vectors of new items from their texts and attributes, in the space of the bundle's vectors.

        Args:
            items: a table with item_id and columns of the items table, or pairs of an id and its attributes.
        Raises:
            CannotEmbedError: the bundle has no embedder.
            DataError: an id is repeated, or a column does not fit.

        >>> import reckg
        >>> recommender = reckg.load("run/bundle")
        >>> embedded = recommender.embed_items([("new item", {"genres": ["x"], "price": 4.0})])
        >>> embedded.vectors.shape == (1, recommender.bundle.item_vectors.shape[1])
        True
        """
        return self.bundle.embedder.embed_items(items)

    def embed_users(self, requests: Sequence[UserRequest]) -> FoldedUsers:
        """Computes vectors of the users of n requests, in the space of the bundle's vectors.

        Raises:
            CannotEmbedError: the bundle has no embedder.

        >>> import reckg
        >>> request = reckg.UserRequest(recent_items=["i01", "no such item"])
        >>> reckg.load("run/bundle").embed_users([request]).unknown_items
        [('no such item',)]
        """
        return fold_in(self.bundle, requests)

    def _given(self, request: UserRequest, context_items: Sequence[str]) -> _Given:
        """Adds the known context items to a request as its latest items.

        Raises:
            ValueError: the request and the context are empty.
        """
        context = {item_id: self.bundle.item_ids.get(item_id) for item_id in context_items}
        known = {item_id: idx for item_id, idx in context.items() if idx is not None}
        items = np.array(sorted(known.values()), dtype=np.int64)
        left_out = (np.array([0, len(items)]), items) if len(items) else None
        unknown = tuple(item_id for item_id in context if item_id not in known)
        request = replace(request, recent_items=[*request.recent_items, *known])
        if not request.user_id and request.is_plain:
            raise ValueError("give a user_id, recent_items or attributes: without these there is no answer")
        return _Given(request, left_out, unknown)

    def _allowed(self, filters: Filters | None) -> np.ndarray | None:
        """Computes the items that satisfy the filters, (n_items,) bool. None: all."""
        return None if filters is None else self.bundle.item_filters.allowed(filters)

    def _answer(
        self,
        found: ScoredItems,
        fallback: FallbackPolicy | None,
        degraded: tuple[DegradedReason, ...],
        shown: ShownEvidence | None = None,
    ) -> Recommendations:
        """Turns row 0 of ``found`` into an answer, each item with its evidence if shown."""
        item_idx = found.item_idx[0][found.item_idx[0] >= 0]
        ids, titles = self.bundle.item_ids.ids, self.bundle.titles(item_idx)
        rows = zip(item_idx.tolist(), titles, found.score[0].tolist(), strict=False)  # the scores are padded
        items = [
            RecommendedItem(ids[item], title, score, *(shown.of_item(item) if shown else ()))
            for item, title, score in rows
        ]
        return Recommendations(items, self.bundle.version, fallback, degraded)
