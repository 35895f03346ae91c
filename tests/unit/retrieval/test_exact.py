"""Exact search against a slow reference, ties, exclusion, padding, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from reckg.errors import ArtifactError, DataError
from reckg.retrieval import blas_threads, exact
from reckg.retrieval.blas_threads import one_blas_thread
from reckg.retrieval.exact import exact_search, write_best
from reckg.retrieval.scored_items import empty_result


def reference(queries: np.ndarray, vectors: np.ndarray, k: int, seen: list[list[int]]) -> list[list[int]]:
    """One query and one item at a time, sorted by falling score and rising item_idx."""
    lists = []
    for query, excluded in zip(queries, seen, strict=True):
        scored = [(-float(query @ vector), item) for item, vector in enumerate(vectors) if item not in excluded]
        lists.append([item for _, item in sorted(scored)[:k]])
    return lists


def compressed(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0] + [len(row) for row in rows])
    return indptr, np.array([item for row in rows for item in row], dtype=np.int64)


def test_equals_the_slow_reference_with_exclusion() -> None:
    rng = np.random.default_rng(0)
    queries = rng.integers(-3, 4, (7, 4)).astype(np.float32)  # integers: many exact ties
    vectors = rng.integers(-3, 4, (30, 4)).astype(np.float32)
    seen = [sorted(rng.choice(30, size=size, replace=False).tolist()) for size in (0, 1, 5, 10, 0, 29, 30)]
    found = exact_search(queries, vectors, 8, compressed(seen), block_users=3)
    expected = reference(queries, vectors, 8, seen)
    assert [[item for item in row if item >= 0] for row in found.item_idx.tolist()] == expected
    assert [len(row) for row in expected] == [8, 8, 8, 8, 8, 1, 0]


def test_scores_are_inner_products_and_padding_is_marked() -> None:
    vectors = np.array([[1, 0], [0, 2]], dtype=np.float32)
    found = exact_search(np.array([[3, 1]], dtype=np.float32), vectors, 4)
    assert found.item_idx.tolist() == [[0, 1, -1, -1]]
    assert found.score.tolist() == [[3.0, 2.0, -np.inf, -np.inf]]


def test_equal_scores_come_by_lower_item_idx_also_at_the_cut() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=64).astype(np.float32)
    vectors = np.tile(one, (501, 1))  # equal in truth; a matrix product may round some of them apart
    vectors[7] *= 2
    found = exact_search(np.tile(one, (33, 1)), vectors, 5)
    assert found.item_idx.tolist() == [[7, 0, 1, 2, 3]] * 33


def test_a_query_gets_the_same_bits_alone_and_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    queries, vectors = rng.normal(size=(50, 48)).astype(np.float32), rng.normal(size=(300, 48)).astype(np.float32)
    batch = exact_search(queries, vectors, 20)
    monkeypatch.setattr(exact, "TILE", 1000)  # many tiles
    small = exact_search(queries, vectors, 20)
    for row in range(len(queries)):
        alone = exact_search(queries[row : row + 1], vectors, 20)
        for other in (batch, small):
            assert np.array_equal(alone.item_idx[0], other.item_idx[row])
            assert np.array_equal(alone.score[0], other.score[row])


def test_the_order_of_the_found_does_not_matter() -> None:
    result = empty_result(2, 2)
    row, item = np.array([0, 0, 0, 1]), np.array([9, 2, 5, 7])
    write_best(result, 0, row, item, np.array([1, 1, 3, 4], dtype=np.float32))
    assert result.item_idx.tolist() == [[5, 2], [7, -1]]
    assert result.score.tolist() == [[3, 1], [4, -np.inf]]


def test_repeats_in_seen_are_allowed() -> None:
    found = exact_search(np.ones((1, 1), np.float32), np.ones((3, 1), np.float32), 3, compressed([[1, 1, 1]]))
    assert found.item_idx.tolist() == [[0, 2, -1]]


def test_no_items_and_no_queries() -> None:
    assert (
        exact_search(np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), 2).item_idx.tolist() == [[-1, -1]] * 2
    )
    assert exact_search(np.zeros((0, 3), np.float32), np.ones((4, 3), np.float32), 2).item_idx.shape == (0, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    good, broken = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    broken[1, 0] = bad
    with pytest.raises(DataError, match=r"1 of 3 queries .*first: row 1"):
        exact_search(broken, good, 1)
    with pytest.raises(ArtifactError, match=r"1 of 3 item vectors .*first: item_idx 1"):
        exact_search(good, broken, 1)


def test_wrong_arguments_are_refused() -> None:
    queries, vectors = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    with pytest.raises(ArtifactError, match="3 dimensions"):
        exact_search(queries[:, :2], vectors, 1)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        exact_search(queries, vectors, 0)
    with pytest.raises(ValueError, match="block_users"):
        exact_search(queries, vectors, 1, block_users=0)
    with pytest.raises(DataError, match=r"1 of 2 seen items are not in 0\.\.3 \(first: -1\)"):
        exact_search(queries, vectors, 1, compressed([[0], [-1]]))
    with pytest.raises(DataError, match="compressed rows of 2 queries"):
        exact_search(queries, vectors, 1, compressed([[0]]))


@pytest.fixture()
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search is large: its floors are guessed from every fourth item, tiles are narrow, blocks run in threads."""
    monkeypatch.setattr(exact, "MANY_SCORES", 1)
    monkeypatch.setattr(exact, "STRIDE", 4)
    monkeypatch.setattr(exact, "TILE", 300)


@pytest.mark.parametrize(
    "trick", ["none", "sample is best", "sample is worst", "best come last", "all tie", "few left"]
)
def test_a_large_search_equals_the_slow_reference(trick: str, large: None) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.integers(-3, 4, (400, 4)).astype(np.float32)
    queries = rng.integers(-3, 4, (20, 4)).astype(np.float32)
    queries[5] = 0
    length = rng.integers(0, 60, 20)
    if trick == "few left":  # to every second query, and all scores are below zero
        length[::2], vectors, queries = 388, -abs(vectors) - 1, abs(queries) + 1
    length[0] = 400
    if trick.startswith("sample"):
        vectors[::4] = np.ceil(vectors[::4] * 9 if trick == "sample is best" else vectors[::4] / 9)
    if trick == "best come last":
        vectors = vectors[np.argsort((vectors**2).sum(axis=1))]
    if trick == "all tie":
        vectors[:] = 1
    seen = [sorted(rng.choice(400, size=size, replace=False).tolist()) for size in length]
    found = exact_search(queries, vectors, 7, compressed(seen), block_users=6)
    assert [[item for item in row if item >= 0] for row in found.item_idx.tolist()] == reference(
        queries, vectors, 7, seen
    )


def test_a_large_search_gives_the_bits_of_a_small_one(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    queries, vectors = rng.normal(size=(30, 24)).astype(np.float32), rng.normal(size=(900, 24)).astype(np.float32)
    found = exact_search(queries, vectors, 12, block_users=7)
    monkeypatch.setattr(exact, "MANY_SCORES", 2**40)
    small = exact_search(queries, vectors, 12)
    assert np.array_equal(found.item_idx, small.item_idx) and np.array_equal(found.score, small.score)


def test_a_matrix_product_may_round_as_it_likes(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    queries, vectors = np.ones((4, 64), np.float32), np.repeat(rng.random((40, 64), dtype=np.float32), 30, axis=0)
    expected = exact_search(queries, vectors, 45)
    product = np.matmul

    def rough(one: np.ndarray, other: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        scores = product(one, other, out=out)
        scores *= 1 + rng.uniform(-1e-6, 1e-6, scores.shape).astype(np.float32)
        return scores

    for many in (1, 2**40):
        monkeypatch.setattr(exact, "MANY_SCORES", many)
        with monkeypatch.context() as patch:
            patch.setattr(np, "matmul", rough)
            found = exact_search(queries, vectors, 45)
        assert np.array_equal(found.item_idx, expected.item_idx) and np.array_equal(found.score, expected.score)


def test_a_query_of_zeros_does_not_hold_a_pair_for_every_item(large: None) -> None:
    queries, vectors = np.zeros((3, 4), np.float32), np.ones((10_000, 4), np.float32)
    row, _ = exact._contend(queries, vectors, 2.0, 5, None)
    assert len(row) <= exact.TILE + 3 * 5
    assert exact_search(queries, vectors, 5).item_idx.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_blas_has_one_thread_inside_and_gets_its_threads_back_after_the_last() -> None:
    def now() -> set[int]:
        return {library.num_threads for library in blas_threads._libraries()}

    with threadpool_limits(2, user_api="blas"):
        with one_blas_thread() as before:
            with one_blas_thread() as same:
                assert (before, same, now()) == (2, 2, {1})
            assert now() == {1}
        assert now() == {2}
