"""What holds for every list after diversification."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from reckg.data.history import History
from reckg.ranking.diversity import Diversity, ItemTraits, diversify, limit_share, places_over_limit
from reckg.retrieval.scored_items import ScoredItems

ITEMS = 40


def ranked(n: int, width: int, rng: np.random.Generator) -> ScoredItems:
    """(n, width) lists, some shorter; whole scores, so that some are equal."""
    items = rng.permuted(np.tile(np.arange(ITEMS), (n, 1)), axis=1)[:, :width].astype(np.int64)
    score = -np.sort(-rng.integers(0, 20, (n, width)), axis=1).astype(np.float32)
    short = np.arange(width) >= rng.integers(0, width + 1, n)[:, None] + rng.integers(0, width, n)[:, None]
    return ScoredItems(np.where(short, -1, items), np.where(short, -np.inf, score).astype(np.float32))


def traits(rng: np.random.Generator) -> ItemTraits:
    vectors = rng.normal(size=(ITEMS, 4)).astype(np.float32) * (rng.random((ITEMS, 1)) < 0.9)
    values = (rng.random((ITEMS, 6)) < 0.3).astype(float)
    values /= np.maximum(values.sum(axis=1, keepdims=True), 1)
    return ItemTraits(vectors.astype(np.float32), sparse.csr_matrix(values), rng.integers(-1, 5, ITEMS))


def history(n: int, rng: np.random.Generator) -> History:
    rows = rng.integers(0, n, 3 * n), rng.integers(0, ITEMS, 3 * n)
    return History.from_interactions(pl.DataFrame({"user_idx": rows[0], "item_idx": rows[1]}), n)


@settings(max_examples=120, deadline=None)
@given(
    strategy=st.sampled_from(["none", "mmr", "calibrated", "provider"]),
    weight=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    n=st.integers(1, 6),
    width=st.integers(1, 30),
    candidates=st.integers(1, 30),
    k=st.integers(1, 35),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_list_after_diversification(
    strategy: str, weight: float, n: int, width: int, candidates: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    found, of_items, taken = ranked(n, width, rng), traits(rng), history(n, rng)
    limit = int(rng.integers(1, 4))
    how = Diversity(strategy, weight, "genres", "seller", limit)  # type: ignore[arg-type]
    users = np.arange(n)
    answer = diversify(found, k, candidates, how, of_items, taken, users)
    assert answer.item_idx.shape == answer.score.shape == (n, min(k, width))
    assert (answer.score[:, 1:] <= answer.score[:, :-1]).all()
    head = min(candidates, width)
    for row in range(n):
        items = answer.item_idx[row]
        real = items[items >= 0]
        assert len(set(real.tolist())) == len(real) == min(k, int((found.item_idx[row] >= 0).sum()))
        assert (items[len(real) :] == -1).all() and np.isneginf(answer.score[row, len(real) :]).all()
        assert set(real[:head]) <= set(found.item_idx[row, :head].tolist())
        assert np.array_equal(items[head:], found.item_idx[row, head:k])
        alone = ScoredItems(found.item_idx[row : row + 1], found.score[row : row + 1])
        single = diversify(alone, k, candidates, how, of_items, taken, users[row : row + 1])
        assert np.array_equal(single.item_idx[0], items) and np.array_equal(single.score[0], answer.score[row])
    if strategy == "none" or (strategy != "provider" and weight == 0):
        assert np.array_equal(answer.item_idx, found.item_idx[:, :k])
        assert np.array_equal(answer.score, found.score[:, :k])
    if k > 1:
        shorter = diversify(found, k - 1, candidates, how, of_items, taken, users)
        assert np.array_equal(shorter.item_idx, answer.item_idx[:, : k - 1])
    if strategy == "provider":
        assert of_items.provider is not None
        over = places_over_limit(answer.item_idx[:, :head], of_items.provider, limit)
        for row in np.flatnonzero(over):  # then no other candidate was left
            left = set(found.item_idx[row, :head].tolist()) - set(answer.item_idx[row].tolist()) - {-1}
            listed = np.bincount(of_items.provider[answer.item_idx[row, :head]] + 1, minlength=7)
            assert all(of_items.provider[item] >= 0 and listed[of_items.provider[item] + 1] >= limit for item in left)


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 8), width=st.integers(1, 12), k=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_a_share_of_the_batch(n: int, width: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, provider, share = ranked(n, width, rng), rng.integers(-1, 4, ITEMS), rng.random()
    answer, over = limit_share(found, k, provider, share)
    assert answer.item_idx.shape == (n, min(k, width))
    listed = answer.item_idx[answer.item_idx >= 0]
    places = np.bincount(provider[listed] + 1, minlength=5)[1:]
    assert np.maximum(places - int(share * n * k), 0).sum() <= over
    if not over:
        assert (places <= int(share * n * k)).all()
    for row in range(n):
        items = answer.item_idx[row][answer.item_idx[row] >= 0]
        assert len(set(items.tolist())) == len(items) == min(k, int((found.item_idx[row] >= 0).sum()))
        assert set(items.tolist()) <= set(found.item_idx[row].tolist())
