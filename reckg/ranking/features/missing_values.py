"""Causes of missing features: a table of the needs of each feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from reckg.ranking.features.extract import ALL_FEATURES
from reckg.ranking.sources.own_items import RHYTHM
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS, USER_COLUMNS

# absent: the item or the data set lacks the property. unknown user: the user has no known history or attribute.
# too old: the time of the feature is before the known data, or the data has no times or order.
Cause = Literal["", "absent", "unknown user", "too old"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

Holds = Callable[[UserScores], "bool | np.ndarray"]  # for all users, or (n,) for each

_NEEDS: dict[str, tuple[Cause, Holds]] = {
    "linear": ("absent", lambda scores: scores.tables.linear is not None),
    "factors": ("absent", lambda scores: bool(scores.tables.factors.shape[1])),
    "texts": ("absent", lambda scores: bool(scores.tables.text.shape[1])),
    "entities": ("absent", lambda scores: bool(scores.tables.entities.nnz)),
    "numbers": ("absent", lambda scores: bool(scores.tables.numbers.shape[1])),
    "user entities": ("absent", lambda scores: bool(scores.tables.user_entities.nnz)),
    "history": ("unknown user", lambda scores: scores.length > 0),
    "attributes": ("unknown user", lambda scores: scores.n_attributes > 0),
    "order": ("too old", lambda scores: scores.ahead),
    "times": ("too old", lambda scores: _some_known(scores, "recent_popularity")),
    "events": ("too old", lambda scores: bool(len(scores.tables.event_keys))),
    "last time": ("too old", lambda scores: np.isfinite(_of_users(scores, "user_recency"))),
}
NEEDED: dict[str, tuple[str, ...]] = {
    "cooccurrence_recent": ("order",),
    "cooccurrence_last": ("order",),
    "linear": ("linear",),
    "factors": ("factors",),
    "profile_similarity_last": ("order",),
    "closest_similarity": ("history",),
    "shared_entities": ("entities", "history"),
    "shared_entities_recent": ("entities", "order", "history"),
    "entity_similarity": ("entities", "history"),
    "text_similarity": ("texts",),
    "text_similarity_last": ("texts", "order"),
    "recent_popularity": ("times",),
    "latest_popularity": ("times",),
    "popularity_trend": ("times",),
    "item_age": ("times",),
    "user_recency": ("times", "history", "last time"),
    "popularity_near": ("events", "history"),
    "attribute_affinity": ("user entities", "attributes"),
    "number_distance": ("numbers", "history"),
    **{name: ("history",) for name in RHYTHM},  # NaN too for an item that its user never had
}


def missing_causes(scores: UserScores, features: np.ndarray) -> np.ndarray:
    """Finds the cause of every missing value: the first need of the feature that is not met.

    If all needs are met, the item lacks the property that the feature measures: "absent".

    Args:
        scores: of the users.
        features: (n, c, F) of the same users, from candidate_features.
    Returns:
        (n, c, F) int8: places in CAUSES, 0 for a present value.
    """
    missing = np.isnan(features)
    cause = np.zeros(features.shape, dtype=np.int8)
    for place in np.flatnonzero(missing.any(axis=(0, 1))):
        of_user = np.full(scores.n, CAUSES.index("absent"), dtype=np.int8)
        for need in reversed(NEEDED.get(ALL_FEATURES[place].removesuffix("_z"), ())):
            because, holds = _NEEDS[need]
            of_user[~np.broadcast_to(holds(scores), scores.n)] = CAUSES.index(because)
        cause[:, :, place] = of_user[:, None]
    return np.where(missing, cause, np.int8(0))


def _some_known(scores: UserScores, column: str) -> bool:
    return bool(np.isfinite(scores.tables.items[:, ITEM_COLUMNS.index(column)]).any())


def _of_users(scores: UserScores, column: str) -> np.ndarray:
    values: np.ndarray = scores.tables.users[scores.user_idx, USER_COLUMNS.index(column)]
    return values
