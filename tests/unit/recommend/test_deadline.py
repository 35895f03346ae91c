"""Deadline: no stage begins after it; with little time left the retrieval order is the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.errors import DeadlineError
from reckg.ranking.diversity import Diversity
from reckg.recommend import two_stage
from reckg.recommend.deadline import Deadline
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.recommender import Recommender
from reckg.recommend.requests import recommend_users
from reckg.recommend.trace import Trace
from reckg.recommend.wanted import Wanted
from tests import small_world
from tests.small_bundle import small_bundle

COLD = 39


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


def test_stages_are_timed_in_their_order_and_add_up(clock: Clock) -> None:
    stages = Deadline(clock=clock)
    for stage, seconds in (("retrieve", 1.0), ("features", 2.0), ("retrieve", 0.5)):
        stages.begin(stage)  # type: ignore[arg-type]
        clock.now += seconds
    stages.end()
    clock.now += 7.0
    stages.end()
    assert list(stages.seconds.items()) == [("retrieve", 1.5), ("features", 2.0)]
    assert stages.time_left() == float("inf")


def test_no_stage_begins_at_or_after_the_deadline(clock: Clock) -> None:
    stages = Deadline(2.0, clock=clock)
    stages.begin("retrieve")
    clock.now += 2.0
    with pytest.raises(DeadlineError, match=r"^the deadline passed before the stage features$"):
        stages.begin("features")
    assert stages.seconds == {"retrieve": 2.0}
    assert stages.time_left() == 0.0


def test_no_stage_begins_when_nobody_waits(clock: Clock) -> None:
    waits = [True, False]
    stages = Deadline(wanted=lambda: waits.pop(0), clock=clock)
    stages.begin("retrieve")
    with pytest.raises(DeadlineError, match=r"^the caller went away before the stage features$"):
        stages.begin("features")
    assert list(stages.seconds) == ["retrieve"]


def test_once_the_time_is_short_it_stays_short(clock: Clock) -> None:
    stages = Deadline(1.0, min_rerank_s=0.25, clock=clock)
    clock.now += 0.75
    assert stages.may_rerank() and not stages.rerank_skipped
    clock.now += 0.01
    assert not stages.may_rerank() and stages.rerank_skipped
    clock.now -= 0.5
    assert not stages.may_rerank()


def test_an_answer_names_what_was_done(bundle: Bundle) -> None:
    recommender = Recommender(bundle)

    def done(*arguments: Any, **named: Any) -> list[str]:
        stages = Deadline()
        recommender.recommend(*arguments, **named, deadline=stages)
        assert all(seconds >= 0 for seconds in stages.seconds.values())
        return list(stages.seconds)

    assert done("u001") == ["retrieve", "features", "rerank"]
    assert done("u001", diversity=Diversity("mmr", 0.5)) == ["retrieve", "features", "rerank", "diversify"]
    assert done("u001", rerank=False) == ["retrieve"]
    assert done("nobody") == ["popular"]
    assert done("u039")[-1] == "popular"


def spends(clock: Clock, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        clock.now += seconds
        return function(*arguments, **named)

    return slow


@pytest.mark.parametrize("retrieval_s", [0.0, 0.6])
@pytest.mark.parametrize("how", [None, Diversity("mmr", 0.9)])
def test_with_little_time_left_the_answer_is_that_without_ranking(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch, retrieval_s: float, how: Diversity | None
) -> None:
    """Little time before retrieval, or only after it."""
    users = np.arange(len(bundle.user_ids))
    plain, ranked = (recommend_batch(bundle, users, Wanted(30, rerank=rerank)) for rerank in (False, True))
    assert (plain.item_idx != ranked.item_idx).any()
    monkeypatch.setattr(two_stage, "retrieve", spends(clock, retrieval_s, two_stage.retrieve))
    stages = Deadline(1.0 if retrieval_s else 0.4, min_rerank_s=0.5, clock=clock)
    found = recommend_batch(bundle, users, Wanted(30, diversity=how), Trace(stages))
    np.testing.assert_array_equal(found.item_idx, plain.item_idx)
    np.testing.assert_array_equal(found.score, plain.score)
    assert list(stages.seconds) == ["retrieve", "popular"]
    stages = Deadline(1.0 if retrieval_s else 0.4, min_rerank_s=0.5, clock=clock)
    requests = [UserRequest(user_id) for user_id in bundle.user_ids.ids]
    answers = recommend_users(bundle, requests, Wanted(30, diversity=how), Trace(stages))
    np.testing.assert_array_equal(answers.found.item_idx, plain.item_idx)
    assert answers.degraded[:COLD] == [("no_rerank",)] * COLD
    assert (answers.degraded[COLD], answers.fallback[COLD]) == (("cold_user",), "popular")


def test_a_deadline_between_the_stages_ends_the_request(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    features = spends(clock, 2.0, two_stage.candidate_features)
    monkeypatch.setattr(two_stage, "candidate_features", lambda *a: begun.append("features") or features(*a))
    stages = Deadline(1.0, clock=clock)
    with pytest.raises(DeadlineError, match="before the stage rerank"):
        Recommender(bundle).recommend("u001", deadline=stages)
    assert begun == ["features"]
    assert list(stages.seconds) == ["retrieve", "features"]
    stages = Deadline(0.0, clock=clock)
    with pytest.raises(DeadlineError, match="before the stage retrieve"):
        Recommender(bundle).recommend("u001", deadline=stages)
    assert stages.seconds == {}


def test_a_given_history_too(tmp_path_factory: pytest.TempPathFactory, encoder: Any, clock: Clock) -> None:
    folder = tmp_path_factory.mktemp("world")
    world = small_world.world(folder, encoder=encoder, linear=True, attention="transr", user_ids=False)
    recommender = Recommender(small_world.bundle(world))
    given = ["i07", "i02", "i11"]
    stages = Deadline(clock=clock)
    ranked = recommender.recommend(recent_items=given, deadline=stages)
    assert list(stages.seconds) == ["fold_in", "retrieve", "features", "rerank"]
    stages = Deadline(1.0, min_rerank_s=2.0, clock=clock)
    answer = recommender.recommend(recent_items=given, deadline=stages)
    assert answer == recommender.recommend(recent_items=given, rerank=False)
    assert (answer.degraded, ranked.degraded) == (("no_rerank",), ())
    assert list(stages.seconds) == ["fold_in", "retrieve"]
    with pytest.raises(DeadlineError, match="before the stage fold_in"):
        recommender.recommend(recent_items=given, deadline=Deadline(0.0, clock=clock))
