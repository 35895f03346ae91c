"""Users of requests that bring a history or attributes: vectors, histories and feature rows of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from reckg.compressed_rows import row_positions
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
    times, traits = [], []
    now = int(bundle.features.event_times[-1]) if len(bundle.features.event_times) else 0
    for number, request in enumerate(requests):
        user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
        found = [(item_id, bundle.item_ids.get(item_id)) for item_id in request.recent_items]
        recent = [idx for _, idx in found if idx is not None]
        stored = _stored(bundle.history, user_idx)
        items = np.concatenate([bundle.history.item_idx[stored], np.array(recent, dtype=np.int64)])
        times.append(np.concatenate([bundle.history.timestamp[stored], np.full(len(recent), now, dtype=np.int64)]))
        traits.append(-1 if user_idx is None else user_idx)
        vectors[number], unknown = inductive.embed_user(items, request.attributes, user_idx)
        if user_idx is not None and not recent:
            rows[number] = bundle.features.users[user_idx]
        rows[number, USER_COLUMNS.index("history_length")] = np.log1p(len(items))
        histories.append(items)
        unknown_items.append(tuple(item_id for item_id, idx in found if idx is None))
        unknown_attributes.append(tuple(unknown))
    indptr = np.concatenate([[0], np.cumsum([len(items) for items in histories])]).astype(np.int64)
    item_idx = np.concatenate([np.empty(0, dtype=np.int64), *histories])
    timestamp = np.concatenate([np.empty(0, dtype=np.int64), *times])
    history = History(indptr, item_idx, timestamp, np.ones(len(item_idx), dtype=np.float32))
    features = replace(bundle.features, users=rows, user_entities=_rows_of(bundle.features.user_entities, traits))
    return FoldedUsers(vectors, history, features, unknown_items, unknown_attributes)


def _stored(history: History, user_idx: int | None) -> slice:
    """Where a user's interactions are; nowhere for an unknown one."""
    return slice(0, 0) if user_idx is None else slice(history.indptr[user_idx], history.indptr[user_idx + 1])


def _rows_of(matrix: sp.csr_matrix, rows: list[int]) -> sp.csr_matrix:
    """The rows of a matrix; an empty one for -1."""
    which = np.array(rows, dtype=np.int64)
    indptr = np.append(matrix.indptr, matrix.indptr[-1])  # with an empty row at the end
    ends, position = row_positions(indptr, np.where(which < 0, matrix.shape[0], which))
    parts = matrix.data[position], matrix.indices[position], ends
    return sp.csr_matrix(parts, shape=(len(rows), matrix.shape[1]))
