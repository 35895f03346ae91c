"""Interleaving: lists by hand, the better ranking found, none found between equals."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.evaluation.logs.interleaving import preference, rewards_apart, team_draft


def served(requests: int, chances: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(request, team, reward): ten items a request, drafted from two rankings of 12 items; an item is taken with the
    chance of the team that put it there."""
    rng = np.random.default_rng(seed)
    teams = [team_draft(np.arange(12), np.arange(12)[::-1], rng, 10)[1] for _ in range(requests)]
    team = np.concatenate(teams).astype(np.int64)
    reward = (rng.random(len(team)) < np.array(chances)[team]).astype(float)
    return np.repeat(np.arange(requests), 10), team, reward


def test_a_list_by_hand() -> None:
    lists = {
        tuple(
            zip(*map(np.ndarray.tolist, team_draft([1, 2, 3], [1, 4, 5], np.random.default_rng(seed), 4)), strict=True)
        )
        for seed in range(60)
    }
    assert lists == {
        ((1, 0), (4, 1), (2, 0), (5, 1)),
        ((1, 0), (4, 1), (5, 1), (2, 0)),
        ((1, 1), (2, 0), (3, 0), (4, 1)),
        ((1, 1), (2, 0), (4, 1), (3, 0)),
    }


def test_a_ranking_that_ends_leaves_the_rest_to_the_other() -> None:
    items, team = team_draft(np.array([7, -1, -1]), np.array([1, 2, 3]), np.random.default_rng(0))
    assert len(items) == 3 and set(items.tolist()) == {7, 1, 2}
    items, team = team_draft([7], [1, 2, 3], np.random.default_rng(0), 9)
    assert sorted(items.tolist()) == [1, 2, 3, 7] and team.sum() == 3
    items, team = team_draft([], [4], np.random.default_rng(0))
    assert items.tolist() == [4] and team.tolist() == [1]
    assert len(team_draft([], [-1], np.random.default_rng(0))[0]) == 0


@pytest.mark.parametrize(
    ("a", "b", "k", "message"), [([1, 1], [2], None, "an item twice"), ([1], [2], 0, "k must be >= 1, got 0")]
)
def test_what_cannot_be_drafted(a: list[int], b: list[int], k: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        team_draft(a, b, np.random.default_rng(0), k)


def test_counts_by_hand() -> None:
    request = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    team = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    reward = np.array([1, 0, 1, 0, 0, 1, 1, 1, 0, 0.0])
    found = preference(request, team, reward, request)
    assert (found["wins"], found["losses"], found["ties"], found["nothing_taken"]) == (2, 1, 2, 1)
    assert found["preference"]["mean"] == pytest.approx(0.6)
    assert found["decided_share"] == pytest.approx(2 / 3)
    assert found["p"] == pytest.approx(1.0)
    users = preference(request, team, reward, np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2]))
    assert (users["clusters_for"], users["clusters_against"]) == (1, 1)
    assert users["preference"]["mean"] == found["preference"]["mean"]


def test_sums_in_another_order_are_a_tie() -> None:
    reward = np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1])
    found = preference(np.zeros(6, dtype=int), np.array([0, 0, 0, 1, 1, 1]), reward, np.zeros(6, dtype=int), 100)
    assert found["ties"] == 1 and found["p"] == 1.0 and found["decided_share"] is None


def test_the_better_ranking_is_found() -> None:
    request, team, reward = served(800, (0.10, 0.06), 0)
    found = preference(request, team, reward, request)
    assert found["p"] < 0.001 and found["preference"]["low"] > 0.5
    other = preference(request, 1 - team, reward, request)
    assert other["p"] == found["p"] and other["wins"] == found["losses"]
    assert other["preference"]["mean"] == pytest.approx(1 - found["preference"]["mean"])


def test_equal_rankings_are_preferred_as_often_as_chance_has_it() -> None:
    p = [preference(r, t, w, r, 100)["p"] for r, t, w in (served(150, (0.1, 0.1), seed) for seed in range(150))]
    assert np.mean(np.array(p) < 0.05) < 0.10
    means = [preference(r, t, w, r, 100)["preference"]["mean"] for r, t, w in [served(4000, (0.1, 0.1), 5)]]
    assert means[0] == pytest.approx(0.5, abs=0.02)


def test_one_loud_user_is_one_user() -> None:
    """A user with a hundred won requests does not outvote ten others."""
    request = np.repeat(np.arange(110), 2)
    team = np.tile([0, 1], 110)
    reward = np.concatenate([np.tile([1.0, 0.0], 100), np.tile([0.0, 1.0], 10)])
    cluster = np.repeat(np.concatenate([np.zeros(100, dtype=int), np.arange(1, 11)]), 2)
    assert preference(request, team, reward, request)["p"] < 1e-6
    found = preference(request, team, reward, cluster)
    assert (found["clusters_for"], found["clusters_against"]) == (1, 10)
    assert found["p"] == pytest.approx(0.0117, abs=1e-4)
    assert found["preference"]["high"] - found["preference"]["low"] > 0.3


def test_a_request_is_one_vote_whatever_it_earned() -> None:
    reward = np.array([100.0, 0, 0, 1, 0, 1])
    found = preference(np.repeat(np.arange(3), 2), np.tile([0, 1], 3), reward, np.zeros(6, dtype=int), 100)
    assert (found["wins"], found["losses"]) == (1, 2)
    assert (found["clusters_for"], found["clusters_against"]) == (0, 1)


def test_variants_that_served_different_requests() -> None:
    reward = np.array([1.0, 0.0, 2.0, 3.0, 1.0])
    second = np.array([False, False, True, True, True])
    found = rewards_apart(reward, second, np.arange(5))
    assert [found[name]["mean"] for name in ("first", "second", "difference")] == [0.5, 2.0, 1.5]
    assert found["difference"]["low"] < 1.5 < found["difference"]["high"]
    with pytest.raises(ValueError, match="both variants need requests"):
        rewards_apart(reward, np.ones(5, dtype=bool), np.arange(5))
