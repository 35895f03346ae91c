"""The columns of the feature tables: what is known of items and users on their own, from one state of a history."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History

RECENT_SHARE = 0.1  # of the interactions, the latest: what recent popularity looks at
DAY = 86_400.0


def item_popularity(history: History, n_items: int, now: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(I,) each: log popularity overall, in the latest tenth of the interactions, and the log ratio of the rates."""
    overall = np.bincount(history.item_idx, minlength=n_items)
    nothing = np.full(n_items, np.nan)
    if now is None or not len(history.item_idx):
        return np.log1p(overall), nothing, nothing
    since = np.quantile(history.timestamp, 1 - RECENT_SHARE)
    latest = history.timestamp >= since
    recent = np.bincount(history.item_idx[latest], minlength=n_items)
    return np.log1p(overall), np.log1p(recent), np.log((1 + recent) / (1 + overall * latest.mean()))


def item_age(history: History, n_items: int, now: int | None) -> np.ndarray:
    """(I,) log(1 + days since the item's first interaction); NaN without one, or without times."""
    if now is None:
        return np.full(n_items, np.nan)
    first = np.full(n_items, np.inf)
    np.minimum.at(first, history.item_idx, history.timestamp)
    return np.where(np.isfinite(first), np.log1p((now - np.where(np.isfinite(first), first, now)) / DAY), np.nan)


def user_recency(history: History, now: int | None) -> np.ndarray:
    """(U,) log(1 + days since the user's last interaction); NaN without one, or without times."""
    result = np.full(history.n_users, np.nan)
    if now is not None:
        some = np.diff(history.indptr) > 0
        result[some] = np.log1p((now - history.timestamp[history.indptr[1:][some] - 1]) / DAY)
    return result


def standardised(numbers: np.ndarray) -> np.ndarray:
    """(I, Fn) float32: every column with mean 0 and standard deviation 1 over its known values; NaN stays NaN."""
    known = np.isfinite(numbers)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, numbers, 0).astype(np.float64)
    mean = values.sum(axis=0) / count
    spread = np.sqrt((np.where(known, numbers - mean, 0) ** 2).sum(axis=0) / count)
    return np.where(known, (numbers - mean) / np.where(spread > 0, spread, 1), np.nan).astype(np.float32)


def rarity(entities: sp.csr_matrix) -> sp.csr_matrix:
    """(I, E) csr: log(I / items with the entity) in place of every entry. Source: Sparck Jones 1972 (idf)."""
    owners = np.bincount(entities.indices, minlength=entities.shape[1])
    weight = np.log(max(1, entities.shape[0]) / np.maximum(owners, 1)).astype(np.float32)
    return sp.csr_matrix((weight[entities.indices], entities.indices, entities.indptr), shape=entities.shape)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """(I, d) float16: every row at length 1; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float16)
