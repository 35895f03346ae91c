"""Exact search: the best k items of every query by inner product, and the order that all searches share."""

from __future__ import annotations

import numpy as np

from reckg.compressed_rows import Rows, take_rows
from reckg.errors import ArtifactError, DataError
from reckg.retrieval.scored_items import ScoredItems

SCORES_AT_ONCE = 2**24  # scores of one block: 64 MiB of float32


def exact_search(
    queries: np.ndarray, vectors: np.ndarray, k: int, seen: Rows | None = None, block_users: int = 1024
) -> ScoredItems:
    """The k items with the highest inner product of every query.

    Equal scores are ordered by the lower item_idx. A score depends on its query and its item alone, not on what
    else is searched at the same time, so that a batch and a single query agree to the last bit.

    Args:
        queries: (n, d) float32, finite.
        vectors: (m, d) float32, finite; row i is item_idx i.
        k: length of the lists, k >= 1.
        seen: items to leave out of query q: ``item_idx[indptr[q]:indptr[q + 1]]``; repeats are allowed.
        block_users: queries scored at once at most; fewer where m is large.
    Returns:
        item_idx and score (n, k); padded with -1 and -inf where fewer than k items are left.
    Raises:
        DataError: a query is not finite, or an item of ``seen`` is not in 0..m-1.
        ArtifactError: queries and vectors differ in dimension, or the vectors are not finite.
        ValueError: k < 1, block_users < 1.
    """
    vectors = checked_vectors(vectors)
    queries = checked_queries(queries, vectors.shape[1], k)
    n, m = len(queries), len(vectors)
    if block_users < 1:
        raise ValueError(f"block_users must be >= 1, got {block_users}")
    if seen is not None:
        seen = checked_seen(seen, n, m)
    result = empty_result(n, k)
    if m == 0:
        return result
    longest = float(np.sqrt(np.einsum("md,md->m", vectors, vectors).max()))
    block = max(1, min(block_users, SCORES_AT_ONCE // m))
    for start in range(0, n, block):
        rows = slice(start, min(n, start + block))
        part = None if seen is None else take_rows(seen, rows)
        _search_block(queries[rows], vectors, longest, k, part, result, start)
    return result


def _search_block(
    queries: np.ndarray,
    vectors: np.ndarray,
    longest: float,
    k: int,
    seen: Rows | None,
    result: ScoredItems,
    start: int,
) -> None:
    """Searches one block of queries and writes its lists into ``result`` from row ``start`` on."""
    n, m = len(queries), len(vectors)
    scores = queries @ vectors.T  # (n, m)
    if seen is not None:
        scores[np.repeat(np.arange(n), np.diff(seen[0])), seen[1]] = -np.inf
    # The matrix product rounds differently from pair to pair, so everything within its error of the k-th
    # best is taken along and scored again, pair by pair.
    if k < m:
        kth = np.partition(scores, m - k, axis=1)[:, m - k]
        error = 2 * np.finfo(np.float32).eps * vectors.shape[1] * longest * np.linalg.norm(queries, axis=1)
        floor = np.where(np.isfinite(kth), kth - error, np.finfo(np.float32).min)
    else:
        floor = np.full(n, np.finfo(np.float32).min)
    row, item = np.nonzero(scores >= floor[:, None])
    write_best(result, start, row, item, pair_scores(queries, vectors, row, item))


def pair_scores(queries: np.ndarray, vectors: np.ndarray, row: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Inner products (p,) float32 of the pairs (queries[row], vectors[item]), each computed on its own."""
    score = np.empty(len(row), dtype=np.float32)
    step = max(1, SCORES_AT_ONCE // max(1, vectors.shape[1]))
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        score[part] = np.einsum("pd,pd->p", queries[row[part]], vectors[item[part]])
    return score


def write_best(result: ScoredItems, start: int, row: np.ndarray, item: np.ndarray, score: np.ndarray) -> None:
    """Writes the best pairs of every row to ``result`` from row ``start`` on: by falling score, then item_idx.

    row (p,) is local to the block and rises; item and score (p,).
    """
    k = result.item_idx.shape[1]
    order = np.lexsort((item, -score, row))
    row, item, score = row[order], item[order], score[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)  # place within its row
    keep = place < k
    row, place = row[keep] + start, place[keep]
    result.item_idx[row, place] = item[keep]
    result.score[row, place] = score[keep]


def empty_result(n: int, k: int) -> ScoredItems:
    """(n, k) lists without any item: item_idx -1, score -inf."""
    return ScoredItems(np.full((n, k), -1, dtype=np.int64), np.full((n, k), -np.inf, dtype=np.float32))


def checked_queries(queries: np.ndarray, dim: int, k: int) -> np.ndarray:
    """(n, dim) float32 contiguous queries. Raises ArtifactError, DataError or ValueError as ``exact_search``."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ArtifactError(
            f"queries have the shape {queries.shape}, the items' vectors {dim} dimensions: "
            "built from different runs? Run 'reckg embed' and 'reckg index' again."
        )
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(queries)} queries hold NaN or infinity (first: row {bad[0]}); embed again."
        )
    return queries


def checked_vectors(vectors: np.ndarray) -> np.ndarray:
    """(m, d) float32 contiguous vectors. Raises ArtifactError where the shape is wrong or a value is not finite."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] < 1:
        raise ArtifactError(f"item vectors have the shape {vectors.shape}, not (items, dimensions). Run 'reckg embed'.")
    if not np.isfinite(vectors).all():
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        raise ArtifactError(
            f"{len(bad)} of {len(vectors)} item vectors hold NaN or infinity (first: item_idx {bad[0]}); "
            "training diverged? Lower train.learning_rate and run 'reckg train' again."
        )
    return vectors


def checked_seen(seen: Rows, n: int, m: int) -> Rows:
    """``seen`` as int64 arrays. Raises DataError where it does not fit n queries and m items."""
    indptr, item_idx = np.asarray(seen[0], dtype=np.int64), np.asarray(seen[1], dtype=np.int64)
    if indptr.shape != (n + 1,) or indptr[0] != 0 or indptr[-1] != len(item_idx) or (np.diff(indptr) < 0).any():
        raise DataError(
            f"seen items are not compressed rows of {n} queries: indptr has the shape {indptr.shape}, "
            f"there are {len(item_idx)} items."
        )
    bad = (item_idx < 0) | (item_idx >= m)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(item_idx)} seen items are not in 0..{m - 1} (first: {item_idx[bad][0]}): "
            "history and index come from different runs?"
        )
    return indptr, item_idx
