"""The ranking features of given items for one request, and why one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reckg.inductive.fold_in import UserRequest, Users, fold_in
from reckg.ranking.candidates import retrieve
from reckg.ranking.causes import CAUSES, Cause, missing_causes
from reckg.ranking.features import FEATURES, candidate_features
from reckg.ranking.user_scores import UserScores
from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    from reckg.bundle import Bundle


@dataclass(frozen=True)
class FeatureValue:
    """What the ranker sees of an item; value is None where it is missing, and then cause says why (causes.CAUSES)."""

    value: float | None
    cause: Cause = ""


def feature_values(bundle: Bundle, request: UserRequest, item_ids: Sequence[str]) -> dict[str, dict[str, FeatureValue]]:
    """By item id and feature: what the ranker sees, or would see, when it reranks the request's candidates.

    Items that are no candidates of the request (the history's, or ones that no source gives) are joined to them: then
    ranks and standardised scores are those of the longer list.

    Raises:
        UnknownIdError: the bundle does not know an item. OlderBundleError: the bundle cannot embed users, and the
            request is not a known user alone.
    """
    asked = bundle.item_ids.indices(item_ids)
    users, row = _user(bundle, request)
    scores = UserScores(users.features, users.history, row, users.vectors[row], bundle.item_vectors)
    alone = {"vectors": min(bundle.candidates, len(bundle.item_ids))}
    depths = alone if bundle.ranker is None else bundle.ranker.depths
    indptr, positions = users.history.rows(row)
    candidates = retrieve(scores, bundle.index, depths, (indptr, users.history.item_idx[positions]))
    found = candidates.item_idx[0][candidates.item_idx[0] >= 0]
    if not np.isin(asked, found).all():
        found = np.union1d(found, asked)
        list_of = exact_search(scores.vectors, bundle.item_vectors[found], len(found))
        candidates = ScoredItems(found[list_of.item_idx], list_of.score)
    features = candidate_features(scores, candidates)
    causes = missing_causes(scores, features)[0]
    answer = {}
    for item_id, item in zip(item_ids, asked.tolist(), strict=True):
        place = int(np.flatnonzero(candidates.item_idx[0] == item)[0])
        pairs = zip(FEATURES, features[0, place].tolist(), causes[place].tolist(), strict=True)
        answer[item_id] = {
            name: FeatureValue(None, CAUSES[cause]) if cause else FeatureValue(value) for name, value, cause in pairs
        }
    return answer


def _user(bundle: Bundle, request: UserRequest) -> tuple[Users, np.ndarray]:
    """The request's user, and its row among them."""
    user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
    if request.is_plain and user_idx is not None:
        return Users(bundle.user_vectors, bundle.history, bundle.features), np.array([user_idx])
    return fold_in(bundle, [request]), np.array([0])
