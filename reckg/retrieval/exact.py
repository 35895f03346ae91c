"""Exact search for the best k items of every query by inner product, and the order of all lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from reckg.arrays.extended_array import Array
from reckg.arrays.ragged_rows import Rows, take_rows
from reckg.errors import ArtifactError, DataError
from reckg.retrieval.blas_threads import one_blas_thread
from reckg.retrieval.scored_items import ScoredItems, empty_result

TILE = 2**19  # scores per matrix product: 2 MiB of float32, so that they are read again from the cache
PAIRS_AT_ONCE = 2**12
STRIDE = 16
LEAST = np.finfo(np.float32).min
MANY_SCORES = 2**26  # from this number on, blocks of queries are searched in parallel


def exact_search(
    queries: np.ndarray, vectors: np.ndarray, k: int, seen: Rows | None = None, block_users: int = 256
) -> ScoredItems:
    """Finds the k items with the highest inner product of every query.

    Equal scores are ordered by the lower item_idx. A score depends on its query and its item alone, so that a batch and
    a single query agree to the last bit. Large searches use as many threads as BLAS may. Memory beside queries, vectors
    and lists is a few megabytes per thread.

    Args:
        queries: (n, d) float32, finite.
        vectors: (m, d) float32, finite; row i is item_idx i.
        k: length of the lists, k >= 1.
        seen: items to leave out of query q: ``item_idx[indptr[q]:indptr[q + 1]]``; repeats are allowed.
        block_users: most queries scored at once.
    Returns:
        item_idx and score (n, k); padded with -1 and -inf if fewer than k items are left.
    Raises:
        DataError: a query is not finite, or an item of ``seen`` is not in 0..m-1.
        ArtifactError: queries and vectors differ in dimension, or the vectors are not finite.
        ValueError: k < 1, block_users < 1.
    """
    vectors = check_vectors(vectors)
    queries = check_queries(queries, vectors.shape[1], k)
    if block_users < 1:
        raise ValueError(f"block_users must be >= 1, got {block_users}")
    if seen is not None:
        seen = check_seen(seen, len(queries), len(vectors))
    return search_checked(queries, vectors, k, seen, block_users)


def search_checked(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    seen: Rows | None,
    block_users: int = 256,
    longest: float | None = None,
) -> ScoredItems:
    """Searches as ``exact_search``, without checks.

    Args:
        queries: (n, d) float32, contiguous, finite.
        vectors: (m, d) float32, contiguous, finite.
        seen: compressed rows with items in 0..m-1.
        longest: ``longest_vector(vectors)``, if known.
    Returns:
        (n, k) items.
    """
    n, m = len(queries), len(vectors)
    result = empty_result(n, k)
    if n == 0 or m == 0:
        return result
    longest = longest_vector(vectors) if longest is None else longest
    if n == 1:
        item = _contend_for_query(queries[0], vectors, longest, k, None if seen is None else seen[1])
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
            row, item = _contend(queries[rows], vectors, longest, k, part)
        else:
            row, item = _contend_from_guess(queries[rows], lifted, longest, k, part)
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
    """Computes the greatest length of (m, d) vectors."""
    return float(np.sqrt(np.einsum("md,md->m", vectors, vectors).max(initial=0)))


def _contend_for_query(
    query: np.ndarray, vectors: np.ndarray, longest: float, k: int, seen: np.ndarray | None
) -> np.ndarray:
    """Finds the items that may be among the k best of a single query, as ``_contend``.

    Args:
        query: (d,) float32.
        seen: item_idx to leave out.
    Returns:
        (p,) item_idx.
    """
    scores = vectors @ query
    if seen is not None:
        scores[seen] = -np.inf
    error = _bound_product_error(query[None], longest)
    floor = _raise_floor(np.full(1, LEAST, dtype=np.float32), _kth_of_groups(scores[:, None], k), error)
    return np.flatnonzero(scores >= floor)


def _bound_product_error(queries: np.ndarray, longest: float) -> np.ndarray:
    """Bounds the rounding error of the scores of a matrix product, (n,) float32."""
    norm = np.linalg.norm(queries.astype(np.float64), axis=1)
    return np.asarray(4 * np.finfo(np.float32).eps * queries.shape[1] * longest * norm, dtype=np.float32)


def _contend_from_guess(
    queries: np.ndarray, lifted: np.ndarray, longest: float, k: int, seen: Rows | None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds contenders as ``_contend``, faster for many items: the floors start from a guess.

    The guess comes from the scores of every STRIDE-th item and is probably reached by a few more than k items. Rows
    that are reached by fewer items are searched again without a guess.

    Args:
        lifted: (m, d + 1) float32, the vectors and a column of ones.
    Returns:
        Pairs (row, item), both (p,) int64.
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
    expected = k / STRIDE  # items of the k best in the sample
    guess = _kth_of_groups(scores, int(np.ceil(expected + 4 * np.sqrt(expected) + 2)))
    out_of_reach = 1 + 2 * longest * np.linalg.norm(queries, axis=1)  # if too few items are left to guess from
    guess = np.where(np.isfinite(guess), guess, out_of_reach)
    row, item = _contend(queries, lifted, longest, k, seen, guess)
    short = np.flatnonzero(np.bincount(row, minlength=n) < k)
    if len(short):
        kept, part = ~np.isin(row, short), None if seen is None else take_rows(seen, short)
        again = _contend(queries[short], lifted[:, :dim], longest, k, part)
        row, item = np.append(row[kept], short[again[0]]), np.append(item[kept], again[1])
    return row, item


def _contend(
    queries: np.ndarray,
    vectors: np.ndarray,
    longest: float,
    k: int,
    seen: Rows | None,
    guess: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the items that may be among the k best of every query.

    The items are scored tile by tile. A score below the floor of its query is dropped at once. The floor rises to the
    k-th best score so far, minus the error of the matrix product, whose rounding differs from pair to pair.

    Args:
        guess: (n,) initial floors. A row whose guess is too high gets fewer than k items. With a guess the vectors
            have a last column of ones, by which the product subtracts the floor: comparing with a single number takes
            half the time.
    Returns:
        Pairs (row, item), both (p,) int64.
    """
    n, m = len(queries), len(vectors)
    width = min(m, max(1, TILE // n))
    scores, reached = np.empty((width, n), dtype=np.float32), np.empty((width, n), dtype=bool)
    error = _bound_product_error(queries, longest)
    zero = ~queries.any(axis=1)
    floor = np.full(n, LEAST, dtype=np.float32)
    if guess is not None:
        floor = _raise_floor(floor, guess, error)
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
            floor = bar = _raise_floor(floor, _kth_of_groups(tile, k), error)
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
            floor = _raise_floor(floor, _kth_best(row, score, n, k), error)
            good = score >= floor[row]
            kept = [(row[good], item[good], score[good])]
        # A query of zeros scores all items alike: a later one is never among the best.
        bar = np.where(zero & (floor > LEAST), np.nextafter(floor, np.float32(np.inf)), floor)
        if guess is not None:
            queries[:, -1] = -bar
    return kept[0][0].astype(np.int64), kept[0][1].astype(np.int64)


def _kth_of_groups(tile: np.ndarray, k: int) -> np.ndarray:
    """Bounds the k-th highest score of every query from below.

    Args:
        tile: (m, n) scores.
    Returns:
        (n,) the k-th highest maximum over groups of items.
    """
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
    """Finds the k-th highest score of every row.

    Args:
        row: (p,) rising.
        score: (p,) float32.
    Returns:
        (n,) float32; -inf for a row with fewer scores.
    """
    place = _places_in_rows(row)
    width = int(place.max(initial=-1)) + 1
    if width < k:
        return np.full(n, -np.inf, dtype=np.float32)
    table = np.full((n, width), -np.inf, dtype=np.float32)
    table[row, place] = score
    return np.sort(table, axis=1)[:, width - k]


def _places_in_rows(row: np.ndarray) -> np.ndarray:
    """Numbers the entries within their rows, from 0; ``row`` rises."""
    count = np.bincount(row)
    return np.asarray(np.arange(len(row)) - (np.cumsum(count) - count)[row])


def _by_item(seen: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Converts compressed rows to pairs (item, row), by rising item."""
    order = np.argsort(seen[1], kind="stable")
    return seen[1][order], np.repeat(np.arange(len(seen[0]) - 1), np.diff(seen[0]))[order]


def _raise_floor(floor: np.ndarray, kth: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Raises floors to the k-th best scores minus the error; -inf raises nothing. All arrays are (n,)."""
    return np.asarray(np.maximum(floor, np.where(np.isfinite(kth), kth - error, floor)))


def _invert_order(score: np.ndarray) -> np.ndarray:
    """Converts float32 scores to uint64 keys below 2**32 that rise as scores fall. The two zeros get equal keys."""
    bits = (score + np.float32(0)).view(np.int32)
    return np.where(bits < 0, bits, bits ^ np.int32(0x7FFFFFFF)).view(np.uint32).astype(np.uint64)


def pair_scores(queries: np.ndarray, vectors: Array, row: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Computes inner products of the pairs (queries[row], vectors[item]), each independently of the others.

    Args:
        queries: (n, d) float32.
        vectors: (m, d) float32.
        row, item: (p,) int64.
    Returns:
        (p,) float32.
    """
    score = np.empty(len(row), dtype=np.float32)
    for start in range(0, len(row), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        right = vectors[item[part]]  # take() would copy all of FAISS's mapped vectors, which are not aligned
        if len(queries) == 1:
            np.einsum("d,pd->p", queries[0], right, out=score[part])
        else:
            np.einsum("pd,pd->p", queries[row[part]], right, out=score[part])
    return score


def write_best(result: ScoredItems, start: int, row: np.ndarray, item: np.ndarray, score: np.ndarray) -> None:
    """Writes the best pairs of every row, by falling score, then item_idx.

    Args:
        result: written from row ``start`` on.
        row: (p,) int64, counted from ``start``.
        item, score: (p,).
    """
    k = result.item_idx.shape[1]
    if len(result.item_idx) == 1:
        best = np.lexsort((item, -score))[:k]
        result.item_idx[0, : len(best)], result.score[0, : len(best)] = item[best], score[best]
        return
    order = np.argsort(_invert_order(score) << np.uint64(32) | item.astype(np.uint64))
    small = row.astype(np.uint16) if row.max(initial=0) < 2**16 else row
    order = order[np.argsort(small[order], kind="stable")]
    row, item, score = row[order], item[order], score[order]
    place = _places_in_rows(row)
    keep = place < k
    row, place = row[keep] + start, place[keep]
    result.item_idx[row, place] = item[keep]
    result.score[row, place] = score[keep]


def check_queries(queries: np.ndarray, dim: int, k: int) -> np.ndarray:
    """Converts queries to (n, dim) float32, contiguous. Raises as ``exact_search``."""
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


def check_vectors(vectors: np.ndarray) -> np.ndarray:
    """Converts vectors to (m, d) float32, contiguous. Raises ArtifactError for a wrong shape or value."""
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


def check_seen(seen: Rows, n: int, m: int) -> Rows:
    """Converts compressed rows to int64. Raises DataError if they do not fit n queries and m items."""
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
