"""Token buckets: a second's calls at once, then the rate, each principal by itself."""

from __future__ import annotations

import pytest

from serving.access import rate_limits
from serving.access.rate_limits import RateLimits


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_a_seconds_calls_and_fills_at_the_rate() -> None:
    clock = Clock()
    limits = RateLimits(4.0, clock)
    assert [limits.wait_s("a") for _ in range(4)] == [0.0] * 4
    assert limits.wait_s("a") == 0.25
    clock.now += 0.125
    assert limits.wait_s("a") == 0.125  # a refused call takes nothing
    clock.now += 0.125
    assert [limits.wait_s("a"), limits.wait_s("a")] == [0.0, 0.25]
    clock.now += 1000.0
    assert [limits.wait_s("a") for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.25]


def test_principals_do_not_share_a_bucket() -> None:
    limits = RateLimits(1.0, Clock())
    assert [limits.wait_s(name) for name in ("a", "b", "a", "b", "")] == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_less_than_one_call_a_second_is_possible() -> None:
    clock = Clock()
    limits = RateLimits(0.5, clock)
    assert [limits.wait_s("a"), limits.wait_s("a")] == [0.0, 2.0]
    clock.now += 2.0
    assert limits.wait_s("a") == 0.0


def test_memory_is_bounded_by_dropping_full_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MANY", 10)
    clock = Clock()
    limits = RateLimits(1.0, clock)
    for number in range(10):
        limits.wait_s(f"old {number}")
    clock.now += 5.0
    limits.wait_s("new")
    assert list(limits._buckets) == ["new"]
    assert limits.wait_s("new") == 1.0
