"""Users of requests with a history or attributes: vectors, histories and feature rows computed for the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from reckg.arrays.ragged_rows import Rows, join_rows, kept_entries, row_positions, take_rows
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
        recent_types: event types of the first of ``recent_items``, as in training. The other items, and those with an
            empty type, are of the target event.

    Raises:
        ValueError: more times or types than items.

    >>> import reckg
    >>> request = reckg.UserRequest(recent_items=["i01", "i07"], attributes={"city": "Oslo"})
    >>> reckg.load("run/bundle").recommend_many([request], k=3).height
    3
    """

    user_id: str | None = None
    recent_items: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    recent_times: Sequence[int] = ()
    recent_types: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.recent_times) > len(self.recent_items):
            raise ValueError(f"{len(self.recent_times)} recent_times for {len(self.recent_items)} recent_items")
        if len(self.recent_types) > len(self.recent_items):
            raise ValueError(f"{len(self.recent_types)} recent_types for {len(self.recent_items)} recent_items")

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
    histories: list[MergedHistory] = []
    unknown_items, unknown_attributes, traits = [], [], []
    kept, undated = np.zeros(len(requests), dtype=bool), np.zeros(len(requests), dtype=bool)
    for number, request in enumerate(requests):
        user_idx = None if request.user_id is None else bundle.user_ids.get(request.user_id)
        found = [bundle.item_ids.get(item_id) for item_id in request.recent_items]
        merged = merge_history(bundle, user_idx, found, request.recent_times, request.recent_types)
        undated[number] = merged.undated
        vectors[number], unknown = inductive.embed_user(merged.items, request.attributes, user_idx, merged.weights)
        histories.append(merged)
        traits.append(-1 if user_idx is None else user_idx)
        kept[number] = user_idx is not None and all(idx is None for idx in found)
        unknown_items.append(tuple(i for i, idx in zip(request.recent_items, found, strict=True) if idx is None))
        unknown_attributes.append(tuple(unknown))
    indptr = np.concatenate([[0], np.cumsum([len(merged.items) for merged in histories])]).astype(np.int64)
    history = History(
        indptr,
        np.concatenate([np.empty(0, dtype=np.int64), *(merged.items for merged in histories)]),
        np.concatenate([np.empty(0, dtype=np.int64), *(merged.times for merged in histories)]),
        np.concatenate([np.empty(0, dtype=np.float32), *(merged.weights for merged in histories)]),
        np.concatenate([np.empty(0, dtype=bool), *(merged.taken for merged in histories)]),
        _never_of(bundle.history, traits, histories),
    )
    rows = np.column_stack([np.log1p(np.diff(indptr)), user_recency(history, tables.now)]).astype(np.float32)
    rows[undated, USER_COLUMNS.index("user_recency")] = np.nan
    rows[kept] = tables.users[np.array(traits, dtype=np.int64)[kept]]
    features = replace(tables, users=rows, user_entities=_rows_of(tables.user_entities, traits))
    return FoldedUsers(vectors, history, features, unknown_items, unknown_attributes)


@dataclass(frozen=True)
class MergedHistory:
    """A user's m interactions by rising time.

    Args:
        items: (m,) item_idx.
        times: (m,) epoch seconds.
        weights: (m,) float32; 1, the mean of training, for recent items.
        taken: (m,) bool: of the target event; recent items are.
        undated: an item has no time.
        disliked: (d,) recent items of a negative event; not among ``items``.
    """

    items: np.ndarray
    times: np.ndarray
    weights: np.ndarray
    taken: np.ndarray
    undated: bool
    disliked: np.ndarray


def merge_history(
    bundle: Bundle,
    user_idx: int | None,
    found: Sequence[int | None],
    given: Sequence[int],
    types: Sequence[str] = (),
) -> MergedHistory:
    """Merges the bundle's history of a user with the recent items of a request.

    Args:
        user_idx: None for a user that the bundle does not know.
        found: item_idx of the recent items, None for unknown ones.
        given: epoch seconds of the first recent items. The others count as late as the latest known interaction, one
            after the other.
        types: event types of the first recent items.
    """
    history, stored = bundle.history, _stored(bundle.history, user_idx)
    meanings = [bundle.event_meaning(event) for event in types] + [(1.0, True, False)] * (len(found) - len(types))
    disliked = [idx for idx, (_, _, bad) in zip(found, meanings, strict=True) if bad and idx is not None]
    liked = [number for number, idx in enumerate(found) if idx is not None and not meanings[number][2]]
    dated, others = (
        np.array([n for n in liked if (n < len(given)) == early], dtype=np.int64) for early in (True, False)
    )
    index = np.array([-1 if idx is None else idx for idx in found], dtype=np.int64)
    weight, taken = (np.array([meaning[place] for meaning in meanings]) for place in (0, 1))
    stored_weights = history.weight[stored] if bundle.features.weighted else np.ones(stored.stop - stored.start)
    stored_taken = np.ones(len(stored_weights), dtype=bool) if history.taken is None else history.taken[stored]
    times = np.concatenate([history.timestamp[stored], np.asarray(given, dtype=np.int64)[dated]])
    order = np.argsort(times, kind="stable") if len(dated) else np.arange(len(times))
    latest = np.concatenate([order, len(times) + np.arange(len(others))])
    rows = np.concatenate([dated, others])
    now = max([bundle.features.now or 0, *times[order[-1:]].tolist()])
    times = np.concatenate([times, now + np.arange(len(others), dtype=np.int64)])
    return MergedHistory(
        items=np.concatenate([history.item_idx[stored], index[rows]])[latest],
        times=times[latest],
        weights=np.concatenate([stored_weights, weight[rows]]).astype(np.float32)[latest],
        taken=np.concatenate([stored_taken, taken[rows].astype(bool)])[latest],
        undated=len(others) > 0,
        disliked=np.array(disliked, dtype=np.int64),
    )


def _never_of(history: History, users: list[int], merged: Sequence[MergedHistory]) -> Rows | None:
    """Joins the disliked items of users, none for -1, and those of their requests. None if there are none."""
    given = [each.disliked for each in merged]
    if history.never is None and not any(len(items) for items in given):
        return None
    recent = np.concatenate([[0], np.cumsum([len(items) for items in given])]), np.concatenate([*given])
    if history.never is None:
        return recent
    numbers = np.array(users, dtype=np.int64)
    indptr, items = take_rows(history.never, np.maximum(numbers, 0))
    return join_rows(kept_entries((indptr, items), np.repeat(numbers >= 0, np.diff(indptr))), recent)


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
