"""Exact search: the best k items of every query by inner product, and the order that all searches share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from reckg.arrays.extended_array import Array
from reckg.arrays.ragged_rows import Rows, take_rows
from reckg.errors import ArtifactError, DataError
from reckg.retrieval.blas_threads import one_blas_thread
from reckg.retrieval.scored_items import ScoredItems, empty_result

TILE = 2**19  # scores of one matrix product: 2 MiB of float32, so that they are read again from the cache
PAIRS_AT_ONCE = 2**12
STRIDE = 16
LEAST = np.finfo(np.float32).min
MANY_SCORES = 2**26  # from so many on, blocks of queries are searched side by side


def exact_search(
    queries: np.ndarray, vectors: np.ndarray, k: int, seen: Rows | None = None, block_users: int = 256
) -> ScoredItems:
    """The k items with the highest inner product of every query.

    Equal scores are ordered by the lower item_idx. A score depends on its query and its item alone, not on what
    else is searched at the same time, so that a batch and a single query agree to the last bit. Large searches use
    as many threads as BLAS may; memory beside queries, vectors and lists is a few megabytes a thread.

    Args:
        queries: (n, d) float32, finite.
        vectors: (m, d) float32, finite; row i is item_idx i.
        k: length of the lists, k >= 1.
        seen: items to leave out of query q: ``item_idx[indptr[q]:indptr[q + 1]]``; repeats are allowed.
        block_users: queries scored at once at most.
    Returns:
        item_idx and score (n, k); padded with -1 and -inf where fewer than k items are left.
    Raises:
        DataError: a query is not finite, or an item of ``seen`` is not in 0..m-1.
        ArtifactError: queries and vectors differ in dimension, or the vectors are not finite.
        ValueError: k < 1, block_users < 1.
    """
    vectors = checked_vectors(vectors)
    queries = checked_queries(queries, vectors.shape[1], k)
    if block_users < 1:
        raise ValueError(f"block_users must be >= 1, got {block_users}")
    if seen is not None:
        seen = checked_seen(seen, len(queries), len(vectors))
    return search_checked(queries, vectors, k, seen, block_users)


def search_checked(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    seen: Rows | None,
    block_users: int = 256,
    longest: float | None = None,
) -> ScoredItems:
    """``exact_search`` of what is known to be float32, contiguous, finite and in range.

    longest: ``longest_vector(vectors)``, where it is known.
    """
    n, m = len(queries), len(vectors)
    result = empty_result(n, k)
    if n == 0 or m == 0:
        return result
    longest = longest_vector(vectors) if longest is None else longest
    if n == 1:
        item = _contenders_of_one(queries[0], vectors, longest, k, None if seen is None else seen[1])
        row = np.zeros(len(item), dtype=np.int64)
        write_best(result, 0, row, item, pair_scores(queries, vectors, row, item))
        return result
    block, many = min(block_users, 2**15), n * m >= MANY_SCORES
    lifted = None
    if many and m >= 8 * STRIDE * k:
        lifted = np.concatenate([vectors, np.ones((m, 1), dtype=np.float32)], axis=1)

    def search_block(start: int) -> None:
        rows = slice(start, min(n, start + block))
        part = None if seen is None else take_rows(seen, rows)
        if lifted is None:
            row, item = _contenders(queries[rows], vectors, longest, k, part)
        else:
            row, item = _guessed(queries[rows], lifted, longest, k, part)
        write_best(result, start, row, item, pair_scores(queries[rows], vectors, row, item))

    with one_blas_thread() as threads:
        starts = range(0, n, block)
        if threads == 1 or len(starts) == 1 or not many:
            for start in starts:
                search_block(start)
        else:
            with ThreadPoolExecutor(threads, thread_name_prefix="search") as pool:
                list(pool.map(search_block, starts))
    return result


def longest_vector(vectors: np.ndarray) -> float:
    """The length of the longest of (m, d) vectors."""
    return float(np.sqrt(np.einsum("md,md->m", vectors, vectors).max(initial=0)))


def _contenders_of_one(
    query: np.ndarray, vectors: np.ndarray, longest: float, k: int, seen: np.ndarray | None
) -> np.ndarray:
    """(p,) items: the k best of one (d,) query and those that may be, as ``_contenders`` finds them."""
    scores = vectors @ query
    if seen is not None:
        scores[seen] = -np.inf
    error = _product_error(query[None], longest)
    floor = _raised(np.full(1, LEAST, dtype=np.float32), _kth_of_groups(scores[:, None], k), error)
    return np.flatnonzero(scores >= floor)


def _product_error(queries: np.ndarray, longest: float) -> np.ndarray:
    """(n,) float32: by how much a score of a matrix product may be off."""
    norm = np.linalg.norm(queries.astype(np.float64), axis=1)
    return (4 * np.finfo(np.float32).eps * queries.shape[1] * longest * norm).astype(np.float32)


def _guessed(
    queries: np.ndarray, lifted: np.ndarray, longest: float, k: int, seen: Rows | None
) -> tuple[np.ndarray, np.ndarray]:
    """As ``_contenders``, of less work where there are many items: the floors start from a guess.

    The guess is a score of every STRIDE-th item, which probably a few more than k items reach. Rows that fewer reach
    are searched again without one. lifted: (m, d + 1) the vectors, and a column of ones.
    """
    n, dim = queries.shape
    left_out = None
    if seen is not None:
        rows = np.repeat(np.arange(n), np.diff(seen[0]))
        inside = seen[1] % STRIDE == 0
        left_out = seen[1][inside] // STRIDE, rows[inside]
    scores = np.matmul(lifted[::STRIDE, :dim].copy(), queries.T)
    if left_out is not None:
        scores[left_out] = -np.inf
    expected = k / STRIDE  # of the k best, those in the sample
    guess = _kth_of_groups(scores, int(np.ceil(expected + 4 * np.sqrt(expected) + 2)))
    out_of_reach = 1 + 2 * longest * np.linalg.norm(queries, axis=1)  # where too few are left to guess from
    guess = np.where(np.isfinite(guess), guess, out_of_reach)
    row, item = _contenders(queries, lifted, longest, k, seen, guess)
    short = np.flatnonzero(np.bincount(row, minlength=n) < k)
    if len(short):
        kept, part = ~np.isin(row, short), None if seen is None else take_rows(seen, short)
        again = _contenders(queries[short], lifted[:, :dim], longest, k, part)
        row, item = np.append(row[kept], short[again[0]]), np.append(item[kept], again[1])
    return row, item


def _contenders(
    queries: np.ndarray,
    vectors: np.ndarray,
    longest: float,
    k: int,
    seen: Rows | None,
    guess: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, item), both (p,) int64: the k best items of every query and those that may be.

    The items are scored tile by tile. A score below the floor of its query is dropped at once; the floor rises to
    the k-th best score so far, less the error of the matrix product, whose rounding differs from pair to pair.

    guess: (n,) where the floors start; a row of which it is too high gets fewer than k. With it the vectors have a
    last column of ones, by which the product subtracts the floor: comparing with one number takes half the time.
    """
    n, m = len(queries), len(vectors)
    width = min(m, max(1, TILE // n))
    scores, reached = np.empty((width, n), dtype=np.float32), np.empty((width, n), dtype=bool)
    error = _product_error(queries, longest)
    zero = ~queries.any(axis=1)
    floor = np.full(n, LEAST, dtype=np.float32)
    if guess is not None:
        floor = _raised(floor, guess, error)
        queries = np.concatenate([queries, -floor[:, None]], axis=1)
    bar = floor
    left_out = None if seen is None else _by_item(seen)
    kept: list[tuple[np.ndarray, ...]] = []
    for start in range(0, m, width):
        tile = np.matmul(vectors[start : start + width], queries.T, out=scores[: min(width, m - start)])
        if left_out is not None:
            some = slice(*np.searchsorted(left_out[0], [start, start + len(tile)]))
            tile[left_out[0][some] - start, left_out[1][some]] = -np.inf
        if start == 0 and guess is None:
            floor = bar = _raised(floor, _kth_of_groups(tile, k), error)
        least = bar if guess is None else np.float32(0)
        found = np.flatnonzero(np.greater_equal(tile, least, out=reached[: len(tile)]))
        item = found.astype(np.uint32) // np.uint32(n)
        row = (found - item * np.int64(n)).astype(np.uint16)  # NumPy sorts 16 bits by counting
        score = tile.reshape(-1)[found]
        kept.append((row, item + np.uint32(start), score if guess is None else score + bar[row]))
        if sum(len(row) for row, _, _ in kept) > 4 * k * n or start + width >= m:
            row, item, score = (np.concatenate(parts) for parts in zip(*kept, strict=True))
            order = np.argsort(row, kind="stable")
            row, item, score = row[order], item[order], score[order]
            floor = _raised(floor, _kth_best(row, score, n, k), error)
            good = score >= floor[row]
            kept = [(row[good], item[good], score[good])]
        # A query of zeros scores all items alike: a later one is never among the best.
        bar = np.where(zero & (floor > LEAST), np.nextafter(floor, np.float32(np.inf)), floor)
        if guess is not None:
            queries[:, -1] = -bar
    return kept[0][0].astype(np.int64), kept[0][1].astype(np.int64)


def _kth_of_groups(tile: np.ndarray, k: int) -> np.ndarray:
    """(n,) the k-th highest of the maxima of groups of items in (m, n) scores: no higher than the k-th score."""
    m, n = tile.shape
    if k > m:
        return np.full(n, -np.inf, dtype=np.float32)
    size = max(1, min(32, m // (2 * k)))
    groups = m // size
    grouped = tile[: groups * size]
    if n == 1:
        best = grouped.reshape(1, size, groups).max(axis=1)
    else:
        best = np.ascontiguousarray(grouped.reshape(groups, size, n).max(axis=1).T)
    return np.sort(best, axis=1)[:, groups - k]


def _kth_best(row: np.ndarray, score: np.ndarray, n: int, k: int) -> np.ndarray:
    """(n,) the k-th highest of every row's scores, (p,) by rising row; -inf where it has fewer."""
    place = _place(row)
    width = int(place.max(initial=-1)) + 1
    if width < k:
        return np.full(n, -np.inf, dtype=np.float32)
    table = np.full((n, width), -np.inf, dtype=np.float32)
    table[row, place] = score
    return np.sort(table, axis=1)[:, width - k]


def _place(row: np.ndarray) -> np.ndarray:
    """(p,) the place of every entry among those of its row; row rises."""
    count = np.bincount(row)
    return np.arange(len(row)) - (np.cumsum(count) - count)[row]


def _by_item(seen: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Compressed rows as pairs (item, row), by rising item."""
    order = np.argsort(seen[1], kind="stable")
    return seen[1][order], np.repeat(np.arange(len(seen[0]) - 1), np.diff(seen[0]))[order]


def _raised(floor: np.ndarray, kth: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(n,) the higher of the floors and the k-th best scores less the error; -inf raises nothing."""
    return np.maximum(floor, np.where(np.isfinite(kth), kth - error, floor))


def _falling(score: np.ndarray) -> np.ndarray:
    """(p,) uint64 below 2**32 that rise as the float32 scores fall; equal for equal scores, the two zeros too."""
    bits = (score + np.float32(0)).view(np.int32)
    return np.where(bits < 0, bits, bits ^ np.int32(0x7FFFFFFF)).view(np.uint32).astype(np.uint64)


def pair_scores(queries: np.ndarray, vectors: Array, row: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Inner products (p,) float32 of the pairs (queries[row], vectors[item]), each computed on its own."""
    score = np.empty(len(row), dtype=np.float32)
    for start in range(0, len(row), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        right = vectors[item[part]]  # not take(), which copies all of FAISS's mapped vectors: they are not aligned
        if len(queries) == 1:
            np.einsum("d,pd->p", queries[0], right, out=score[part])
        else:
            np.einsum("pd,pd->p", queries[row[part]], right, out=score[part])
    return score


def write_best(result: ScoredItems, start: int, row: np.ndarray, item: np.ndarray, score: np.ndarray) -> None:
    """Writes the best pairs of every row to ``result`` from row ``start`` on: by falling score, then item_idx.

    row (p,) is local to the block; item and score (p,).
    """
    k = result.item_idx.shape[1]
    if len(result.item_idx) == 1:
        best = np.lexsort((item, -score))[:k]
        result.item_idx[0, : len(best)], result.score[0, : len(best)] = item[best], score[best]
        return
    order = np.argsort(_falling(score) << np.uint64(32) | item.astype(np.uint64))
    small = row.astype(np.uint16) if row.max(initial=0) < 2**16 else row
    order = order[np.argsort(small[order], kind="stable")]
    row, item, score = row[order], item[order], score[order]
    place = _place(row)
    keep = place < k
    row, place = row[keep] + start, place[keep]
    result.item_idx[row, place] = item[keep]
    result.score[row, place] = score[keep]


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
    if not np.isfinite(queries).all():
        bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
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
    if indptr.shape != (n + 1,) or indptr[0] != 0 or indptr[-1] != len(item_idx) or (indptr[1:] < indptr[:-1]).any():
        raise DataError(
            f"seen items are not compressed rows of {n} queries: indptr has the shape {indptr.shape}, "
            f"there are {len(item_idx)} items."
        )
    if len(item_idx) and not 0 <= item_idx.min() <= item_idx.max() < m:
        bad = (item_idx < 0) | (item_idx >= m)
        raise DataError(
            f"{int(bad.sum())} of {len(item_idx)} seen items are not in 0..{m - 1} (first: {item_idx[bad][0]}): "
            "history and index come from different runs?"
        )
    return indptr, item_idx
