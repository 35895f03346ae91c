from __future__ import annotations

import math

import numpy as np
import pytest

from reckg.arrays.ragged_rows import hit_matrix
from reckg.metrics.ranking import METRICS, ranking_metrics
from tests.reference import hit_at_k, map_at_k, mrr_at_k, ndcg_at_k, precision_at_k, recall_at_k

RANKED = np.array([7, 3, 9, 1, 4])
RELEVANT = np.array([3, 4, 8])  # hits at places 2 and 5, item 8 is missed


def test_values_worked_out_by_hand() -> None:
    assert recall_at_k(RANKED, RELEVANT, 5) == pytest.approx(2 / 3)
    assert recall_at_k(RANKED, RELEVANT, 1) == 0.0
    assert mrr_at_k(RANKED, RELEVANT, 5) == 0.5
    assert mrr_at_k(RANKED, RELEVANT, 1) == 0.0
    assert hit_at_k(RANKED, RELEVANT, 2) == 1.0
    assert hit_at_k(RANKED, RELEVANT, 1) == 0.0
    assert precision_at_k(RANKED, RELEVANT, 5) == pytest.approx(2 / 5)
    assert map_at_k(RANKED, RELEVANT, 5) == pytest.approx((1 / 2 + 2 / 5) / 3)
    assert map_at_k(RANKED, RELEVANT, 2) == pytest.approx(1 / 2 / 2)
    gain = 1 / math.log2(3) + 1 / math.log2(6)
    assert ndcg_at_k(RANKED, RELEVANT, 5) == pytest.approx(gain / (1 + 1 / math.log2(3) + 1 / math.log2(4)))


def test_the_ideal_of_ndcg_counts_items_that_were_not_retrieved() -> None:
    """With the only hit in first place, an ideal over retrieved hits alone would give 1."""
    assert ndcg_at_k(np.array([3, 1]), np.array([3, 8]), 2) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    # More held-out items than places: the ideal list is full.
    assert ndcg_at_k(np.array([3, 4]), np.array([3, 4, 8]), 2) == 1.0


def test_a_list_that_ends_early_is_not_repaired() -> None:
    short = np.array([[3, -1, -1]])
    found = ranking_metrics(short, (np.array([0, 2]), np.array([3, 4])), (2, 10))
    assert found["recall@10"][0] == 0.5
    assert found["ndcg@2"][0] == found["ndcg@10"][0] == ndcg_at_k(short[0], np.array([3, 4]), 10) < 1.0


def test_padding_is_never_a_hit() -> None:
    assert not hit_matrix(np.array([[-1, -1], [0, -1]]), (np.array([0, 1, 2]), np.array([0, 1]))).any()
    # Row 1's padding must not be taken for the last item of row 0 either.
    assert not hit_matrix(np.array([[0], [-1]]), (np.array([0, 1, 2]), np.array([5, 0]))).any()


def test_metrics_of_many_users() -> None:
    lists = np.array([[7, 3, 9, 1, 4], [0, 1, 2, 3, 4]])
    found = ranking_metrics(lists, (np.array([0, 3, 4]), np.array([3, 4, 8, 0])), (1, 5))
    assert sorted(found) == sorted(f"{name}@{k}" for name in METRICS for k in (1, 5))
    np.testing.assert_allclose(found["recall@5"], [2 / 3, 1.0])
    np.testing.assert_allclose(found["mrr@5"], [0.5, 1.0])
    np.testing.assert_allclose(found["hit@1"], [0.0, 1.0])
    np.testing.assert_allclose(found["ndcg@5"], [ndcg_at_k(lists[0], np.array([3, 4, 8]), 5), 1.0])


def test_lists_without_any_place() -> None:
    found = ranking_metrics(np.empty((1, 0), dtype=np.int64), (np.array([0, 1]), np.array([2])), (10,))
    assert {name: float(value[0]) for name, value in found.items()} == {
        "recall@10": 0.0,
        "ndcg@10": 0.0,
        "mrr@10": 0.0,
        "hit@10": 0.0,
        "map@10": 0.0,
        "precision@10": 0.0,
    }


@pytest.mark.parametrize("metric", [recall_at_k, ndcg_at_k, mrr_at_k, hit_at_k])
def test_undefined_metrics_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match="no held-out item"):
        metric(RANKED, np.array([], dtype=np.int64), 5)  # type: ignore[operator]
    with pytest.raises(ValueError, match="k must be"):
        metric(RANKED, RELEVANT, 0)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("lists", "indptr", "items", "ks", "message"),
    [
        ([[1, 1]], [0, 1], [1], (2,), "twice"),
        ([[1, 2]], [0, 2], [1, 1], (2,), "twice"),
        ([[1, 2]], [0, 0], [], (2,), "no held-out item"),
        ([[1, 2]], [0, 1], [1], (0,), "cut-offs"),
        ([[1, 2]], [0, 1, 2], [1, 2], (2,), "1 lists but 2 rows"),
    ],
)
def test_wrong_input_is_refused(
    lists: list[list[int]], indptr: list[int], items: list[int], ks: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ranking_metrics(np.array(lists), (np.array(indptr), np.array(items, dtype=np.int64)), ks)
