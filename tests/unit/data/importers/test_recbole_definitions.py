"""Golden cases of RecBole's definitions, worked out by hand: ours and the slow reference must both give them.

RecBole's names: recall, mrr, ndcg, hit, precision, map, itemcoverage, averagepopularity, shannonentropy, giniindex,
tailpercentage. Two of ours are another thing under a like name: our entropy is not divided by the number of items
shown, which is tested here, and the report's long tail is by share of interactions, not by number of items.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from reckg.arrays.ragged_rows import Rows
from reckg.evaluation.beyond_accuracy import gini_index, item_exposure, shannon_entropy
from reckg.evaluation.protocol import evaluate_system
from reckg.metrics.ranking import ranking_metrics
from reckg.retrieval.scored_items import ScoredItems
from tests import reference

# Six items. User 0 is held out 1, 2, 3, user 1 item 5, user 2 items 0 and 4; hits: o, misses: .
LISTS = [[1, 0, 2, 4], [0, 1, 2, 5], [3, 1, 2, 5]]  # o . o .     . . . o     . . . .
WANTED = [{1, 2, 3}, {5}, {0, 4}]
COUNT = {0: 10, 1: 6, 2: 4, 3: 2, 4: 1}  # interactions in training; item 5 has none
K = 4
DISCOUNT = [1 / math.log2(place + 1) for place in (1, 2, 3, 4)]
GOLDEN = {
    "recall": (2 / 3 + 1 + 0) / 3,
    "hit": 2 / 3,
    "mrr": (1 + 1 / 4) / 3,
    "precision": (2 / 4 + 1 / 4) / 3,
    # User 0: precision 1 at the first hit, 2/3 at the second, over min(4, 3); user 1: 1/4 over 1.
    "map": ((1 + 2 / 3) / 3 + 1 / 4) / 3,
    "ndcg": ((DISCOUNT[0] + DISCOUNT[2]) / sum(DISCOUNT[:3]) + DISCOUNT[3]) / 3,
}
# The places: item 0 twice, 1 three times, 2 three times, 3 once, 4 once, 5 twice, of 12.
PLACES = [2, 3, 3, 1, 1, 2]


def rows() -> Rows:
    return np.cumsum([0, *(len(target) for target in WANTED)]), np.concatenate([sorted(t) for t in WANTED])


@pytest.mark.parametrize("name", list(GOLDEN))
def test_means_over_users(name: str) -> None:
    one = getattr(reference, f"slow_{name}")
    slow = sum(one(ranked, target, K) for ranked, target in zip(LISTS, WANTED, strict=True)) / 3
    assert slow == pytest.approx(GOLDEN[name], abs=1e-9)
    assert ranking_metrics(np.array(LISTS), rows(), (K,))[f"{name}@{K}"].mean() == pytest.approx(GOLDEN[name], abs=1e-9)


def test_map_counts_no_more_held_out_items_than_the_list_has_places() -> None:
    """Both places hit, five held out: 1, where TREC's average precision would be 2/5."""
    found = ranking_metrics(np.array([[0, 1]]), (np.array([0, 5]), np.arange(5)), (2,))["map@2"]
    assert found[0] == reference.slow_map([0, 1], set(range(5)), 2) == 1.0


def test_coverage() -> None:
    lists = np.array(LISTS)
    found = evaluate_system(
        lambda users: ScoredItems(lists[users], -lists[users]), np.arange(3), rows(), (1, K), n_items=6
    )
    assert found.coverage[f"coverage@{K}"]["mean"] == reference.slow_coverage(LISTS, 6, K) == 1.0
    assert found.coverage["coverage@1"]["mean"] == reference.slow_coverage(LISTS, 6, 1) == 0.5


def test_average_popularity() -> None:
    golden = ((6 + 10 + 4 + 1) / 4 + (10 + 6 + 4 + 0) / 4 + (2 + 6 + 4 + 0) / 4) / 3
    assert reference.slow_average_popularity(LISTS, COUNT) == pytest.approx(golden, abs=1e-9)
    count = np.array([COUNT.get(item, 0) for item in range(6)])
    assert count[np.array(LISTS)].mean() == pytest.approx(golden, abs=1e-9)


def test_entropy_is_divided_by_the_items_shown_in_recbole_alone() -> None:
    entropy = -sum(places / 12 * math.log(places / 12) for places in PLACES)
    assert reference.slow_entropy(LISTS) == pytest.approx(entropy / 6, abs=1e-9)
    assert shannon_entropy(item_exposure(np.array(LISTS), 6)) == pytest.approx(entropy, abs=1e-9)


def test_gini_index() -> None:
    # In rising order 1 1 2 2 3 3: (-5 - 3 - 2 + 2 + 9 + 15) / (6 * 12).
    assert reference.slow_gini(LISTS, 6) == pytest.approx(16 / 72, abs=1e-9)
    assert gini_index(item_exposure(np.array(LISTS), 6)) == pytest.approx(16 / 72, abs=1e-9)
    # Two more items that nobody is shown: 0 0 1 1 2 2 3 3.
    assert reference.slow_gini(LISTS, 8) == pytest.approx(40 / 96, abs=1e-9)
    assert gini_index(item_exposure(np.array(LISTS), 8)) == pytest.approx(40 / 96, abs=1e-9)


def test_tail_share() -> None:
    tail = reference.slow_tail_items(COUNT, 0.4)
    assert tail == {4, 3}  # the least popular two of five; item 5, without training, is none of RecBole's
    assert reference.slow_tail_share(LISTS, tail) == pytest.approx((1 / 4 + 0 + 1 / 4) / 3, abs=1e-9)
    assert np.isin(LISTS, list(tail)).mean() == pytest.approx(1 / 6, abs=1e-9)
