"""The ranking features of given items for one request, and why one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.user_scores import UserScores
from reckg.recommend.evidence import Evidence, FeatureValue
from reckg.recommend.fold_in import UserRequest, Users, fold_in
from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems, empty_result

if TYPE_CHECKING:
    from reckg.bundle.bundle import Bundle


def feature_values(bundle: Bundle, request: UserRequest, item_ids: Sequence[str]) -> dict[str, dict[str, FeatureValue]]:
    """By item id and feature: what the ranker sees, or would see, when it reranks the request's candidates.

    Items that are no candidates of the request (the history's, or ones that no source gives) are joined to them: then
    ranks and standardised scores are those of the longer list.

    Raises:
        UnknownIdError: the bundle does not know an item. CannotEmbedError: the bundle cannot embed users, and the
            request is not a known user alone.
    """
    asked = bundle.item_ids.indices(item_ids)
    users, row = one_user(bundle, request)
    scores = UserScores(users.features, users.history, row, users.vectors[row], bundle.item_vectors)
    alone = {"vectors": min(bundle.candidates, len(bundle.item_ids))}
    depths = alone if bundle.ranker is None else bundle.ranker.depths
    indptr, positions = users.history.rows(row)
    candidates = retrieve(scores, bundle.index, depths, (indptr, users.history.item_idx[positions]))
    found = candidates.item_idx[0][candidates.item_idx[0] >= 0]
    if not np.isin(asked, found).all():
        candidates = in_retrieval_order(bundle, scores.vectors, np.union1d(found, asked))
    evidence = Evidence()
    evidence.ranked(scores, candidates, candidate_features(scores, candidates))
    return {item_id: evidence.feature_values(item) for item_id, item in zip(item_ids, asked.tolist(), strict=True)}


def one_user(bundle: Bundle, request: UserRequest) -> tuple[Users, np.ndarray]:
    """The request's user, and its row among them."""
    user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
    if request.is_plain and user_idx is not None:
        return Users(bundle.user_vectors, bundle.history, bundle.features), np.array([user_idx])
    return fold_in(bundle, [request]), np.array([0])


def in_retrieval_order(bundle: Bundle, vectors: np.ndarray, items: np.ndarray) -> ScoredItems:
    """(1, m): given items, rising item_idx, by their inner products with the one user's vector, (1, d); m >= 1, so that
    there is padding where none is given."""
    if not len(items):
        return empty_result(1, 1)
    found = exact_search(vectors, bundle.item_vectors[items], len(items))
    return ScoredItems(items[found.item_idx], found.score)
