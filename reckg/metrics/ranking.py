"""Ranking metrics of many lists at once.

A ranked list is item_idx, best first, without repeats. It may end in -1 if fewer items exist. The held-out items of n
users come as compressed rows ``(indptr (n + 1,), item_idx)``. Relevance is binary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reckg.arrays.ragged_rows import Rows, hit_matrix

METRICS = ("recall", "ndcg", "mrr", "hit", "map", "precision")


def ranking_metrics(item_idx: np.ndarray, relevant: Rows, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Computes every metric of METRICS for n lists at every cut-off.

    A user has m held-out items, and hits are those in the first k places.

    - recall: hits / m. It stays below 1 if m > k.
    - precision: hits / k, also for a list shorter than k.
    - hit: 1 if there is a hit, else 0.
    - mrr: 1 / rank of the first hit, 0 without one.
    - map: precision at the rank of every hit, summed and divided by min(k, m). TREC divides by m.
    - ndcg: binary gains. The ideal list has min(k, m) hits, so every held-out item counts, not only the retrieved.

    Args:
        item_idx: (n, K) int64 ranked lists, padded with -1. A list shorter than a cut-off simply ends.
        relevant: held-out items, (indptr (n + 1,), item_idx), at least one a row, distinct within a row.
        ks: cut-offs, each >= 1.
    Returns:
        "recall@10" and so on -> (n,) float64 in [0, 1].
    Raises:
        ValueError: an empty or repeating row of held-out items, a repeated item in a list, or a cut-off < 1.
    Source: NDCG, Järvelin & Kekäläinen 2002, doi:10.1145/582415.582418.

    >>> import numpy as np
    >>> from reckg.metrics.ranking import ranking_metrics
    >>> found = ranking_metrics(np.array([[3, 1, 2]]), (np.array([0, 2]), np.array([1, 5])), [3])
    >>> found["recall@3"].tolist(), found["mrr@3"].tolist()
    ([0.5], [0.5])
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


def _discount(k: int) -> np.ndarray:
    discount: np.ndarray = 1.0 / np.log2(np.arange(k) + 2.0)
    return discount
