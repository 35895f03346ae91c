"""Properties of lists beside accuracy: coverage of the catalog, popularity, similarity, novelty and balance.

Lists are (n, k) item_idx, best first, padded with -1. Figures of a user are (n,) float64, NaN if they are not defined
for the user. Users' blocks bound the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from reckg.arrays.ragged_rows import Rows, hit_matrix, take_rows
from reckg.data.history import History
from reckg.metrics.significance import Interval
from reckg.ranking.tables.ease import user_item_matrix

BLOCK_USERS = 4096
SMOOTHING = 0.01  # share of the history's mix in the list's, for a finite divergence (Steck 2018)


@dataclass(frozen=True)
class Catalog:
    """Properties of the items that the figures need.

    Args:
        users_of: (n_items,) float: users of each item in training, out of ``n_users``.
        vectors: (n_items, d) sparse or dense: the likeness of two items is their cosine; a zero row is an unknown item.
        values: (n_items, v) sparse: the calibration column, each row summing to 1, or empty; None: without a column.
        tail: (n_items,) bool: the items of the long tail.
    """

    users_of: np.ndarray
    n_users: int
    vectors: sparse.csr_matrix | np.ndarray
    values: sparse.csr_matrix | None
    tail: np.ndarray


def user_figures(
    lists: np.ndarray, users: np.ndarray, relevant: Rows, history: History, catalog: Catalog, expected: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the figures of every user.

    Args:
        lists: (n, k) of the (n,) users.
        relevant: their held-out items, a row for each.
        history: as of the time of the lists.
        expected: (n, j) obvious items for the same users, here the most popular ones.
    Returns:
        novelty: mean -log2 of an item's share of the training users, in bits (Vargas & Castells 2011). popularity: mean
        training users of the items (RecBole's AveragePopularity). popularity_lift: this against the mean over the
        user's history, minus 1 (Abdollahpouri et al. 2020). tail: share of the places that long-tail items have
        (RecBole's TailPercentage). diversity: mean of 1 - cosine over the list's pairs of items with a vector (Ziegler
        et al. 2005). serendipity: share of the places with a held-out item that is not expected (Ge et al. 2010).
        miscalibration: Kullback-Leibler divergence, in nats, of the list's mix of values from the history's (Steck
        2018); 0 is the user's own mix.
    """
    n = len(lists)
    names = ["novelty", "popularity", "popularity_lift", "tail", "diversity", "serendipity"]
    names += ["miscalibration"] if catalog.values is not None else []
    out = {name: np.full(n, np.nan) for name in names}
    bits = -np.log2((catalog.users_of + 1) / (catalog.n_users + 1))  # plus one each: an unseen item stays finite
    unit = _unit_rows(catalog.vectors)
    for block in _blocks(n):
        top = lists[block].astype(np.int64)
        listed, taken = _membership(top, len(bits)), user_item_matrix(history, len(bits), user_idx=users[block])
        out["novelty"][block] = _mean(listed, bits)
        out["popularity"][block] = _mean(listed, catalog.users_of)
        before = _mean(taken, catalog.users_of)
        with np.errstate(invalid="ignore", divide="ignore"):
            out["popularity_lift"][block] = np.where(before > 0, out["popularity"][block] / before - 1, np.nan)
        out["tail"][block] = _mean(listed, catalog.tail.astype(np.float64))
        out["diversity"][block] = intra_list_diversity(listed, unit)
        hits = hit_matrix(top, take_rows(relevant, block))
        known = _rows_of_lists(expected[block].astype(np.int64))
        out["serendipity"][block] = (hits & ~hit_matrix(top, known)).sum(axis=1) / top.shape[1]
        if catalog.values is not None:
            out["miscalibration"][block] = miscalibration(taken @ catalog.values, listed @ catalog.values)
    return out


def intra_list_diversity(listed: sparse.csr_matrix, unit: sparse.csr_matrix | np.ndarray) -> np.ndarray:
    """Averages 1 - cosine over the pairs of a list.

    Args:
        listed: (n, n_items) of ones.
        unit: (n_items, d) rows of length 1, or 0.
    Returns:
        (n,); NaN with fewer than two items that have a vector.
    """
    known = _squared_length(unit) > 0
    m = listed @ known.astype(np.float64)
    total = listed @ unit
    pairs = m * (m - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1 - (_squared_length(total) - m) / pairs
    return np.where(pairs > 0, np.clip(found, 0.0, 2.0), np.nan)


def miscalibration(wanted: sparse.csr_matrix, given: sparse.csr_matrix) -> np.ndarray:
    """Computes KL(p || (1 - SMOOTHING) q + SMOOTHING p).

    Source: Steck 2018, Calibrated Recommendations, doi:10.1145/3240323.3240372.

    Args:
        wanted, given: (n, v) rows of shares p and q.
    Returns:
        (n,); NaN for an empty row.
    """
    mass = [np.asarray(part.sum(axis=1)).ravel() for part in (wanted, given)]
    p, q = (sparse.diags_array(1 / np.where(m > 0, m, 1)) @ part for m, part in zip(mass, (wanted, given), strict=True))
    mixed = ((1 - SMOOTHING) * q + SMOOTHING * p).tocsr()
    p = p.tocoo()
    row, column, share = p.row[p.data > 0], p.col[p.data > 0], p.data[p.data > 0]
    term = share * np.log(share / np.asarray(mixed[row, column]).ravel()) if len(row) else share
    total = np.bincount(row, term, minlength=wanted.shape[0])
    return np.where((mass[0] > 0) & (mass[1] > 0), np.maximum(total, 0.0), np.nan)


def item_exposure(lists: np.ndarray, n_items: int) -> np.ndarray:
    """Counts the places of every item in the lists: (n_items,) int64."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


def gini_index(exposure: np.ndarray) -> float:
    """Computes the Gini index of places: 0: all items have as many; towards 1: one item has all.

    RecBole's GiniIndex; 0 without any place.
    """
    n, ordered = len(exposure), np.sort(exposure)
    total = ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def shannon_entropy(exposure: np.ndarray) -> float:
    """Computes the entropy of places over items, in nats. RecBole's ShannonEntropy divides it by the items shown."""
    share = exposure[exposure > 0] / max(exposure.sum(), 1)
    return float(-(share * np.log(share)).sum()) + 0.0


def gini_interval(lists: np.ndarray, n_items: int) -> Interval:
    """Computes the Gini index with a 95% interval over users.

    The standard error is the infinitesimal jackknife's: each user's influence on the index (Efron 1982, chapter 6).

    Args:
        lists: (n, k).
    Returns:
        {"mean", "low", "high"}.
    """
    exposure = item_exposure(lists, n_items)
    gini, total = gini_index(exposure), max(int(exposure.sum()), 1)
    order = np.sort(exposure)
    rank = (np.searchsorted(order, exposure, "left") + 1 + np.searchsorted(order, exposure, "right")) / 2
    slope = np.append((2 * rank - n_items - 1) / (n_items * total), 0.0)  # the last stands for the padding
    influence = slope[lists].sum(axis=1) - gini * (lists >= 0).sum(axis=1) / total
    error = float(np.sqrt((influence**2).sum()))
    return {"mean": gini, "low": max(0.0, gini - 1.96 * error), "high": min(1.0, gini + 1.96 * error)}


def value_exposure(lists: np.ndarray, code: np.ndarray, n_values: int) -> np.ndarray:
    """Computes the share of a list's places that the items of each value have.

    Args:
        lists: (n, k).
        code: (n_items,) int, the value of every item, -1 for none.
        n_values: number of values.
    Returns:
        (n, n_values) float64.
    """
    value = np.where(lists >= 0, code[lists], -1)
    row, place = np.nonzero(value >= 0)
    counts = np.bincount(row * n_values + value[row, place], minlength=len(lists) * n_values)
    shares: np.ndarray = counts.reshape(len(lists), n_values) / np.maximum((lists >= 0).sum(axis=1), 1)[:, None]
    return shares


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, BLOCK_USERS):
        yield slice(start, min(start + BLOCK_USERS, n))


def _rows_of_lists(lists: np.ndarray) -> Rows:
    real = lists >= 0
    return np.concatenate([[0], np.cumsum(real.sum(axis=1))]), lists[real]


def _membership(lists: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """Marks the items of each list: (n, n_items)."""
    indptr, items = _rows_of_lists(lists)
    return sparse.csr_matrix((np.ones(len(items)), items, indptr), shape=(len(lists), n_items))


def _mean(rows: sparse.csr_matrix, value: np.ndarray) -> np.ndarray:
    """Averages values over the items of each row: (n,); NaN for an empty row."""
    length = np.diff(rows.indptr)
    return np.where(length > 0, (rows @ value) / np.maximum(length, 1), np.nan)


def _unit_rows(vectors: sparse.csr_matrix | np.ndarray) -> sparse.csr_matrix | np.ndarray:
    length = np.sqrt(_squared_length(vectors))
    scale = 1 / np.where(length > 0, length, 1)
    if sparse.issparse(vectors):
        return sparse.csr_matrix(sparse.diags_array(scale) @ vectors)
    return np.asarray(vectors, dtype=np.float64) * scale[:, None]


def _squared_length(rows: Any) -> np.ndarray:
    """Computes the squared length of (n, d) sparse or dense rows: (n,) float64."""
    squared = rows.multiply(rows) if sparse.issparse(rows) else np.asarray(rows, dtype=np.float64) ** 2
    return np.asarray(squared.sum(axis=1)).ravel()
