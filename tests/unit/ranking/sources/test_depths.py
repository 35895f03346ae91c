"""Depths: how many candidates each source gives, and what is given up for the latency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from reckg.arrays.ragged_rows import Rows
from reckg.ranking.sources import depths as module
from reckg.ranking.sources.depths import LabelledLists, RequestCosts


def chosen(lists: Mapping[str, np.ndarray], relevant: Rows, budget: int) -> tuple[dict[str, int], dict[str, float]]:
    choice = LabelledLists(lists, relevant).choose(budget)
    return choice.depths, choice.recall


def lists_of(**firsts: list[list[int]]) -> dict[str, np.ndarray]:
    """Of each source the lists of two users."""
    return {name: np.array(rows) for name, rows in firsts.items()}


LISTS = lists_of(
    vectors=[list(range(10)), list(range(10))],
    walk=[[20, 21, 22, 23], [30, 31, 32, 33]],
    text=[[40, 41, 42, 43], [50, 51, 52, 53]],
)
RELEVANT: Rows = np.array([0, 4, 7]), np.array([0, 20, 21, 41, 1, 30, 31])


def test_the_source_that_finds_more_for_a_candidate_is_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 2)
    # the first two of the walk are wanted by both users, of the text one by one; of the vectors nothing after two
    depths, recall = chosen(LISTS, RELEVANT, 6)
    assert depths == {"vectors": 2, "walk": 2, "text": 2}
    assert recall == {
        "vectors": round(2 / 7, 4),
        "walk": round(4 / 7, 4),
        "text": round(1 / 7, 4),
        "union": 1.0,
        "vectors alone": round(2 / 7, 4),
    }
    # with less to spend the text is left out, and what is left goes to the vectors
    assert chosen(LISTS, RELEVANT, 5)[0] == {"vectors": 3, "walk": 2}
    assert chosen(LISTS, RELEVANT, 4)[0] == {"vectors": 2, "walk": 2}
    assert chosen(LISTS, RELEVANT, 3)[0] == {"vectors": 3}


def test_what_is_listed_twice_costs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 2)
    lists = lists_of(vectors=[[0, 1, 2, 3]], walk=[[1, 5, 0, 6]], text=[[7, 8, 9, 10]])
    depths, _ = chosen(lists, (np.array([0, 2]), np.array([5, 7])), 3)
    assert depths == {"vectors": 2, "walk": 2}  # the walk adds item 5 alone


def test_the_union_never_costs_more_than_the_budget_and_is_no_worse_than_the_vectors() -> None:
    rng = np.random.default_rng(0)
    for budget in (5, 20, 37, 60):
        lists = {name: np.array([rng.permutation(400)[:60] for _ in range(40)]) for name in ("walk", "vectors", "text")}
        relevant = np.arange(41) * 5, np.concatenate([rng.permutation(400)[:5] for _ in range(40)])
        depths, recall = chosen(lists, relevant, budget)
        costs = [len({i for name, k in depths.items() for i in lists[name][user, :k].tolist()}) for user in range(40)]
        assert budget - 1 < np.mean(costs) <= budget
        found = [
            len({i for name, k in depths.items() for i in lists[name][user, :k].tolist()} & set(mine.tolist()))
            for user, mine in enumerate(relevant[1].reshape(40, 5))
        ]
        assert recall["union"] == round(sum(found) / 200, 4)
        assert depths["vectors"] >= 1 and all(depth <= 200 for name, depth in depths.items() if name != "vectors")


def test_without_labels_or_other_finds_all_goes_to_the_vectors() -> None:
    lists = lists_of(vectors=[list(range(50))], walk=[[60, 61, -1, -1]])
    depths, recall = chosen(lists, (np.array([0, 0]), np.array([], dtype=np.int64)), 30)
    assert depths == {"vectors": 30} and recall["union"] == 0
    depths, recall = chosen(lists, (np.array([0, 1]), np.array([99])), 30)
    assert depths == {"vectors": 30} and recall == {"vectors": 0, "union": 0, "vectors alone": 0}


def test_a_request_that_costs_too_much_gives_up_what_loses_least_for_a_millisecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STEP", 2)
    # of 7 relevant items the vectors find 2, the walk 4, the text 1
    labelled = LabelledLists(LISTS, RELEVANT)
    costs = RequestCosts(1.0, {"vectors": 1.0, "walk": 2.0, "text": 1.5}, 0.1)
    free = labelled.choose_within(6, costs, 6.1)
    assert costs.of(free) == pytest.approx(1 + 1 + 2 + 1.5 + 6 * 0.1) and free == labelled.choose(6) and not free.cuts
    # without the text 1.5 ms are saved for 1/7 of the recall; two candidates fewer cost the same, and give up more
    tight = labelled.choose_within(6, costs, 6.0)
    assert tight.depths == {"vectors": 4, "walk": 2} and tight.recall["union"] == round(6 / 7, 4)
    assert tight.cuts == ({"cut": "without text", "saved_ms": 1.5, "recall_lost": round(1 - 0.8571, 4)},)
    # with more to save, two candidates fewer save 1.7 ms, text and all, for the recall for which the text saves 1.5;
    # then the walk goes: 4/7 for the 1.4 ms that are needed, where the text in its place would save 0.5 for 3/7
    tighter = labelled.choose_within(6, costs, 3.0)
    assert tighter.depths == {"vectors": 2} and costs.of(tighter) == pytest.approx(2.2)
    assert [cut["cut"] for cut in tighter.cuts] == ["4 candidates", "2 candidates"]
    # a source that costs next to nothing stays longer than one that finds as much for more
    dear = RequestCosts(1.0, {"vectors": 1.0, "walk": 0.1, "text": 3.0}, 0.0)
    assert labelled.choose_within(6, dear, 3.0).depths == {"vectors": 4, "walk": 2}


def test_where_nothing_is_left_to_give_up_the_vectors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 2)
    lists = lists_of(vectors=[[0, 1, 2, 3]], walk=[[4, 5, 6, 7]])
    labelled = LabelledLists(lists, (np.array([0, 2]), np.array([0, 4])))
    costs = RequestCosts(5.0, {"vectors": 1.0, "walk": 1.0}, 0.1)
    choice = labelled.choose_within(4, costs, 1.0)
    assert choice.depths == {"vectors": 2} and costs.of(choice) == pytest.approx(6.2) and choice.cuts
