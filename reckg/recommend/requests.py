"""Answers to requests: known users, users with a given history or attributes, and strangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from reckg.bundle.bundle import Bundle
from reckg.recommend.answers import DegradedReason, FallbackPolicy
from reckg.recommend.fold_in import UserRequest, fold_in
from reckg.recommend.known_users import gets_popular, is_cold, popular_items, ranks_cold, recommend_batch
from reckg.recommend.trace import Trace
from reckg.recommend.two_stage import best_items
from reckg.recommend.wanted import NO_DIVERSITY, Wanted
from reckg.retrieval.scored_items import ScoredItems, empty_result

ROW_SCHEMA = {"user_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32}


@dataclass(frozen=True)
class UserAnswers:
    """Answers to n requests: found (n, k); the other fields for each request as in Recommendations."""

    found: ScoredItems
    fallback: list[FallbackPolicy | None]
    degraded: list[tuple[DegradedReason, ...]]
    unknown_recent_items: list[tuple[str, ...]]
    unknown_attributes: list[tuple[str, ...]]


@dataclass(frozen=True)
class Part:
    """Answers to m requests of the same kind.

    Args:
        found: (m, k) items.
        cold: (m,) bool, users without a known interaction.
        popular: (m,) bool, lists of the most popular items.
        reranked: (m,) bool, lists that the ranker ordered.
        unknown_items, unknown_attributes: of each request, as in FoldedUsers. Empty: none of any request.
    """

    found: ScoredItems
    cold: np.ndarray
    popular: np.ndarray
    reranked: np.ndarray
    unknown_items: Sequence[tuple[str, ...]] = ()
    unknown_attributes: Sequence[tuple[str, ...]] = ()


def recommend_users(
    bundle: Bundle, requests: Sequence[UserRequest], wanted: Wanted, trace: Trace | None = None
) -> UserAnswers:
    """Recommends items for requests with a user id, a history, attributes, or nothing.

    A request with recent items or attributes is answered from a vector computed for it and reranked with the whole
    history. Without any history the retrieval order is returned, unless the ranker is for users without a history. A
    user without any known fact gets the most popular items. An answer does not depend on the other requests.

    Args:
        wanted: ``left_out`` has one row per request.
        trace: with evidence for a single request only. When too little time is left to rank, the remaining lists stay
            in retrieval order.
    Raises:
        CannotEmbedError: the bundle cannot embed users, and a request needs it.
        DeadlineError: the deadline passed.
    """
    trace = trace or Trace()
    n = len(requests)
    plain = np.array([request.is_plain for request in requests], dtype=bool)
    known = np.array([request.user_id is not None and request.user_id in bundle.user_ids for request in requests], bool)
    kinds = (_answer_known, plain & known), (_answer_folded, ~plain), (_answer_strangers, plain & ~known)
    found = empty_result(n, wanted.k)
    cold, popular, reranked = (np.zeros(n, dtype=bool) for _ in range(3))
    unknown_items: list[tuple[str, ...]] = [()] * n
    unknown_attributes: list[tuple[str, ...]] = [()] * n
    for answer, chosen in kinds:
        rows = np.flatnonzero(chosen)
        if not len(rows):
            continue
        part = answer(bundle, [requests[row] for row in rows.tolist()], wanted.for_users(rows), trace)
        found.item_idx[rows], found.score[rows] = part.found.item_idx, part.found.score
        cold[rows], popular[rows], reranked[rows] = part.cold, part.popular, part.reranked
        for row, items, attributes in zip(rows, part.unknown_items, part.unknown_attributes, strict=False):
            unknown_items[row], unknown_attributes[row] = items, attributes
    reasons: dict[DegradedReason, Any] = {
        "cold_user": cold,
        "no_rerank": ~reranked & ~popular & (bundle.ranker is not None),
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


def tabulate_answers(bundle: Bundle, user_ids: Sequence[str | None] | pl.Series, found: ScoredItems) -> pl.DataFrame:
    """Turns the lists of n users into a table.

    Args:
        user_ids: n raw ids.
        found: (n, k) items.
    Returns:
        user_id, rank (from 1), item_id, score: one row per listed item, in the order of the users.
    """
    filled = found.item_idx >= 0
    row, place = np.nonzero(filled)
    columns = {
        "user_id": pl.Series(user_ids, dtype=pl.String).gather(row),
        "rank": place + 1,
        "item_id": bundle.item_ids.ids.gather(found.item_idx[filled]),
        "score": found.score[filled],
    }
    return pl.DataFrame(columns, schema=ROW_SCHEMA)


def _answer_known(bundle: Bundle, requests: Sequence[UserRequest], wanted: Wanted, trace: Trace) -> Part:
    """Answers requests with the id of a user of the bundle and nothing else."""
    user_idx = bundle.user_ids.indices([request.user_id or "" for request in requests])
    found = recommend_batch(bundle, user_idx, wanted, trace)
    reranks = wanted.rerank and not trace.deadline.rerank_skipped
    popular = gets_popular(bundle, user_idx, reranks)
    return Part(found, is_cold(bundle.history, user_idx), popular, np.full(len(requests), reranks))


def _answer_folded(bundle: Bundle, requests: Sequence[UserRequest], wanted: Wanted, trace: Trace) -> Part:
    """Answers requests with recent items or attributes, ranked or not by whether they have a history."""
    trace.deadline.begin("fold_in")
    folded = fold_in(bundle, requests)
    cold = is_cold(folded.history, np.arange(len(requests)))
    popular = np.logical_not(folded.vectors.any(axis=1))
    ranked = (~cold | ranks_cold(bundle)) & wanted.rerank
    found, reranked = empty_result(len(requests), wanted.k), ranked.copy()
    for rerank in (True, False):
        rows = np.flatnonzero(~popular & (ranked == rerank))
        if not len(rows):
            continue
        diversity = wanted.diversity if wanted.rerank and not trace.deadline.rerank_skipped else NO_DIVERSITY
        settings = replace(wanted.for_users(rows), rerank=rerank, diversity=diversity)
        part = best_items(bundle, folded, rows, settings, trace)
        found.item_idx[rows], found.score[rows] = part.item_idx, part.score
        reranked[rows] &= not trace.deadline.rerank_skipped
    rows = np.flatnonzero(popular)
    if len(rows):
        part = _most_popular(bundle, len(rows), wanted.for_users(rows).without_seen(bundle, folded, rows), trace)
        found.item_idx[rows], found.score[rows] = part.item_idx, part.score
    return Part(found, cold, popular, reranked, folded.unknown_items, folded.unknown_attributes)


def _answer_strangers(bundle: Bundle, requests: Sequence[UserRequest], wanted: Wanted, trace: Trace) -> Part:
    """Answers requests that hold nothing known of the user with the most popular items."""
    everyone = np.ones(len(requests), dtype=bool)
    return Part(_most_popular(bundle, len(requests), wanted, trace), everyone, everyone, everyone)


def _most_popular(bundle: Bundle, n: int, wanted: Wanted, trace: Trace) -> ScoredItems:
    """Lists the most popular items n times, less the n rows of ``left_out``."""
    trace.deadline.begin("popular")
    found = popular_items(bundle, wanted.k, exclude=wanted.left_out, n=n, allowed=wanted.allowed)
    trace.deadline.end()
    return found
