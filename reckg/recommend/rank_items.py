"""The caller's own candidates, in the order in which one user is most likely to want them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS
from reckg.recommend.deadline import Deadline
from reckg.recommend.feature_values import in_retrieval_order, one_user
from reckg.recommend.fold_in import FoldedUsers, UserRequest
from reckg.recommend.trace import Trace
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    from reckg.bundle.bundle import Bundle


@dataclass(frozen=True)
class Ranked:
    """(1, m) items in order. cold: no interaction of the user is known. popular: popularity decided; reranked: the
    ranker did. unknown_items, unknown_attributes: what of the request the bundle does not know."""

    found: ScoredItems
    cold: bool
    popular: bool
    reranked: bool
    unknown_items: tuple[str, ...] = ()
    unknown_attributes: tuple[str, ...] = ()


def rank_items(bundle: Bundle, request: UserRequest, items: np.ndarray, trace: Trace) -> Ranked:
    """Given items as candidates: the ranker decides, where there is one and time for it, else the vectors.

    Ranks and standardised scores among the features are those within the given items. Users of whom nothing is known,
    and those without a history that the ranker is not for, get the order of popularity.

    Args:
        items: (m,) distinct item_idx; m may be 0.
    Raises:
        CannotEmbedError: the bundle cannot embed users. DeadlineError: the deadline passed.
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
    cold = not len(users.history.items(int(row[0])))
    ranks = bundle.ranker is not None and (not cold or bundle.ranker.ranks_cold) and deadline.may_rerank()
    ranks = ranks and len(items) > 0
    nowhere = isinstance(users, FoldedUsers) and not users.vectors[0].any()
    if nowhere or (cold and request.is_plain and not ranks):
        return Ranked(_by_popularity(bundle, items, deadline), cold, True, False, *unknown)
    deadline.begin("features" if ranks else "retrieve")
    found = in_retrieval_order(bundle, users.vectors[row], items)
    if ranks and bundle.ranker is not None:
        scores = UserScores(users.features, users.history, row, users.vectors[row], bundle.item_vectors)
        features = candidate_features(scores, found)
        if trace.evidence is not None:
            trace.evidence.ranked(scores, found, features)
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
