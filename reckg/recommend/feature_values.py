"""Ranking features of given items for one request, and the reasons for missing values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.user_scores import UserScores
from reckg.recommend.evidence import Evidence, FeatureValue
from reckg.recommend.fold_in import UserRequest, Users, fold_in
from reckg.recommend.wanted import Wanted
from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems, empty_result


def feature_values(bundle: Bundle, request: UserRequest, item_ids: Sequence[str]) -> dict[str, dict[str, FeatureValue]]:
    """Computes the features that the ranker reads when it reranks the request's candidates.

    Items that are no candidates of the request are added to them: those of the history, and those that no source
    lists. Ranks and standardised scores are then those of the longer list.

    Args:
        item_ids: raw ids of items of the bundle.
    Returns:
        By item id and feature name.
    Raises:
        UnknownIdError: the bundle does not know an item.
        CannotEmbedError: the request is not a known user alone, and the bundle cannot embed users.
    """
    items = bundle.item_ids.indices(item_ids)
    users, row = one_user(bundle, request)
    scores = UserScores(users.features, users.history, row, users.vectors[row], bundle.item_vectors)
    alone = {"vectors": min(bundle.candidates, len(bundle.item_ids))}
    depths = alone if bundle.ranker is None else bundle.ranker.depths
    wanted = Wanted(1).without_seen(bundle, users, row)
    candidates = retrieve(scores, bundle.index, depths, wanted.left_out, wanted.allowed)
    found = candidates.item_idx[0][candidates.item_idx[0] >= 0]
    if not np.isin(items, found).all():
        candidates = in_retrieval_order(bundle, scores.vectors, np.union1d(found, items))
    evidence = Evidence()
    evidence.keep_features(scores, candidates, candidate_features(scores, candidates))
    return {item_id: evidence.feature_values(item) for item_id, item in zip(item_ids, items.tolist(), strict=True)}


def one_user(bundle: Bundle, request: UserRequest) -> tuple[Users, np.ndarray]:
    """Returns users and the row of the request's user among them, (1,) int64."""
    user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
    if request.is_plain and user_idx is not None:
        return Users(bundle.user_vectors, bundle.history, bundle.features), np.array([user_idx])
    return fold_in(bundle, [request]), np.array([0])


def in_retrieval_order(bundle: Bundle, vectors: np.ndarray, items: np.ndarray) -> ScoredItems:
    """Orders given items by their inner products with one user's vector.

    Args:
        vectors: (1, d) float32.
        items: (m,) rising item_idx.
    Returns:
        (1, max(m, 1)) items: padding alone for m = 0.
    """
    if not len(items):
        return empty_result(1, 1)
    found = exact_search(vectors, bundle.item_vectors[items], len(items))
    return ScoredItems(items[found.item_idx], found.score)
