"""What holds for every list: the vectorised metrics equal the slow ones and keep their bounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.arrays.ragged_rows import rows_of_pairs, take_rows
from reckg.evaluation.baselines import top_items
from reckg.metrics import ranking as metrics
from tests import reference

N_ITEMS = 12
one_list = st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=N_ITEMS)
one_target = st.sets(st.integers(0, N_ITEMS - 1), min_size=1, max_size=N_ITEMS)
worlds = st.lists(st.tuples(one_list, one_target), min_size=1, max_size=6)
cutoffs = st.lists(st.integers(1, 15), min_size=1, max_size=4, unique=True)


def arrays(world: list[tuple[list[int], set[int]]]) -> tuple[np.ndarray, metrics.Rows]:
    width = max(len(ranked) for ranked, _ in world)
    lists = np.full((len(world), width), -1, dtype=np.int64)
    for row, (ranked, _) in enumerate(world):
        lists[row, : len(ranked)] = ranked
    indptr = np.cumsum([0, *(len(target) for _, target in world)])
    return lists, (indptr, np.concatenate([list(target) for _, target in world]))


@given(worlds, cutoffs)
def test_fast_metrics_equal_slow_ones(world: list[tuple[list[int], set[int]]], ks: list[int]) -> None:
    lists, relevant = arrays(world)
    found = metrics.ranking_metrics(lists, relevant, ks)
    one = {name: getattr(reference, f"{name}_at_k") for name in metrics.METRICS}
    for k in ks:
        for name in metrics.METRICS:
            slow = [getattr(reference, f"slow_{name}")(ranked, target, k) for ranked, target in world]
            np.testing.assert_allclose(found[f"{name}@{k}"], slow, atol=1e-12)
            single = [one[name](lists[row], np.array(list(target)), k) for row, (_, target) in enumerate(world)]
            np.testing.assert_allclose(single, slow, atol=1e-12)


@given(worlds, cutoffs)
def test_metrics_lie_between_zero_and_one_and_order_as_they_must(
    world: list[tuple[list[int], set[int]]], ks: list[int]
) -> None:
    lists, relevant = arrays(world)
    found = metrics.ranking_metrics(lists, relevant, ks)
    for values in found.values():
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    for k in ks:
        assert (found[f"mrr@{k}"] <= found[f"hit@{k}"]).all()
        assert (found[f"recall@{k}"] <= found[f"hit@{k}"]).all()
        assert (found[f"precision@{k}"] * k <= found[f"recall@{k}"] * N_ITEMS + 1e-12).all()
        for longer in (other for other in ks if other > k):
            assert (found[f"recall@{k}"] <= found[f"recall@{longer}"]).all()
            assert (found[f"mrr@{k}"] <= found[f"mrr@{longer}"]).all()


@given(st.lists(one_target, min_size=1, max_size=6), st.integers(1, 15))
def test_the_perfect_list_has_ndcg_one(targets: list[set[int]], k: int) -> None:
    world = [(sorted(target) + sorted(set(range(N_ITEMS)) - target), target) for target in targets]
    lists, relevant = arrays(world)
    found = metrics.ranking_metrics(lists, relevant, (k,))
    for name in ("ndcg", "mrr", "hit"):
        np.testing.assert_allclose(found[f"{name}@{k}"], 1.0)
    np.testing.assert_allclose(found[f"recall@{k}"], [min(1.0, k / len(target)) for target in targets])


@given(worlds, st.permutations(range(N_ITEMS)))
def test_the_names_of_items_do_not_matter(world: list[tuple[list[int], set[int]]], names: list[int]) -> None:
    renamed = [([names[item] for item in ranked], {names[item] for item in target}) for ranked, target in world]
    before, after = (metrics.ranking_metrics(*arrays(w), (3, 10)) for w in (world, renamed))
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


@settings(max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-30, -1e-30, 2.0, 2.5]), min_size=7, max_size=7),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 9),
)
def test_top_items_order_ties_by_the_lower_item(rows: list[list[float]], k: int) -> None:
    scores = np.array(rows, dtype=np.float32)
    found = top_items(scores, k)
    assert found.item_idx.shape == found.score.shape == (len(rows), k)
    for row, values in enumerate(rows):
        seen = {item for item, value in enumerate(values) if value == -np.inf}
        expected = reference.slow_top_items(np.float32(values).tolist(), seen, k)
        assert found.item_idx[row].tolist() == expected + [-1] * (k - len(expected))
        shown = found.score[row, : len(expected)]
        np.testing.assert_array_equal(shown, scores[row, expected])
        assert np.isneginf(found.score[row, len(expected) :]).all()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30), st.lists(st.integers(0, 4), max_size=6))
def test_rows_hold_each_pair_once(pairs: list[tuple[int, int]], which: list[int]) -> None:
    user, item = np.array([p[0] for p in pairs], dtype=np.int64), np.array([p[1] for p in pairs], dtype=np.int64)
    rows = rows_of_pairs(user, item, 5)
    indptr, items = take_rows(rows, np.array(which, dtype=np.int64))
    for place, wanted in enumerate(which):
        assert items[indptr[place] : indptr[place + 1]].tolist() == sorted({i for u, i in pairs if u == wanted})
