"""Sums of sparse rows: every way gives the same bits, and the best of them are those of a slow search."""

from __future__ import annotations

from unittest import mock

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.ranking.tables import row_sums as module
from reckg.ranking.tables.row_sums import RowSums, row_sums
from tests.reference import slow_top_items

WAYS = {"dense": (2**16, 10**9), "columns": (2**16, 0), "product": (-1, 16)}


def sums_by(
    way: str, matrix: sp.csr_matrix, query: np.ndarray, row: np.ndarray, weights: np.ndarray, n: int
) -> RowSums:
    few, sparse = WAYS[way]
    with mock.patch.multiple(module, FEW_ENTRIES=few, SPARSE=sparse):
        return row_sums(matrix, query, row, weights, n)


World = tuple[sp.csr_matrix, np.ndarray, np.ndarray, np.ndarray, int, np.random.Generator]


def world(seed: int, rows: int, columns: int, n: int, whole: bool) -> World:
    """A sparse matrix, queries that take some of its rows, perhaps twice, and two weightings."""
    rng = np.random.default_rng(seed)
    density = float(rng.choice([0.0, 0.05, 0.4]))
    dense = np.where(rng.random((rows, columns)) < density, rng.normal(size=(rows, columns)), 0).astype(np.float32)
    length = rng.integers(0, 6, n)
    query, row = np.repeat(np.arange(n), length), rng.integers(0, rows, length.sum())
    weights = rng.integers(0, 3, (2, len(row))).astype(np.float64) if whole else rng.random((2, len(row)))
    matrix = sp.csr_matrix(np.rint(dense) if whole else dense)
    return matrix, query, row, weights, n, rng


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 60), st.integers(1, 8))
def test_all_ways_give_the_same_bits_alone_and_in_a_batch(seed: int, rows: int, columns: int, n: int) -> None:
    matrix, query, row, weights, n, rng = world(seed, rows, columns, n, whole=False)
    asked = rng.integers(0, columns, (n, 9))
    found = {way: sums_by(way, matrix, query, row, weights, n) for way in WAYS}
    dense = np.asarray(matrix.todense(), dtype=np.float64)
    expected = np.zeros((2, n, columns))
    for place in range(len(row)):
        expected[:, query[place]] += weights[:, [place]] * dense[row[place]]
    np.testing.assert_allclose(found["dense"].at(np.tile(np.arange(columns), (n, 1))), expected, atol=1e-6)
    if matrix.nnz and np.isin(row, np.unique(matrix.nonzero()[0])).any():
        assert [sums.columns is None for sums in found.values()] == [True, False, True]
    for way, sums in found.items():
        for weighting in (0, 1):
            assert np.array_equal(sums.at(asked)[weighting], found["dense"].at(asked)[weighting]), way
        best = sums.top(1, 5, None)
        assert np.array_equal(best.item_idx, found["dense"].top(1, 5, None).item_idx), way
        assert np.array_equal(best.score, found["dense"].top(1, 5, None).score), way
    for one in range(n):
        mine = query == one
        for way in WAYS:
            alone = sums_by(
                way, matrix, np.zeros(mine.sum(), dtype=np.int64), row[mine], [each[mine] for each in weights], 1
            )
            assert np.array_equal(alone.at(asked[[one]])[1, 0], found["dense"].at(asked)[1, one]), way


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 25), st.integers(1, 6), st.integers(1, 30))
def test_the_best_sums_above_zero_come_first_and_equal_ones_by_column(
    seed: int, rows: int, columns: int, n: int, k: int
) -> None:
    matrix, query, row, weights, n, rng = world(seed, rows, columns, n, whole=True)  # small whole numbers: many ties
    blocked = [rng.integers(0, columns, rng.integers(0, 6)) for _ in range(n)]
    left_out = np.cumsum([0, *map(len, blocked)]), np.concatenate(blocked)
    allowed = rng.random(columns) < 0.7 if seed % 2 else None
    every = np.tile(np.arange(columns), (n, 1))
    for way in WAYS:
        sums = sums_by(way, matrix, query, row, weights, n)
        values = sums.at(every)[0]
        found = sums.top(0, k, left_out, allowed)
        assert found.item_idx.shape == found.score.shape == (n, k)
        for one in range(n):
            forbidden = set(blocked[one].tolist()) | {c for c in range(columns) if values[one, c] <= 0}
            if allowed is not None:
                forbidden |= set(np.flatnonzero(~allowed).tolist())
            expected = slow_top_items(values[one].tolist(), forbidden, k)
            assert found.item_idx[one].tolist() == expected + [-1] * (k - len(expected)), way
            assert found.score[one, : len(expected)].tolist() == values[one, expected].tolist()
            assert np.isneginf(found.score[one, len(expected) :]).all()
        assert np.array_equal(sums.at(every)[0], values), "top changed the sums"
