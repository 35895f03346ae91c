"""Users of requests with a history or attributes: vectors, histories and feature rows computed for the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from reckg.arrays.ragged_rows import row_positions
from reckg.bundle.bundle import Bundle
from reckg.data.history import History
from reckg.ranking.tables.columns import user_recency
from reckg.ranking.tables.feature_tables import USER_COLUMNS, FeatureTables


@dataclass(frozen=True)
class UserRequest:
    """User of a request: an id, recent interactions, attributes, or several of these.

    Args:
        user_id: raw id, known to the bundle or not. None: no id.
        recent_items: raw item ids of interactions beside those that the bundle has. Items without a time are the
            latest, oldest first.
        attributes: column of the users table to a value or a list of values. They replace the bundle's attributes of
            the user.
        recent_times: epoch seconds, UTC, of the first of ``recent_items``, in any order. The other items have no time.

    Raises:
        ValueError: more times than items.

    >>> import reckg
    >>> request = reckg.UserRequest(recent_items=["i01", "i07"], attributes={"city": "Oslo"})
    >>> reckg.load("run/bundle").recommend_many([request], k=3).height
    3
    """

    user_id: str | None = None
    recent_items: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    recent_times: Sequence[int] = ()

    def __post_init__(self) -> None:
        if len(self.recent_times) > len(self.recent_items):
            raise ValueError(f"{len(self.recent_times)} recent_times for {len(self.recent_items)} recent_items")

    @property
    def is_plain(self) -> bool:
        """Whether the request holds nothing but a user id."""
        return not self.recent_items and not self.attributes


@dataclass(frozen=True)
class Users:
    """Vectors, histories and features of n users.

    Args:
        vectors: (n, d) float32; zeros for a user without any known fact.
        history: n rows.
        features: tables with n user rows.
    """

    vectors: np.ndarray
    history: History
    features: FeatureTables


@dataclass(frozen=True)
class FoldedUsers(Users):
    """Users of n requests.

    Args:
        unknown_items: per request, recent items that the bundle does not know.
        unknown_attributes: per request, attributes that it does not know, as ``column`` or ``column=value``.
    """

    unknown_items: list[tuple[str, ...]]
    unknown_attributes: list[tuple[str, ...]]


def fold_in(bundle: Bundle, requests: Sequence[UserRequest]) -> FoldedUsers:
    """Computes the users of n requests. Each is equal bit for bit to the user of the request alone.

    A history is in order of time, items without a time last. The recency of a user is the time between the last item
    and the bundle's last interaction, at least 0, so that no answer depends on the clock. With items without a time it
    is NaN.

    Returns:
        One user per request.
    Raises:
        CannotEmbedError: the bundle has nothing to embed with.
    """
    inductive, tables = bundle.embedder, bundle.features
    vectors = np.empty((len(requests), inductive.dim), dtype=np.float32)
    histories, timestamps, unknown_items, unknown_attributes, traits = [], [], [], [], []
    kept, undated = np.zeros(len(requests), dtype=bool), np.zeros(len(requests), dtype=bool)
    for number, request in enumerate(requests):
        user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
        found = [bundle.item_ids.get(item_id) for item_id in request.recent_items]
        items, times, undated[number] = merge_history(bundle, user_idx, found, request.recent_times)
        vectors[number], unknown = inductive.embed_user(items, request.attributes, user_idx)
        histories.append(items)
        timestamps.append(times)
        traits.append(-1 if user_idx is None else user_idx)
        kept[number] = user_idx is not None and all(idx is None for idx in found)
        unknown_items.append(tuple(i for i, idx in zip(request.recent_items, found, strict=True) if idx is None))
        unknown_attributes.append(tuple(unknown))
    indptr = np.concatenate([[0], np.cumsum([len(items) for items in histories])]).astype(np.int64)
    item_idx, timestamp = (np.concatenate([np.empty(0, dtype=np.int64), *parts]) for parts in (histories, timestamps))
    history = History(indptr, item_idx, timestamp, np.ones(len(item_idx), dtype=np.float32))
    rows = np.column_stack([np.log1p(np.diff(indptr)), user_recency(history, tables.now)]).astype(np.float32)
    rows[undated, USER_COLUMNS.index("user_recency")] = np.nan
    rows[kept] = tables.users[np.array(traits, dtype=np.int64)[kept]]
    features = replace(tables, users=rows, user_entities=_rows_of(tables.user_entities, traits))
    return FoldedUsers(vectors, history, features, unknown_items, unknown_attributes)


def merge_history(
    bundle: Bundle, user_idx: int | None, found: Sequence[int | None], given: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Merges the bundle's history of a user with the recent items of a request.

    Args:
        user_idx: None for a user that the bundle does not know.
        found: item_idx of the recent items, None for unknown ones.
        given: epoch seconds of the first recent items. The others count as late as the latest known interaction, one
            after the other.
    Returns:
        (m,) item_idx and (m,) epoch seconds by rising time, and whether an item has no time.
    """
    stored = _stored(bundle.history, user_idx)
    dated = [(idx, time) for idx, time in zip(found, given, strict=False) if idx is not None]
    others = [idx for idx in found[len(given) :] if idx is not None]
    items, times = bundle.history.item_idx[stored], bundle.history.timestamp[stored]
    if dated:
        joined = np.array(dated, dtype=np.int64)
        items, times = np.concatenate([items, joined[:, 0]]), np.concatenate([times, joined[:, 1]])
        order = np.argsort(times, kind="stable")
        items, times = items[order], times[order]
    if others:
        now = max([bundle.features.now or 0, *times[-1:].tolist()])
        items = np.concatenate([items, np.array(others, dtype=np.int64)])
        times = np.concatenate([times, now + np.arange(len(others), dtype=np.int64)])
    return items, times, bool(others)


def _stored(history: History, user_idx: int | None) -> slice:
    """Finds the place of a user's interactions; empty for an unknown user."""
    return slice(0, 0) if user_idx is None else slice(history.indptr[user_idx], history.indptr[user_idx + 1])


def _rows_of(matrix: sp.csr_matrix, rows: list[int]) -> sp.csr_matrix:
    """Takes rows of a matrix; an empty row for -1."""
    numbers = np.array(rows, dtype=np.int64)
    found = numbers >= 0
    ends, position = row_positions(matrix.indptr, numbers[found])
    indptr = ends[np.concatenate([[0], np.cumsum(found)])]
    return sp.csr_matrix((matrix.data[position], matrix.indices[position], indptr), shape=(len(rows), matrix.shape[1]))
