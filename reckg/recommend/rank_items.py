"""The caller's own candidates, ordered for one user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS
from reckg.recommend.deadline import Deadline
from reckg.recommend.feature_values import in_retrieval_order, one_user
from reckg.recommend.fold_in import FoldedUsers, UserRequest
from reckg.recommend.trace import Trace
from reckg.retrieval.scored_items import ScoredItems


@dataclass(frozen=True)
class Ranked:
    """Candidates in order.

    Args:
        found: (1, m) items.
        cold: the user has no known interaction.
        popular: the order is that of popularity.
        reranked: the ranker decided the order.
        unknown_items, unknown_attributes: parts of the request that the bundle does not know.
    """

    found: ScoredItems
    cold: bool
    popular: bool
    reranked: bool
    unknown_items: tuple[str, ...] = ()
    unknown_attributes: tuple[str, ...] = ()


def rank_items(bundle: Bundle, request: UserRequest, items: np.ndarray, trace: Trace) -> Ranked:
    """Orders given items by the ranker, or by vectors without a ranker or time for it.

    Ranks and standardised scores among the features are those within the given items. Popularity decides for users
    without any known fact, and for users without a history if the ranker is not for them.

    Args:
        items: (m,) distinct item_idx; m may be 0.
    Raises:
        CannotEmbedError: the bundle cannot embed users.
        DeadlineError: the deadline passed.
    """
    items, deadline = np.sort(items), trace.deadline
    unknown: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if request.is_plain and (request.user_id is None or request.user_id not in bundle.user_ids):
        return Ranked(_by_popularity(bundle, items, deadline), cold=True, popular=True, reranked=False)
    if not request.is_plain:
        deadline.begin("fold_in")
    users, row = one_user(bundle, request)
    if isinstance(users, FoldedUsers):
        unknown = users.unknown_items[0], users.unknown_attributes[0]
    length = len(users.history.items(int(row[0])))
    cold, ranker = length == 0, bundle.ranker
    order = "ranker" if ranker is None else str(ranker.order_of(np.array([length]))[0])
    ranks = ranker is not None and (not cold or ranker.ranks_cold) and deadline.may_rerank()
    ranks = ranks and len(items) > 0 and order == "ranker"
    nowhere = isinstance(users, FoldedUsers) and not users.vectors[0].any()
    if nowhere or (cold and request.is_plain and not ranks) or order == "popular":
        return Ranked(_by_popularity(bundle, items, deadline), cold, True, False, *unknown)
    deadline.begin("features" if ranks else "retrieve")
    found = in_retrieval_order(bundle, users.vectors[row], items)
    if ranks and bundle.ranker is not None:
        scores = UserScores(users.features, users.history, row, users.vectors[row], bundle.item_vectors)
        features = candidate_features(scores, found)
        if trace.evidence is not None:
            trace.evidence.keep_features(scores, found, features)
        deadline.begin("rerank")
        found = bundle.ranker.rerank(found, features.reshape(-1, features.shape[2]))
    deadline.end()
    return Ranked(found, cold, False, ranks, *unknown)


def _by_popularity(bundle: Bundle, items: np.ndarray, deadline: Deadline) -> ScoredItems:
    deadline.begin("popular")
    tables = bundle.features
    score, overall = tables.popular_score, tables.items[items, ITEM_COLUMNS.index("popularity")]
    order = items[np.lexsort((items, -overall, -score[items]))][None]  # as the most popular items are listed
    deadline.end()
    return ScoredItems(order, score[order])
