"""Why a feature is missing: one table of what each feature needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from reckg.ranking.features.extract import FEATURES
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS, USER_COLUMNS

# absent: the item, or the data set, has no such thing. unknown user: no history, or no attribute, of the user is known.
# too old: nothing of the time that the feature looks at is known, or the data has no times or order to judge it by.
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
}


def missing_causes(scores: UserScores, features: np.ndarray) -> np.ndarray:
    """(n, c, F) int8: of every missing value the place of its cause in CAUSES, 0 of every value that is there.

    The first thing that a feature needs and that is not there is the cause; where all is there, the item lacks what
    the feature looks at: "absent".

    Args:
        features: (n, c, F) of the users of ``scores``, as candidate_features gives them.
    """
    missing = np.isnan(features)
    cause = np.zeros(features.shape, dtype=np.int8)
    for place in np.flatnonzero(missing.any(axis=(0, 1))):
        of_user = np.full(scores.n, CAUSES.index("absent"), dtype=np.int8)
        for need in reversed(NEEDED.get(FEATURES[place].removesuffix("_z"), ())):
            because, holds = _NEEDS[need]
            of_user[~np.broadcast_to(holds(scores), scores.n)] = CAUSES.index(because)
        cause[:, :, place] = of_user[:, None]
    return np.where(missing, cause, np.int8(0))


def _some_known(scores: UserScores, column: str) -> bool:
    return bool(np.isfinite(scores.tables.items[:, ITEM_COLUMNS.index(column)]).any())


def _of_users(scores: UserScores, column: str) -> np.ndarray:
    values: np.ndarray = scores.tables.users[scores.user_idx, USER_COLUMNS.index(column)]
    return values
