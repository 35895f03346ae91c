"""The figures beside accuracy equal slow ones for whatever lists, histories and attributes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from reckg.arrays.ragged_rows import rows_of_pairs
from reckg.data.history import History
from reckg.evaluation.beyond_accuracy import (
    Catalog,
    gini_index,
    gini_interval,
    item_exposure,
    shannon_entropy,
    user_figures,
    value_exposure,
)
from reckg.metrics.ranking import ranking_metrics
from tests import reference

N_ITEMS, K = 9, 4
VALUES = ("x", "y", "z")
lists_of_k = st.lists(
    st.lists(st.integers(0, N_ITEMS - 1), unique=True, min_size=K, max_size=K), min_size=1, max_size=6
)
attributes = st.lists(st.sets(st.sampled_from(VALUES), max_size=3), min_size=N_ITEMS, max_size=N_ITEMS)
subsets = st.sets(st.integers(0, N_ITEMS - 1), min_size=1, max_size=6)


def shares(values: list[set[str]]) -> sparse.csr_matrix:
    dense = [[(v in own) / max(len(own), 1) for v in VALUES] for own in values]
    return sparse.csr_matrix(np.array(dense))


@given(lists_of_k)
def test_figures_of_all_lists_together(lists: list[list[int]]) -> None:
    array = np.array(lists, dtype=np.int32)
    exposure = item_exposure(array, N_ITEMS)
    assert gini_index(exposure) == pytest.approx(reference.slow_gini(lists, N_ITEMS), abs=1e-12)
    entropy = shannon_entropy(exposure) / (exposure > 0).sum()
    assert entropy == pytest.approx(reference.slow_entropy(lists), abs=1e-12)
    interval = gini_interval(array, N_ITEMS)
    assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
    code = np.arange(N_ITEMS) % 3 - 1  # every third item has no provider
    share = value_exposure(array, code, 2)
    for row, ranked in enumerate(lists):
        assert share[row].tolist() == [sum(code[item] == value for item in ranked) / K for value in (0, 1)]


@given(lists_of_k, st.data())
def test_figures_of_a_user(lists: list[list[int]], data: st.DataObject) -> None:
    n = len(lists)
    taken = data.draw(st.lists(subsets, min_size=n, max_size=n))
    wanted = data.draw(st.lists(subsets, min_size=n, max_size=n))
    values = data.draw(attributes)
    count = np.array(data.draw(st.lists(st.integers(0, 20), min_size=N_ITEMS, max_size=N_ITEMS)), dtype=float)
    rows = pl.DataFrame(
        [(user, item) for user in range(n) for item in sorted(taken[user])], ["user_idx", "item_idx"], orient="row"
    )
    pairs = np.array([(user, item) for user in range(n) for item in wanted[user]])
    relevant = rows_of_pairs(pairs[:, 0], pairs[:, 1], n)
    tail = count < 5
    catalog = Catalog(count, 20, shares(values), shares(values), tail)
    expected = np.tile(np.argsort(-count, kind="stable")[:K], (n, 1))
    array = np.array(lists, dtype=np.int32)
    found = user_figures(array, np.arange(n), relevant, History.from_interactions(rows, n), catalog, expected)
    dense = shares(values).toarray()
    for user, ranked in enumerate(lists):
        popularity = count[ranked].mean()
        assert found["popularity"][user] == pytest.approx(popularity)
        assert found["novelty"][user] == pytest.approx(np.mean([-np.log2((count[i] + 1) / 21) for i in ranked]))
        before = count[sorted(taken[user])].mean()
        lift = popularity / before - 1 if before else np.nan
        assert found["popularity_lift"][user] == pytest.approx(lift, nan_ok=True)
        assert found["tail"][user] == sum(tail[item] for item in ranked) / K
        hits = [i for i in ranked if i in wanted[user] and i not in expected[user].tolist()]
        assert found["serendipity"][user] == len(hits) / K
        known = [dense[item].tolist() for item in ranked if values[item]]
        slow = reference.slow_intra_list_diversity(known) if len(known) > 1 else np.nan
        assert found["diversity"][user] == pytest.approx(slow, abs=1e-9, nan_ok=True)
        mine, shown = ([values[i] for i in items if values[i]] for items in (taken[user], ranked))
        slow = reference.slow_miscalibration(mine, shown) if mine and shown else np.nan
        assert found["miscalibration"][user] == pytest.approx(slow, abs=1e-9, nan_ok=True)


@given(lists_of_k, st.data())
def test_means_over_users_are_recboles(lists: list[list[int]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(subsets, min_size=len(lists), max_size=len(lists)))
    pairs = np.array([(user, item) for user in range(len(lists)) for item in wanted[user]])
    found = ranking_metrics(np.array(lists), rows_of_pairs(pairs[:, 0], pairs[:, 1], len(lists)), (K,))
    for name in ("recall", "mrr", "ndcg", "hit", "precision", "map"):
        one = getattr(reference, f"slow_{name}")
        slow = sum(one(ranked, target, K) for ranked, target in zip(lists, wanted, strict=True)) / len(lists)
        assert found[f"{name}@{K}"].mean() == pytest.approx(slow, abs=1e-9)
