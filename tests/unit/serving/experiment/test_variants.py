"""Who gets which variant, and with which probability an item is where it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from reckg.evaluation.logs.interleaving import draft_propensities, team_draft
from serving.experiment.variants import explore_order, interleave, variant_of
from serving.settings import ExperimentSettings

EXPERIMENT = ExperimentSettings.model_validate(
    {"variants": [{"name": "old", "share": 3}, {"name": "new", "share": 1, "rerank": False}]}
)
USERS = [f"user {number}" for number in range(4000)]


def test_users_are_dealt_by_shares_and_stay_where_they_are() -> None:
    dealt = [variant_of(EXPERIMENT, user).name for user in USERS]
    assert abs(dealt.count("new") / len(USERS) - 0.25) < 0.03
    assert dealt == [variant_of(EXPERIMENT, user).name for user in USERS]
    assert variant_of(EXPERIMENT, "user 0").name == "old"  # in every process, today and tomorrow
    other = EXPERIMENT.model_copy(update={"salt": "again"})
    both = Counter(zip(dealt, [variant_of(other, user).name for user in USERS], strict=True))
    assert abs(both["new", "new"] / len(USERS) - 1 / 16) < 0.02  # dealt anew, not the same ones


def test_an_order_by_chance_has_the_propensities_that_it_says() -> None:
    counts = np.zeros((6, 5))
    for number in range(3000):
        shown, propensities = explore_order([0, 1, 2, 3, 4, 5], 3, 5, f"request {number}")
        assert propensities == [1 / 3, 1 / 3, 1 / 3, 1.0, 1.0]
        for place, item in enumerate(shown):
            counts[item, place] += 1
    assert np.abs(counts[:3, :3] / 3000 - 1 / 3).max() < 0.03
    assert counts[3, 3] == counts[4, 4] == 3000
    assert explore_order([7, 8, 9], 3, 2, "x") == explore_order([7, 8, 9], 3, 2, "x")
    assert explore_order([7, 8, 9], 0, 2, "x") == ([7, 8], [1.0, 1.0])
    assert explore_order([7], 5, 3, "x") == ([7], [1.0])
    assert len(explore_order(list(range(10)), 10, 4, "x")[0]) == 4


@pytest.mark.parametrize(
    ("a", "b", "k"),
    [
        ([0, 1, 2, 3], [2, 0, 4, 1], 4),
        ([0, 1, 2, 3, 4, 5], [0, 1, 6, 7, 4, 8], 5),
        ([0, 1, 2, 3, 4, 5, 6], [1, 0, 4, 2, 6, 3, 5], 7),
        ([0, 1], [0, 1], 4),
        ([3, -1], [1, 2], 3),
        ([], [1, 2], 2),
    ],
)
def test_propensities_of_a_draft_are_those_of_many_drafts(a: list[int], b: list[int], k: int) -> None:
    rng = np.random.default_rng(0)
    drawn: Counter[tuple[int, int]] = Counter()
    for _ in range(4000):
        items, _teams = team_draft(a, b, rng, k)
        drawn.update((item, place) for place, item in enumerate(items.tolist()))
    computed = draft_propensities(a, b, k)
    assert computed.keys() == drawn.keys()
    assert max(abs(computed[place] - count / 4000) for place, count in drawn.items()) < 0.035


def test_by_hand_a_draft_of_two_that_agree_at_first() -> None:
    computed = draft_propensities([0, 1], [0, 2], 2)
    assert computed == {(0, 0): 1.0, (2, 1): 0.5, (1, 1): 0.5}


def test_an_interleaved_answer() -> None:
    items, teams, propensities = interleave([5, 6, 7], [7, 5, 8], 3, "request")
    assert (items, teams, propensities) == interleave([5, 6, 7], [7, 5, 8], 3, "request")
    assert set(items[:2]) == {5, 7} and propensities[:2] == [0.5, 0.5]
    assert {interleave([5, 6], [7, 8], 2, f"{number}")[0][0] for number in range(20)} == {5, 7}
