"""Columns of the feature tables that follow from the interactions and the catalogue, one small function each."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History
from reckg.ranking.tables.ease import user_item_matrix

RECENT_SHARES = (0.1, 0.02)  # of the interactions, the latest: what recent and latest popularity look at
POPULAR_SHARE = 0.2  # what the popular items are taken from: fewer are noise where an item has a handful of takers
DAY = 86_400.0
EVENT_SPAN = 2**34  # above every time in epoch seconds; item_idx x this fits int64 up to 500 million items
FEWEST_OWNERS = 5  # an attribute of fewer users tells nothing of what they like
SHRINK = 10.0  # interactions of the whole catalogue's taste that are added to an attribute's own


def item_popularity(history: History, n_items: int, now: int | None) -> tuple[np.ndarray, ...]:
    """(I,) each: log popularity overall, in the latest tenth and fiftieth of the interactions, and the log ratio of the
    rate in the latest tenth to the overall one."""
    overall = np.bincount(history.item_idx, minlength=n_items)
    nothing = np.full(n_items, np.nan)
    if now is None or not len(history.item_idx):
        return np.log1p(overall), nothing, nothing, nothing
    (recent, share), (latest, _) = (_latest(history, n_items, share) for share in RECENT_SHARES)
    trend = np.log((1 + recent) / (1 + overall * share))
    return np.log1p(overall), np.log1p(recent), np.log1p(latest), trend


def popular_items(history: History, n_items: int, now: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(I,) item_idx by falling popularity, equal ones by popularity overall; (I,) float32 the log popularity itself: of
    the latest fifth of the interactions, or of all without times."""
    count = overall = np.bincount(history.item_idx, minlength=n_items)
    if now is not None and len(history.item_idx):
        count, _ = _latest(history, n_items, POPULAR_SHARE)
    return np.lexsort((-overall, -count)), np.log1p(count).astype(np.float32)


def _latest(history: History, n_items: int, share: float) -> tuple[np.ndarray, float]:
    """(I,) interactions of each item among the latest; the share that these are, more where times are equal."""
    latest = history.timestamp >= np.quantile(history.timestamp, 1 - share)
    return np.bincount(history.item_idx[latest], minlength=n_items), float(latest.mean())


def item_age(history: History, n_items: int, now: int | None) -> np.ndarray:
    """(I,) log(1 + days since the item's first interaction); NaN without one, or without times."""
    if now is None:
        return np.full(n_items, np.nan)
    first = np.full(n_items, now + 1, dtype=history.timestamp.dtype)  # of the times' own type: else it is far slower
    np.minimum.at(first, history.item_idx, history.timestamp)
    return np.where(first <= now, np.log1p((now - np.minimum(first, now)) / DAY), np.nan)


def user_recency(history: History, now: int | None) -> np.ndarray:
    """(U,) log(1 + days since the user's last interaction), 0 where that is after ``now``; NaN without one, or without
    times."""
    result = np.full(history.n_users, np.nan)
    if now is not None:
        some = np.diff(history.indptr) > 0
        result[some] = np.log1p(np.maximum(now - history.timestamp[history.indptr[1:][some] - 1], 0) / DAY)
    return result


def standardised(numbers: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """(I, Fn) float32: every column with mean 0 and standard deviation 1 over its known values; NaN stays NaN.

    like: (m, Fn) numbers whose mean and deviation are taken in place of these.
    """
    like = numbers if like is None else like
    known = np.isfinite(like)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, like, 0).astype(np.float64)
    mean = values.sum(axis=0) / count
    spread = np.sqrt((np.where(known, like - mean, 0) ** 2).sum(axis=0) / count)
    scaled = (numbers - mean) / np.where(spread > 0, spread, 1)
    return np.where(np.isfinite(numbers), scaled, np.nan).astype(np.float32)


def rarity(entities: sp.csr_matrix) -> sp.csr_matrix:
    """(I, E) csr: log(I / items with the entity) in place of every entry. Source: Sparck Jones 1972 (idf)."""
    owners = np.bincount(entities.indices, minlength=entities.shape[1])
    weight = np.log(max(1, entities.shape[0]) / np.maximum(owners, 1)).astype(np.float32)
    return sp.csr_matrix((weight[entities.indices], entities.indices, entities.indptr), shape=entities.shape)


def row_lengths(entities: sp.csr_matrix) -> np.ndarray:
    """(I,) float32: the length of every row; 1 where it is 0."""
    row = np.repeat(np.arange(entities.shape[0]), np.diff(entities.indptr))
    length = np.sqrt(np.bincount(row, np.square(entities.data, dtype=np.float64), minlength=entities.shape[0]))
    return np.where(length > 0, length, 1).astype(np.float32)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """(I, d) float16: every row at length 1; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float16)


def attribute_lift(history: History, user_entities: sp.csr_matrix, n_items: int) -> sp.csr_matrix:
    """(E, I) csr, columns sorted: log of how much likelier users with an attribute have the item than all users; 0 is
    left out.

    With SHRINK interactions at the catalogue's own shares added, so that a few of them say little.
    """
    owners = np.bincount(user_entities.indices, minlength=user_entities.shape[1])
    frequent = user_entities @ sp.diags((owners >= FEWEST_OWNERS).astype(np.float32))
    count = sp.csr_matrix(frequent.T @ user_item_matrix(history, n_items))
    count.eliminate_zeros()
    count.sort_indices()
    total = np.asarray(count.sum(axis=1)).ravel()
    share = np.bincount(history.item_idx, minlength=n_items) / max(1, len(history.item_idx))
    row = np.repeat(np.arange(count.shape[0]), np.diff(count.indptr))
    expected = share[count.indices]
    lift = np.log((count.data + SHRINK * expected) / ((total[row] + SHRINK) * np.maximum(expected, 1e-12)))
    return sp.csr_matrix((lift.astype(np.float32), count.indices, count.indptr), shape=count.shape)


def event_keys(history: History) -> np.ndarray:
    """(n,) int64, sorted: item_idx x EVENT_SPAN + timestamp of every interaction, to count an item's in a window."""
    return np.sort(history.item_idx * EVENT_SPAN + history.timestamp)
