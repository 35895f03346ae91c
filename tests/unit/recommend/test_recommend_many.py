"""Lists of many users as one table: each as it would be alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reckg.errors import FilterError
from reckg.ranking.diversity import Diversity
from reckg.recommend import recommender as module
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.recommender import Recommender
from reckg.retrieval.filters import Filters
from tests import small_world
from tests.small_world import USER_IDS

SCHEMA = {"user_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32}
USERS = [USER_IDS[7], "nobody", *USER_IDS[:5], USER_IDS[7]]


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Recommender:
    folder = tmp_path_factory.mktemp("world")
    return Recommender(small_world.bundle(small_world.world(folder, encoder=encoder, linear=True, user_ids=False)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"k": 3, "exclude_seen": False, "rerank": False},
        {"k": 50, "filters": Filters(where={"price": {">": 3.0}})},
        {"k": 4, "diversity": Diversity("mmr", 0.6)},
    ],
)
def test_every_user_gets_the_list_of_a_single_request(
    recommender: Recommender, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 3)
    frame = recommender.recommend_many(USERS, **settings)
    assert frame.schema == SCHEMA
    expected = [
        (user, rank, item.item_id, item.score)
        for user in USERS
        for rank, item in enumerate(recommender.recommend(user, **settings).items, start=1)
    ]
    assert frame.rows() == expected and expected


def test_requests_and_series_of_ids_are_answered_too(recommender: Recommender) -> None:
    request = UserRequest(None, ["i07", "i02"])
    frame = recommender.recommend_many([request, USERS[0]], k=2)
    assert frame["user_id"].to_list() == [None, None, USERS[0], USERS[0]]
    alone = recommender.recommend(recent_items=["i07", "i02"], k=2)
    assert frame["item_id"][:2].to_list() == [item.item_id for item in alone.items]
    assert recommender.recommend_many(pl.Series(USERS), 2).equals(recommender.recommend_many(USERS, 2))


def test_no_users_give_an_empty_table(recommender: Recommender) -> None:
    empty = recommender.recommend_many([])
    assert empty.height == 0 and empty.schema == SCHEMA


def test_wrong_arguments_are_refused(recommender: Recommender) -> None:
    with pytest.raises(TypeError, match="got the single id 'u03'"):
        recommender.recommend_many("u03")
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        recommender.recommend_many([], k=0)
    with pytest.raises(FilterError, match="unknown column"):
        recommender.recommend_many(USERS, filters=Filters(where={"colour": "red"}))
