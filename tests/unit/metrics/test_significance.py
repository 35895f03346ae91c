from __future__ import annotations

import numpy as np
import pytest

from reckg.metrics import significance
from reckg.metrics.significance import (
    bootstrap_interval,
    bootstrap_intervals,
    bootstrap_means,
    coverage_interval,
    holm,
    known_intervals,
    paired_difference,
    paired_differences,
    paired_t_test,
    resample,
)


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 2000)
    found = bootstrap_interval(values, samples=2000, seed=3)
    error = values.std() / np.sqrt(len(values))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["high"] - found["mean"] == pytest.approx(1.96 * error, rel=0.12)
    assert found["mean"] - found["low"] == pytest.approx(1.96 * error, rel=0.12)


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held = [
        found["low"] <= 0.2 <= found["high"]
        for found in (bootstrap_interval(rng.random(80) < 0.2, samples=300, seed=0) for _ in range(200))
    ]
    assert 0.88 <= np.mean(held) <= 0.99


def test_same_seed_same_answer_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 3))
    whole = bootstrap_means(values, 40, seed=5)
    monkeypatch.setattr(significance, "CHUNK_VALUES", 120)
    np.testing.assert_allclose(bootstrap_means(values, 40, seed=5), whole)
    assert not np.allclose(bootstrap_means(values, 40, seed=6), whole)


def test_resampling_equals_picking_users_one_by_one() -> None:
    values = np.random.default_rng(0).random((6, 2))
    rng = np.random.default_rng(9)
    slow = [values[rng.integers(0, 6, 6)].mean(axis=0) for _ in range(20)]
    np.testing.assert_allclose(bootstrap_means(values, 20, seed=9), slow)


def test_columns_are_resampled_together() -> None:
    a = np.random.default_rng(2).random(100)
    found = bootstrap_intervals({"a": a, "twice": 2 * a})
    for name in ("mean", "low", "high"):
        assert found["twice"][name] == pytest.approx(2 * found["a"][name])


def test_pairing_sees_a_difference_that_the_single_intervals_hide() -> None:
    rng = np.random.default_rng(4)
    base = rng.random(300)
    better = base + 0.01 + rng.normal(0, 0.01, 300)
    found = paired_difference(better, base, samples=500)
    assert 0 < found["low"] < found["mean"] < found["high"]
    assert found["p"] <= 0.01
    assert bootstrap_interval(better)["low"] < bootstrap_interval(base)["high"]


def test_no_difference_has_a_high_p() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.1, 400)
    found = paired_difference(noise - noise.mean(), np.zeros(400))
    assert found["p"] > 0.5
    assert found["low"] < 0 < found["high"]
    same = paired_difference(noise, noise)
    assert same == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_p_is_the_same_in_both_directions() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.random(60) + 0.05, rng.random(60)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there["p"] == back["p"]
    assert there["mean"] == pytest.approx(-back["mean"])
    assert there["low"] == pytest.approx(-back["high"])


def test_only_metrics_of_both_systems_are_compared() -> None:
    one = np.array([0.1, 0.2])
    assert list(paired_differences({"x": one, "y": one}, {"x": one})) == ["x"]
    with pytest.raises(ValueError, match="the same users"):
        paired_differences({"x": one}, {"x": one[:1]})


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(ValueError, match="0 users"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="0 samples"):
        bootstrap_interval(np.array([0.1]), samples=0)


def test_coverage_interval_equals_leaving_out_one_user_at_a_time() -> None:
    lists = np.random.default_rng(3).integers(0, 40, (15, 4))
    lists = np.array([np.unique(row)[:3] if len(np.unique(row)) >= 3 else [0, 1, 2] for row in lists])
    n, n_items = len(lists), 40
    times, some_user = np.zeros(n_items, dtype=np.int64), np.zeros(n_items, dtype=np.int64)
    for row, shown in enumerate(lists):
        times[shown] += 1
        some_user[shown] = row
    without = np.array([len(np.unique(np.delete(lists, row, axis=0))) / n_items for row in range(n)])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    found = coverage_interval(times, some_user, n)
    coverage = len(np.unique(lists)) / n_items
    assert found["mean"] == coverage
    assert found["high"] == pytest.approx(coverage + 1.96 * error)
    assert found["low"] == pytest.approx(coverage - 1.96 * error)


def test_coverage_interval_of_items_that_all_users_see_is_a_point() -> None:
    assert coverage_interval(np.array([5, 5, 0]), np.zeros(3, dtype=np.int64), 5) == {
        "mean": 2 / 3,
        "low": 2 / 3,
        "high": 2 / 3,
    }


def test_one_resampling_gives_intervals_and_paired_differences() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(50), rng.random(50)
    drawn = resample({"a": a, "b": b}, 300, 4)
    assert drawn.intervals()["a"] == pytest.approx(bootstrap_interval(a, 300, 4))
    found = paired_difference(a, b, 300, 4)
    assert drawn.difference("a", "b") == pytest.approx({name: found[name] for name in ("mean", "low", "high")})


def test_what_is_unknown_of_a_user_is_left_out() -> None:
    a, b = np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 6.0])
    found = known_intervals({"a": a, "b": b, "c": np.full(3, np.nan)}, 100)
    assert list(found) == ["a", "b"]
    assert (found["a"]["mean"], found["a"]["users"], found["b"]["mean"], found["b"]["users"]) == (2.0, 2, 3.0, 3)


def test_the_t_test_is_students() -> None:
    """Student's own ten differences in sleep: mean 1.58, standard deviation 1.23, t 4.06 on 9 degrees, p 0.0028."""
    sleep = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert paired_t_test(sleep, np.zeros(10)) == pytest.approx(0.00283, abs=5e-6)
    assert paired_t_test(np.zeros(10), sleep) == paired_t_test(sleep, np.zeros(10))
    assert paired_t_test(sleep, sleep) == 1.0
    assert paired_t_test(sleep + 0.5, sleep) < 1e-12
    assert paired_t_test(np.array([3.0]), np.array([1.0])) == 1.0


def test_holm_multiplies_by_what_is_left_and_never_goes_down() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.7})
    # In order: 4 x 0.01, 3 x 0.03, then 2 x 0.04 = 0.08, which is raised to 0.09.
    assert found == pytest.approx({"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.7})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"x": 0.6, "y": 0.6}) == {"x": 1.0, "y": 1.0}


def test_the_t_interval_says_what_the_t_test_says() -> None:
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.05, 0.2, 1.0):
        a, b = rng.normal(shift, 1, 80), rng.normal(0, 1, 80)
        for error in (0.05, 0.01):
            low, high = significance.t_interval(a, b, error)
            assert (not low <= 0 <= high) == (significance.paired_t_test(a, b) < error)
    assert significance.t_interval(np.ones(1), np.zeros(1)) == (0.0, 1.0), "a single user shows nothing"
