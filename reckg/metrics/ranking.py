"""Ranking metrics: of one list, and of many lists at once.

A ranked list is item_idx, best first, without repeats; it may end in -1 where fewer items exist. The held-out items of
n users come as compressed rows ``(indptr (n + 1,), item_idx)``. Relevance is binary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reckg.arrays.ragged_rows import Rows

METRICS = ("recall", "ndcg", "mrr", "hit", "map", "precision")


def recall_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Share of one user's held-out items that are in the first k places.

    Args:
        ranked: (n,) int item_idx, best first, no repeats; -1 is padding.
        relevant: (m,) int held-out item_idx, distinct, m >= 1.
        k: cut-off, k >= 1.
    Returns:
        hits / m, in [0, 1]. It stays below 1 where m > k.
    Raises:
        ValueError: m == 0 or k < 1.
    """
    return float(_hits(ranked, relevant, k).sum() / len(relevant))


def ndcg_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Binary NDCG@k of one user's ranked list.

    Args:
        ranked: (n,) int item_idx, best first, no repeats; -1 is padding.
        relevant: (m,) int held-out item_idx, distinct, m >= 1.
        k: cut-off, k >= 1.
    Returns:
        Value in [0, 1]. The ideal list has min(k, m) hits: every held-out item counts, not only the retrieved.
    Raises:
        ValueError: m == 0 or k < 1.
    Source: Järvelin & Kekäläinen 2002, doi:10.1145/582415.582418.
    """
    hits = _hits(ranked, relevant, k)
    discount = _discount(k)
    return float(hits @ discount[: len(hits)] / discount[: min(k, len(relevant))].sum())


def mrr_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """1 / rank of the first hit in the first k places, 0 without one. Arguments and errors as in `recall_at_k`."""
    places = np.flatnonzero(_hits(ranked, relevant, k))
    return 1.0 / float(places[0] + 1) if len(places) else 0.0


def hit_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """1 where the first k places hold a held-out item, else 0. Arguments and errors as in `recall_at_k`."""
    return float(_hits(ranked, relevant, k).any())


def map_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Average precision at k: precision at the rank of every hit, summed and divided by min(k, m).

    The ideal list has average precision 1, also where more items are held out than the list has places. (TREC divides
    by m alone; the mean over users is MAP.) Arguments and errors as in `recall_at_k`.
    """
    hits = _hits(ranked, relevant, k)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / min(k, len(relevant)))


def precision_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """hits / k, also where the list is shorter than k. Arguments and errors as in `recall_at_k`."""
    return float(_hits(ranked, relevant, k).sum() / k)


def coverage_at_k(item_idx: np.ndarray, n_items: int, k: int) -> float:
    """Share of the n_items candidates that are in the first k places of at least one of the (n, K) lists.

    Raises:
        ValueError: k < 1, n_items < 1, or an item_idx is not below n_items.
    """
    if k < 1 or n_items < 1:
        raise ValueError(f"k and n_items must be >= 1, got k={k}, n_items={n_items}")
    top = item_idx[:, :k]
    found = np.unique(top[top >= 0])
    if len(found) and found[-1] >= n_items:
        raise ValueError(f"item_idx {found[-1]} is out of range: there are {n_items} candidates")
    return len(found) / n_items


def ranking_metrics(item_idx: np.ndarray, relevant: Rows, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Every metric of METRICS for n lists at every cut-off.

    Args:
        item_idx: (n, K) int64 ranked lists, padded with -1. A list shorter than a cut-off simply ends.
        relevant: held-out items, (indptr (n + 1,), item_idx), at least one a row, distinct within a row.
        ks: cut-offs, each >= 1.
    Returns:
        "recall@10" and so on -> (n,) float64, defined as in the functions for one list.
    Raises:
        ValueError: an empty or repeating row of held-out items, a repeated item in a list, or a cut-off < 1.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"cut-offs must be >= 1, got {list(ks)}")
    held = np.diff(relevant[0])
    if len(held) != len(item_idx):
        raise ValueError(f"{len(item_idx)} lists but {len(held)} rows of held-out items")
    if (held < 1).any():
        raise ValueError(f"{int((held < 1).sum())} of {len(held)} users have no held-out item")
    missing = max(0, max(ks) - item_idx.shape[1])
    hits = hit_matrix(np.pad(item_idx, ((0, 0), (0, missing)), constant_values=-1), relevant)
    discount = _discount(hits.shape[1])
    ideal = np.cumsum(discount)
    dcg = np.cumsum(hits * discount, axis=1)
    count = np.cumsum(hits, axis=1)
    first = np.argmax(hits, axis=1)
    precision = np.cumsum(hits * count / np.arange(1, hits.shape[1] + 1), axis=1)  # summed over the hits so far
    out: dict[str, np.ndarray] = {}
    for k in ks:
        n_hits = count[:, k - 1]
        out[f"recall@{k}"] = n_hits / held
        out[f"ndcg@{k}"] = dcg[:, k - 1] / ideal[np.minimum(held, k) - 1]
        out[f"mrr@{k}"] = np.where(n_hits > 0, 1.0 / (first + 1.0), 0.0)
        out[f"hit@{k}"] = (n_hits > 0).astype(np.float64)
        out[f"map@{k}"] = precision[:, k - 1] / np.minimum(held, k)
        out[f"precision@{k}"] = n_hits / k
    return out


def hit_matrix(item_idx: np.ndarray, rows: Rows) -> np.ndarray:
    """(n, K) bool: which places of the lists hold an item of the list's own row; -1 never does.

    Raises:
        ValueError: an item repeats within a list or within a row.
    """
    n, width = item_idx.shape
    indptr, members = rows
    highest = max(int(item_idx.max(initial=0)), int(members.max(initial=0)))
    stride = highest + 2  # one more than needed, so that a row's padding meets no item of the row before
    lists = item_idx + np.arange(n, dtype=np.int64)[:, None] * stride
    real = item_idx >= 0
    ordered = np.sort(np.where(real, lists, -1 - np.arange(width)), axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ValueError("a ranked list holds an item twice")
    keys = np.sort(np.repeat(np.arange(n, dtype=np.int64), np.diff(indptr)) * stride + members)
    if (keys[1:] == keys[:-1]).any():
        raise ValueError("a row of items holds an item twice")
    if not len(keys):
        return np.zeros((n, width), dtype=bool)
    place = np.minimum(np.searchsorted(keys, lists), len(keys) - 1)
    return keys[place] == lists


def _hits(ranked: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if len(relevant) == 0:
        raise ValueError("no held-out item: the metric is undefined for this user")
    top = np.asarray(ranked)[:k]
    return np.isin(top, relevant) & (top >= 0)


def _discount(k: int) -> np.ndarray:
    return 1.0 / np.log2(np.arange(k) + 2.0)
