"""The estimators: values by hand, no bias where the truth is known, and how they fail."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.evaluation.logs.counterfactual import effective_sample_size, estimate, importance_weights, top_weight_share
from reckg.evaluation.logs.reward_model import cross_fitted
from tests.reference import doubly_robust, ips, snips

ITEMS = 5
TRUTH = np.array([0.1, 0.3, 0.5, 0.2, 0.7])  # chance that an item is taken
LOGGING = np.array([0.4, 0.3, 0.1, 0.15, 0.05])
TARGET = np.array([0.0, 0.1, 0.3, 0.0, 0.6])
VALUE = float(TARGET @ TRUTH)


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(item, reward, weight) of n shown items."""
    rng = np.random.default_rng(seed)
    item = rng.choice(ITEMS, n, p=LOGGING)
    return item, (rng.random(n) < TRUTH[item]).astype(float), importance_weights(TARGET[item], LOGGING[item])


def assert_unbiased(estimates: list[float], truth: float = VALUE) -> None:
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - truth) < 3.5 * error


def test_values_by_hand() -> None:
    weight = importance_weights(np.array([1.0, 0.0, 0.5]), np.array([0.5, 0.25, 0.125]))
    assert weight.tolist() == [2.0, 0.0, 4.0]
    reward = np.array([1.0, 1.0, 0.5])
    assert ips(reward, weight) == pytest.approx(4 / 3)
    assert snips(reward, weight) == pytest.approx(4 / 6)
    shown, wanted = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.75])
    assert doubly_robust(reward, weight, shown, wanted) == pytest.approx((0.25 + 1 + 0.5 + 0.75 + 2.0) / 3)
    assert effective_sample_size(weight) == pytest.approx(36 / 20)
    assert top_weight_share(weight) == pytest.approx(4 / 6)
    assert top_weight_share(weight, 0.67) == pytest.approx(1.0)
    assert importance_weights(np.array([1.0]), np.array([0.1]), clip=4.0).tolist() == [4.0]


def test_equal_weights_are_worth_every_row() -> None:
    assert effective_sample_size(np.full(7, 0.3)) == pytest.approx(7)
    assert effective_sample_size(np.full(7, 1e-300)) == pytest.approx(7)
    assert effective_sample_size(np.zeros(7)) == 0
    assert top_weight_share(np.zeros(7)) == 0
    assert np.isnan(snips(np.ones(7), np.zeros(7)))


@pytest.mark.parametrize(
    ("target", "propensity", "clip", "message"),
    [
        (0.5, 0.0, None, "propensities must be"),
        (0.5, float("nan"), None, "propensities must be"),
        (0.5, 1.5, None, "propensities must be"),
        (1.5, 0.5, None, "target probabilities must be"),
        (0.5, 0.5, 0.0, "clip must be > 0, got 0.0"),
    ],
)
def test_what_is_no_probability_is_refused(target: float, propensity: float, clip: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        importance_weights(np.array([target]), np.array([propensity]), clip)


def test_no_bias_on_a_log_whose_truth_is_known() -> None:
    logs = [simulated(400, seed) for seed in range(300)]
    assert_unbiased([ips(reward, weight) for _, reward, weight in logs])
    assert_unbiased([float(np.mean(reward)) for _, reward, _ in logs], float(LOGGING @ TRUTH))
    known = [doubly_robust(reward, weight, TRUTH[item], np.full(400, VALUE)) for item, reward, weight in logs]
    assert_unbiased(known)
    assert np.std(known) < 0.8 * np.std([ips(reward, weight) for _, reward, weight in logs])


def test_a_wrong_reward_model_makes_no_bias() -> None:
    wrong = 1.0 - TRUTH
    logs = [simulated(400, seed) for seed in range(300)]
    assert_unbiased([doubly_robust(r, w, wrong[i], np.full(400, float(TARGET @ wrong))) for i, r, w in logs])


def test_a_right_reward_model_makes_up_for_wrong_propensities() -> None:
    found = []
    for seed in range(300):
        item, reward, weight = simulated(400, seed)
        found.append(doubly_robust(reward, 3 * weight, TRUTH[item], np.full(400, VALUE)))
    assert_unbiased(found)


def test_snips_stays_within_the_rewards_and_ips_need_not() -> None:
    found = [simulated(30, seed) for seed in range(200)]
    self_normalised = [snips(reward, weight) for _, reward, weight in found]
    assert min(self_normalised) >= 0 and max(self_normalised) <= 1
    assert max(ips(reward, weight) for _, reward, weight in found) > 1


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = {"ips": 0, "snips": 0, "dr": 0, "mean_weight": 0}
    for seed in range(150):
        item, reward, weight = simulated(1000, seed)
        found = estimate(reward, weight, TRUTH[item] * 0.5, np.full(1000, VALUE * 0.5), np.arange(1000), 200, seed)
        for name in held:
            low, high = found[name]["low"], found[name]["high"]
            assert low is not None and high is not None
            held[name] += low <= (1.0 if name == "mean_weight" else VALUE) <= high
    assert all(0.88 <= count / 150 <= 1.0 for count in held.values()), held


def test_clusters_are_drawn_whole() -> None:
    """Every reward ten times over is no more evidence than once."""
    _, reward, weight = simulated(200, 0)
    nothing = np.zeros(200)
    once = estimate(reward, weight, nothing, nothing, np.arange(200), 500)
    tenfold = [np.repeat(part, 10) for part in (reward, weight, nothing, nothing, np.arange(200))]
    again = estimate(*tenfold, 500)
    for name, entry in once.items():
        assert again[name] == pytest.approx(entry), name
    alone = estimate(*tenfold[:4], np.arange(2000), 500)
    assert alone["ips"]["high"] - alone["ips"]["low"] < 0.5 * (once["ips"]["high"] - once["ips"]["low"])


def test_without_any_weight_there_is_no_weighted_mean() -> None:
    nothing = np.zeros(20)
    found = estimate(np.ones(20), nothing, nothing, nothing, np.arange(20), 100)
    assert found["snips"] == found["snips_minus_logged"] == {"mean": None, "low": None, "high": None}
    assert found["ips"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found["logged"]["mean"] == 1.0


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) features, and the chances of a logistic model of the first."""
    features = np.random.default_rng(seed).normal(size=(n, 2)) * [1.0, 30.0]
    return features, 1 / (1 + np.exp(-(2 * features[:, 0] - 1)))


def test_the_reward_model_finds_what_drives_the_reward() -> None:
    features, chance = world(4000, 0)
    reward = (np.random.default_rng(1).random(4000) < chance).astype(float)
    wanted, wanted_chance = world(4000, 2)
    shown, predicted = cross_fitted(features, reward, wanted, np.arange(4000) // 2)
    assert np.abs(shown - chance).mean() < 0.02
    assert np.abs(predicted - wanted_chance).mean() < 0.02
    numbers = 3 * features[:, 0] + 5
    assert np.abs(cross_fitted(features, numbers, wanted, np.arange(4000))[0] - numbers).mean() < 0.01


def test_a_prediction_knows_nothing_of_its_own_cluster() -> None:
    """Whatever the rewards of one cluster are, what is predicted for it stays the same."""
    features, chance = world(300, 0)
    reward = (chance > 0.5).astype(float)
    cluster = np.arange(300) // 3
    before = cross_fitted(features, reward, features, cluster)
    mine = cluster == 17
    after = cross_fitted(features, np.where(mine, 1 - reward, reward), features, cluster)
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one[mine], other[mine])
        assert not np.array_equal(one, other)


def test_rewards_that_are_all_alike() -> None:
    features, _ = world(20, 0)
    for constant in (0.0, 1.0, 2.5):
        shown, wanted = cross_fitted(features, np.full(20, constant), features * 100, np.arange(20))
        assert shown == pytest.approx(np.full(20, constant)) and wanted == pytest.approx(np.full(20, constant))


def test_one_cluster_cannot_be_cross_fitted() -> None:
    with pytest.raises(ValueError, match="two clusters and two folds, got 1 and 1"):
        cross_fitted(np.ones((4, 1)), np.ones(4), np.ones((4, 1)), np.zeros(4, dtype=int))
