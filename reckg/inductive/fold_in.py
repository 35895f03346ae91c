"""Users of requests that bring a history or attributes: vectors, histories and feature rows of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reckg.data.history import History
from reckg.ranking.tables import USER_COLUMNS, FeatureTables

if TYPE_CHECKING:
    from reckg.bundle import Bundle


@dataclass(frozen=True)
class UserRequest:
    """Who is to get recommendations.

    Args:
        user_id: a raw id, known or not; None: of nobody.
        recent_items: raw item ids, oldest first: the user's latest interactions, after those that the bundle has.
        attributes: a column of the users table to a value, or a list of values; in place of the bundle's.
    """

    user_id: str | None = None
    recent_items: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the user id is all there is."""
        return not self.recent_items and not self.attributes


@dataclass(frozen=True)
class Users:
    """n users: vectors (n, d), zeros of one of whom nothing is known; histories; feature tables with their rows."""

    vectors: np.ndarray
    history: History
    features: FeatureTables


@dataclass(frozen=True)
class FoldedUsers(Users):
    """The users of n requests, and what of each request the bundle does not know."""

    unknown_items: list[tuple[str, ...]]
    unknown_attributes: list[tuple[str, ...]]


def fold_in(bundle: Bundle, requests: Sequence[UserRequest]) -> FoldedUsers:
    """The users of n requests, each as it would be alone, bit by bit.

    The features know an unknown user's number of interactions; the time since the last one is NaN, as it is where
    given items come after it.

    Raises:
        OlderBundleError: the bundle has nothing to embed with.
    """
    inductive = bundle.embedder
    rows = np.full((len(requests), len(USER_COLUMNS)), np.nan, dtype=np.float32)
    vectors = np.empty((len(requests), inductive.dim), dtype=np.float32)
    histories, unknown_items, unknown_attributes = [], [], []
    for number, request in enumerate(requests):
        user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
        found = [(item_id, bundle.item_ids.get(item_id)) for item_id in request.recent_items]
        recent = [idx for _, idx in found if idx is not None]
        stored = np.empty(0, dtype=np.int64) if user_idx is None else bundle.history.items(user_idx)
        items = np.concatenate([stored, np.array(recent, dtype=np.int64)])
        vectors[number], unknown = inductive.embed_user(items, request.attributes, user_idx)
        if user_idx is not None and not recent:
            rows[number] = bundle.features.users[user_idx]
        rows[number, USER_COLUMNS.index("history_length")] = np.log1p(len(items))
        histories.append(items)
        unknown_items.append(tuple(item_id for item_id, idx in found if idx is None))
        unknown_attributes.append(tuple(unknown))
    indptr = np.concatenate([[0], np.cumsum([len(items) for items in histories])]).astype(np.int64)
    item_idx = np.concatenate([np.empty(0, dtype=np.int64), *histories])
    times, weights = np.zeros(len(item_idx), dtype=np.int64), np.ones(len(item_idx), dtype=np.float32)
    history = History(indptr, item_idx, times, weights)
    features = replace(bundle.features, users=rows)
    return FoldedUsers(vectors, history, features, unknown_items, unknown_attributes)
