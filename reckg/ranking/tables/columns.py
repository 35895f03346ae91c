"""Columns of the feature tables that follow from the interactions and the catalog, one small function each."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History
from reckg.ranking.tables.ease import user_item_matrix

RECENT_SHARES = (0.1, 0.02)  # latest shares of the interactions, for recent and latest popularity
DAY = 86_400.0
EVENT_SPAN = 2**34  # above every time in epoch seconds; item_idx x this fits int64 up to 500 million items
FEWEST_OWNERS = 5  # an attribute of fewer users is ignored
SHRINK = 10.0  # interactions at the catalog's shares, added to an attribute's own


def item_popularity(history: History, n_items: int, now: int | None) -> tuple[np.ndarray, ...]:
    """Computes the items' popularity.

    Args:
        now: time of the state; None: data without times has the overall popularity only.
    Returns:
        (I,) each: log popularity overall, in the latest tenth and fiftieth of the interactions, and the log ratio of
        the rate in the latest tenth to the overall rate.
    """
    overall = np.bincount(history.item_idx, minlength=n_items)
    nothing = np.full(n_items, np.nan)
    if now is None or not len(history.item_idx):
        return np.log1p(overall), nothing, nothing, nothing
    (recent, share), (latest, _) = (latest_counts(history, n_items, share) for share in RECENT_SHARES)
    trend = np.log((1 + recent) / (1 + overall * share))
    return np.log1p(overall), np.log1p(recent), np.log1p(latest), trend


def latest_counts(history: History, n_items: int, share: float) -> tuple[np.ndarray, float]:
    """Counts each item's latest interactions: (I,), and their share, which grows with equal times."""
    latest = history.timestamp >= np.quantile(history.timestamp, 1 - share)
    return np.bincount(history.item_idx[latest], minlength=n_items), float(latest.mean())


def item_age(history: History, n_items: int, now: int | None) -> np.ndarray:
    """Computes log(1 + days since the item's first interaction): (I,); NaN without interaction or times."""
    if now is None:
        return np.full(n_items, np.nan)
    first = np.full(n_items, now + 1, dtype=history.timestamp.dtype)  # the times' own type: another type is far slower
    np.minimum.at(first, history.item_idx, history.timestamp)
    return np.where(first <= now, np.log1p((now - np.minimum(first, now)) / DAY), np.nan)


def user_recency(history: History, now: int | None) -> np.ndarray:
    """Computes log(1 + days since the user's last interaction).

    Returns:
        (U,); 0 for an interaction after ``now``, NaN without interaction or times.
    """
    result = np.full(history.n_users, np.nan)
    if now is not None:
        active = np.diff(history.indptr) > 0
        result[active] = np.log1p(np.maximum(now - history.timestamp[history.indptr[1:][active] - 1], 0) / DAY)
    return result


def standardise(numbers: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Scales every column to mean 0 and standard deviation 1 over its known values. NaN stays NaN.

    Args:
        numbers: (I, Fn).
        like: (m, Fn) numbers to take mean and deviation from; None: ``numbers``.
    Returns:
        (I, Fn) float32.
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
    """Puts log(I / items with the entity) in place of every entry. Source: Sparck Jones 1972 (idf).

    Args:
        entities: (I, E) csr.
    """
    owners = np.bincount(entities.indices, minlength=entities.shape[1])
    weight = np.log(max(1, entities.shape[0]) / np.maximum(owners, 1)).astype(np.float32)
    return sp.csr_matrix((weight[entities.indices], entities.indices, entities.indptr), shape=entities.shape)


def row_lengths(entities: sp.csr_matrix) -> np.ndarray:
    """Computes the length of every row: (I,) float32; 1 for an empty row."""
    row = np.repeat(np.arange(entities.shape[0]), np.diff(entities.indptr))
    length = np.sqrt(np.bincount(row, np.square(entities.data, dtype=np.float64), minlength=entities.shape[0]))
    return np.where(length > 0, length, 1).astype(np.float32)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Scales every row to length 1: (I, d) float16. Rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float16)


def attribute_lift(history: History, user_entities: sp.csr_matrix, n_items: int) -> sp.csr_matrix:
    """Computes log of (chance of the item among users with an attribute / chance among all users).

    SHRINK interactions at the catalog's own shares are added, so that a few interactions have little effect.

    Args:
        history: of U users.
        user_entities: (U, E).
    Returns:
        (E, I) csr, columns sorted; zeros are left out.
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
    """Encodes every interaction as item_idx x EVENT_SPAN + timestamp, sorted: (n,) int64, to count in windows."""
    return np.sort(history.item_idx * EVENT_SPAN + history.timestamp)
