"""Answers to mixed requests: each as it would be alone, with its own fallback and its own items left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.recommend.deadline import Deadline
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.requests import recommend_users
from reckg.recommend.trace import Trace
from reckg.recommend.wanted import Wanted
from tests import small_world
from tests.small_world import ITEM_IDS, USER_IDS

MIXED = [
    UserRequest("nobody"),
    UserRequest(USER_IDS[3]),
    UserRequest("nobody", ["i07", "i02", "x1"]),
    UserRequest(None, ["x1"], {"shoe": 41}),
    UserRequest(USER_IDS[4]),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Bundle:
    folder = tmp_path_factory.mktemp("world")
    return small_world.bundle(
        small_world.world(folder, encoder=encoder, linear=True, attention="transr", user_ids=False)
    )


def test_an_answer_does_not_depend_on_the_other_requests(bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    requests = [
        UserRequest(
            [None, "nobody", USER_IDS[n % 30]][n % 3],
            random.choice([*ITEM_IDS, "x"], n % 7).tolist(),
            [{}, {"city": "Oslo"}, {"age": 24.0}][n % 3] if n % 4 else {},
        )
        for n in range(70)
    ]
    together = recommend_users(bundle, requests, Wanted(12))
    for row, request in enumerate(requests):
        alone = recommend_users(bundle, [request], Wanted(12))
        np.testing.assert_array_equal(alone.found.item_idx[0], together.found.item_idx[row])
        np.testing.assert_array_equal(alone.found.score[0], together.found.score[row])
        for name in ("fallback", "degraded", "unknown_recent_items", "unknown_attributes"):
            assert getattr(alone, name)[0] == getattr(together, name)[row]


def test_each_kind_of_request_gets_its_own_fallback_and_reasons(bundle: Bundle) -> None:
    answers = recommend_users(bundle, MIXED, Wanted(5))
    assert answers.fallback == ["popular", None, None, "popular", None]
    assert answers.degraded == [
        ("cold_user",),
        (),
        ("unknown_recent_items",),
        ("cold_user", "unknown_recent_items", "unknown_attributes"),
        (),
    ]
    assert answers.unknown_recent_items == [(), (), ("x1",), ("x1",), ()]
    assert answers.unknown_attributes == [(), (), (), ("shoe",), ()]
    unranked = recommend_users(bundle, MIXED, Wanted(5, rerank=False))
    assert [("no_rerank" in reasons) for reasons in unranked.degraded] == [False, True, True, False, True]


def test_every_request_lacks_the_items_left_out_for_it_alone(bundle: Bundle) -> None:
    first = recommend_users(bundle, MIXED, Wanted(3)).found.item_idx[:, 0]
    answers = recommend_users(bundle, MIXED, Wanted(3, left_out=(np.arange(len(MIXED) + 1), first)))
    assert not (answers.found.item_idx == first[:, None]).any()
    for row, request in enumerate(MIXED):
        alone = recommend_users(bundle, [request], Wanted(3, left_out=(np.array([0, 1]), first[row : row + 1])))
        np.testing.assert_array_equal(alone.found.item_idx[0], answers.found.item_idx[row])
    history = set(bundle.history.items(3).tolist())
    assert not history & set(answers.found.item_idx[1].tolist())


def test_all_stages_of_mixed_requests_are_timed(bundle: Bundle) -> None:
    deadline = Deadline()
    recommend_users(bundle, MIXED, Wanted(3), Trace(deadline))
    assert list(deadline.seconds) == ["retrieve", "features", "rerank", "fold_in", "popular"]


def test_no_requests_have_no_answers(bundle: Bundle) -> None:
    answers = recommend_users(bundle, [], Wanted(3))
    assert answers.found.item_idx.shape == (0, 3) and answers.fallback == answers.degraded == []


def test_a_list_has_at_least_one_place() -> None:
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        Wanted(0)
