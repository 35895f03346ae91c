"""What holds for every search: order, no repeats, nothing seen, k where k exist."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.retrieval.exact import exact_search
from reckg.retrieval.faiss_index import Kind
from reckg.retrieval.index import build_index


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["flat", "ivf", "hnsw"]),
    share=st.sampled_from([0.05, 0.5, 1.0]),
    n=st.integers(1, 40),
    m=st.integers(1, 60),
    k=st.integers(1, 70),
    distinct=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_list_is_in_order_without_repeats_and_as_long_as_it_can_be(
    kind: Kind, share: float, n: int, m: int, k: int, distinct: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(n, 4)).astype(np.float32)
    vectors = rng.normal(size=(distinct, 4)).astype(np.float32)[rng.integers(0, distinct, m)]  # ties where few differ
    rows = [rng.integers(0, m, rng.integers(0, 2 * m)) for _ in range(n)]
    seen = np.cumsum([0] + [len(row) for row in rows]), np.concatenate(rows)
    allowed = rng.random(m) < share
    found = build_index(vectors, kind=kind, hnsw_m=4, ef_construction=16).search(queries, k, seen, allowed)
    forbidden = np.flatnonzero(~allowed)
    rows = [np.concatenate([row, forbidden]) for row in rows]
    exact = exact_search(queries, vectors, k, (np.cumsum([0] + [len(row) for row in rows]), np.concatenate(rows)))
    for row, items, score, best in zip(rows, found.item_idx, found.score, exact.score, strict=True):
        some = items >= 0
        assert some.sum() == min(k, m - len(set(row.tolist())))
        assert some[: some.sum()].all()
        assert len(set(items[some].tolist())) == some.sum()
        assert not np.isin(items[some], row).any()
        assert (np.diff(score[some]) <= 0).all()
        assert np.isneginf(score[~some]).all()
        if kind == "flat":
            assert np.array_equal(score, best)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 20), m=st.integers(2, 50), seed=st.integers(0, 2**32 - 1))
def test_relabelling_the_items_permutes_the_lists(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, vectors = rng.normal(size=(n, 5)).astype(np.float32), rng.normal(size=(m, 5)).astype(np.float32)
    order = rng.permutation(m)
    found, relabelled = exact_search(queries, vectors, m), exact_search(queries, vectors[order], m)
    assert np.array_equal(found.score, relabelled.score)
    assert np.array_equal(found.item_idx, order[relabelled.item_idx])
