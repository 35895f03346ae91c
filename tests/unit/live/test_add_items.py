"""What grows behind an array, a sparse matrix, an index and ids: as if the whole had been made at once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from reckg.arrays.extended_array import ExtendedArray
from reckg.arrays.extended_matrix import extend_matrix
from reckg.arrays.ragged_rows import join_rows, kept_entries
from reckg.data.ids import IdMap
from reckg.errors import DataError, UnknownIdError
from reckg.ranking.tables import row_sums as row_sums_module
from reckg.ranking.tables.row_sums import row_entries, row_sums
from reckg.retrieval.extended_index import ExtendedIndex
from reckg.retrieval.index import build_index
from tests.small_bundle import unit_vectors


def test_an_array_is_indexed_as_the_whole_would_be() -> None:
    whole = np.arange(24.0).reshape(8, 3)
    grown = ExtendedArray(ExtendedArray(whole[:5], whole[5:6]), whole[6:])
    assert (len(grown), grown.shape, grown.dtype, grown.ndim) == (8, (8, 3), whole.dtype, 2)
    assert np.shares_memory(grown.base, whole)  # nothing of it was copied
    for rows in (np.array([7, 0, 5, 5]), np.array([[1, 6], [4, 2]]), np.array([1, 2]), slice(4, 7), slice(None), 6, 2):
        np.testing.assert_array_equal(grown[rows], whole[rows])
        np.testing.assert_array_equal(grown[rows, 1], whole[rows, 1])
        np.testing.assert_array_equal(grown[rows, :2], whole[rows, :2])
    np.testing.assert_array_equal(np.asarray(grown), whole)
    out = grown[np.array([1, 2])]
    out[:] = 0
    assert whole[1:3].all()


def grown_and_whole(seed: int) -> tuple[object, sp.csr_matrix]:
    """7 rows and columns, then 10: the new rows have entries, and two of the old have more."""
    rng = np.random.default_rng(seed)
    base = sp.random(7, 7, 0.4, format="csr", random_state=seed, dtype=np.float32)
    row, column = np.array([8, 9, 2, 5, 8]), np.array([0, 3, 8, 9, 6])
    value = rng.random(5, dtype=np.float32)
    grown = extend_matrix(
        extend_matrix(base, (9, 9), row[:1], column[:1], value[:1]), (10, 10), row[1:], column[1:], value[1:]
    )
    whole = sp.lil_matrix((10, 10), dtype=np.float32)
    whole[:7, :7] = base
    whole[row, column] = value
    return grown, whole.tocsr()


@pytest.mark.parametrize("few", [2**16, 0])
def test_a_matrix_has_the_rows_and_sums_of_the_whole(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sums_module, "FEW_ENTRIES", few)
    for seed in range(5):
        grown, whole = grown_and_whole(seed)
        assert grown.nnz == whole.nnz
        rows = np.array([2, 9, 0, 2, 8, 5, 7])
        assert grown.lengths(rows).tolist() == np.diff(whole.indptr)[rows].tolist()
        lengths, column, value = row_entries(grown, rows)
        dense = np.zeros((len(rows), 10))
        dense[np.repeat(np.arange(len(rows)), lengths), column] = value
        np.testing.assert_array_equal(dense, whole[rows].toarray())
        query, weights = np.array([0, 0, 0, 1, 1, 1, 1]), np.random.default_rng(seed).random((2, 7))
        found = row_sums(grown, query, rows, weights, 3)
        expected = row_sums(whole, query, rows, weights, 3)
        everything = np.tile(np.arange(10), (3, 1))
        np.testing.assert_allclose(found.at(everything), expected.at(everything), rtol=1e-12)
        alone = row_sums(grown, query[3:] - 1, rows[3:], [weight[3:] for weight in weights], 1)
        np.testing.assert_array_equal(alone.at(everything[:1])[:, 0], found.at(everything)[:, 1])


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_an_index_finds_what_the_whole_would(kind: str, n: int) -> None:
    vectors, queries = unit_vectors(630, 8, 0), unit_vectors(n, 8, 1)
    first = build_index(vectors[:600], kind=kind, nprobe=10**6)  # type: ignore[arg-type]
    grown = ExtendedIndex(ExtendedIndex(first, vectors[600:601]), vectors[601:])
    whole = build_index(vectors)
    rng = np.random.default_rng(2)
    seen = np.arange(n + 1) * 25, rng.integers(0, 630, 25 * n)
    allowed = rng.random(630) < 0.5
    for some, mask in ((None, None), (seen, None), (None, allowed), (seen, allowed), (seen, np.arange(630) >= 610)):
        found, expected = grown.search(queries, 12, some, mask), whole.search(queries, 12, some, mask)
        if kind != "hnsw":  # which may miss some of the base
            np.testing.assert_array_equal(found.item_idx, expected.item_idx)
            np.testing.assert_array_equal(found.score, expected.score)
        assert (found.item_idx >= 600).sum() == (expected.item_idx >= 600).sum() or kind == "hnsw"
    empty = grown.search(queries, 2, None, np.zeros(630, dtype=bool))
    assert (empty.item_idx == -1).all()


def test_ids_go_on_behind_the_others() -> None:
    ids = IdMap(["a", "b"], "item id")
    grown = ids.extended(["c", "d"]).extended(["c", "e"])
    assert len(grown) == 6 and grown.ids.to_list() == ["a", "b", "c", "d", "c", "e"]
    assert [grown.get(raw) for raw in "abcdex"] == [0, 1, 4, 3, 5, None]
    assert grown.indices(["c", "a"]).tolist() == [4, 0] and "e" in grown and "e" not in ids and len(ids) == 2
    less = grown.without(["c"])
    assert less.get("c") is None and less.get("e") == 5 and grown.get("c") == 4 and len(less) == 6
    assert less.extended(["c"]).get("c") == 6
    with pytest.raises(UnknownIdError, match="unknown item id 'c': not among the 6"):
        less.idx("c")
    with pytest.raises(DataError, match=r"1 of 2 item ids are empty or there already \(first: 'a'\)"):
        grown.extended(["x", "a"])
    with pytest.raises(DataError, match="repeated"):
        grown.extended(["x", "x"])


def test_rows_are_joined_and_thinned() -> None:
    one, other = (np.array([0, 2, 2, 3]), np.array([5, 1, 7])), (np.array([0, 1, 2, 2]), np.array([9, 8]))
    joined = join_rows(one, other)
    assert joined is not None
    assert joined[0].tolist() == [0, 3, 4, 5] and joined[1].tolist() == [5, 1, 9, 8, 7]
    assert join_rows(None, one) is one and join_rows(one, None) is one and join_rows(None, None) is None
    kept = kept_entries(one, one[1] > 1)
    assert kept[0].tolist() == [0, 1, 1, 2] and kept[1].tolist() == [5, 7]
