"""recommend: retrieval, exclusion, reranking and fallback over a small bundle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from reckg.bundle.bundle import Bundle
from reckg.errors import DataError, UnknownIdError
from reckg.live.live_bundle import LiveBundle
from reckg.ranking.trees.ranker import Ranker
from reckg.recommend.known_users import popular_items, recommend_batch, similar_items
from reckg.recommend.recommender import Recommender
from reckg.recommend.wanted import Wanted
from reckg.retrieval.filters import Filters
from reckg.retrieval.scored_items import ScoredItems
from tests.small_bundle import CANDIDATES, candidates_of, small_bundle
from tests.small_features import extract_features

COLD = 39


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def unranked(bundle: Bundle) -> Bundle:
    return replace(bundle, ranker=None)


def by_hand(bundle: Bundle, user: int, left_out: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best k items of one user by inner product, in float64."""
    scores = bundle.item_vectors.astype(np.float64) @ bundle.user_vectors[user].astype(np.float64)
    scores[left_out] = -np.inf
    order = np.argsort(-scores, kind="stable")[:k]
    return order, scores[order]


def assert_same(one: ScoredItems, other: ScoredItems) -> None:
    np.testing.assert_array_equal(one.item_idx, other.item_idx)
    np.testing.assert_array_equal(one.score, other.score)


def test_without_a_ranker_the_items_come_in_the_order_of_the_inner_product(unranked: Bundle) -> None:
    found = recommend_batch(unranked, np.arange(COLD), Wanted(10))
    for user in range(COLD):
        items, scores = by_hand(unranked, user, unranked.history.items(user), 10)
        assert found.item_idx[user].tolist() == items.tolist()
        np.testing.assert_allclose(found.score[user], scores, atol=1e-6)


@pytest.mark.parametrize("k", [1, 10, CANDIDATES + 15, 80])
def test_a_batch_equals_single_calls(bundle: Bundle, k: int) -> None:
    users = np.arange(len(bundle.user_ids))
    batch = recommend_batch(bundle, users, Wanted(k))
    for user in users:
        single = recommend_batch(bundle, users[user : user + 1], Wanted(k))
        assert_same(single, ScoredItems(batch.item_idx[user : user + 1], batch.score[user : user + 1]))


@pytest.mark.parametrize("k", [10, CANDIDATES + 15, 80])
def test_k_new_items_come_back_where_k_exist(bundle: Bundle, k: int) -> None:
    found = recommend_batch(bundle, np.arange(len(bundle.user_ids)), Wanted(k))
    assert found.item_idx.shape == found.score.shape == (len(bundle.user_ids), k)
    for user, (items, scores) in enumerate(zip(found.item_idx, found.score, strict=True)):
        seen = set(bundle.history.items(user).tolist())
        expected = min(k, len(bundle.item_ids) - len(seen))
        got = items[items >= 0]
        assert len(got) == len(set(got.tolist())) == expected
        assert not seen & set(got.tolist())
        assert (items[expected:] == -1).all()
        assert np.isneginf(scores[expected:]).all()
        assert (np.diff(scores[:expected]) <= 0).all()


def test_seen_items_may_come_back_when_asked_for(unranked: Bundle) -> None:
    found = recommend_batch(unranked, np.array([3]), Wanted(60, exclude_seen=False))
    assert sorted(found.item_idx[0]) == list(range(60))


def test_items_left_out_in_place_of_the_history(unranked: Bundle) -> None:
    exclude = np.array([0, 2, 2]), np.array([5, 6])
    found = recommend_batch(unranked, np.array([3, 4]), Wanted(60, exclude_seen=False, left_out=exclude))
    assert sorted(found.item_idx[0][:58]) == [item for item in range(60) if item not in (5, 6)]
    assert found.item_idx[0][58:].tolist() == [-1, -1]
    assert sorted(found.item_idx[1]) == list(range(60))
    with pytest.raises(ValueError, match="left_out has 2 rows for 1 users"):
        recommend_batch(unranked, np.array([3]), Wanted(5, exclude_seen=False, left_out=exclude))


def test_items_left_out_of_cold_users_lists(bundle: Bundle) -> None:
    first = int(bundle.features.popular[0])
    found = recommend_batch(
        bundle, np.array([0, COLD]), Wanted(5, exclude_seen=False, left_out=(np.array([0, 0, 1]), np.array([first])))
    )
    assert found.item_idx[1].tolist() == bundle.features.popular[1:6].tolist()


def test_the_candidates_are_reranked_and_the_rest_follows(bundle: Bundle, unranked: Bundle) -> None:
    assert bundle.ranker is not None
    users = np.arange(COLD)
    retrieved = recommend_batch(unranked, users, Wanted(40))
    head = candidates_of(bundle, users)
    vectors = bundle.user_vectors[users], bundle.item_vectors
    expected = bundle.ranker.rerank(head, extract_features(bundle.features, bundle.history, users, head, *vectors))
    found = recommend_batch(bundle, users, Wanted(40))
    lengths = (head.item_idx >= 0).sum(axis=1)
    assert len(set(lengths.tolist())) > 3 and (lengths < 40).all()
    for user, length in enumerate(lengths):
        np.testing.assert_array_equal(found.item_idx[user, :length], expected.item_idx[user, :length])
        np.testing.assert_array_equal(found.score[user, :length], expected.score[user, :length])
        rest = [place for place, item in enumerate(retrieved.item_idx[user]) if item not in head.item_idx[user]]
        rest = rest[: 40 - length]
        np.testing.assert_array_equal(found.item_idx[user, length : length + len(rest)], retrieved.item_idx[user, rest])
        # the tail keeps its distances, and goes on from the last reranked score
        tail, scores = found.score[user, length : length + len(rest)], retrieved.score[user, rest]
        np.testing.assert_allclose(tail - expected.score[user, length - 1], scores - scores[0], atol=1e-5)
    assert (expected.item_idx != head.item_idx).any(), "the ranker of the fixture changes nothing"
    assert_same(recommend_batch(bundle, users, Wanted(40, rerank=False)), retrieved)


def test_a_ranker_for_users_without_a_history_ranks_for_them(bundle: Bundle) -> None:
    assert bundle.ranker is not None
    cold = bundle.user_ids.ids[-1]
    info = {**bundle.ranker.info, "cold_users": {"served": True}}
    willing = Ranker(bundle.ranker._model, bundle.ranker.blend, bundle.ranker.depths, info)
    ranked, plain = Recommender(replace(bundle, ranker=willing)), Recommender(bundle)
    answer = ranked.recommend(cold, k=5)
    assert (answer.fallback, answer.degraded) == (None, ("cold_user",)) and len(answer.items) == 5
    assert [item.item_id for item in answer.items] != [item.item_id for item in plain.recommend(cold, k=5).items]
    assert ranked.recommend(cold, k=5, rerank=False).fallback == "popular"
    assert ranked.recommend("nobody", k=5).fallback == "popular"  # of whom not even an id is known
    user = bundle.user_ids.ids[0]
    assert ranked.recommend(user).items == plain.recommend(user).items


def test_a_cold_user_gets_the_most_popular_items(bundle: Bundle) -> None:
    found = recommend_batch(bundle, np.array([0, COLD]), Wanted(10))
    assert found.item_idx[1].tolist() == bundle.features.popular[:10].tolist()
    assert found.score[1].tolist() == bundle.features.popular_score[bundle.features.popular[:10]].tolist()
    answer = Recommender(bundle).recommend("u039")
    assert (answer.fallback, answer.degraded) == ("popular", ("cold_user",))


def test_popular_items_go_by_the_order_of_the_feature_tables(bundle: Bundle) -> None:
    score = np.array([1, 3, 3, 0] + [2] * 56, dtype=np.float32)
    order = np.argsort(-score, kind="stable")
    tied = replace(bundle, features=replace(bundle.features, popular_score=score, popular=order))
    assert popular_items(tied, 4).item_idx.tolist() == [[1, 2, 4, 5]]
    rows = np.array([0, 1, 1]), np.array([2])
    assert popular_items(tied, 3, exclude=rows, n=2).item_idx.tolist() == [[1, 4, 5], [1, 2, 4]]
    assert popular_items(tied, 61).item_idx[0, -2:].tolist() == [3, -1]


def test_similar_items_are_the_closest_and_never_the_item_itself(bundle: Bundle) -> None:
    found = similar_items(bundle, np.arange(60), 5)
    scores = bundle.item_vectors.astype(np.float64) @ bundle.item_vectors.T.astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    np.testing.assert_array_equal(found.item_idx, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    assert similar_items(bundle, np.array([7]), 70).item_idx[0, 59:].tolist() == [-1] * 11


def test_an_answer_has_ids_titles_and_the_version(bundle: Bundle) -> None:
    recommender = Recommender(bundle)
    answer = recommender.recommend("u004", k=60, exclude_seen=False)
    expected = recommend_batch(bundle, np.array([4]), Wanted(60, exclude_seen=False))
    assert [item.item_id for item in answer.items] == [f"i{item:03d}" for item in expected.item_idx[0]]
    assert [item.score for item in answer.items] == expected.score[0].tolist()
    assert {item.item_id: item.title for item in answer.items}["i002"] == "Title of i002"
    assert {item.item_id: item.title for item in answer.items}["i001"] == ""
    assert (answer.bundle_version, answer.fallback, answer.degraded) == ("test-1", None, ())


def test_an_unknown_user_gets_the_most_popular_items_and_is_told_so(bundle: Bundle) -> None:
    answer = Recommender(bundle).recommend("nobody", k=7)
    assert [item.item_id for item in answer.items] == bundle.item_ids.raw(bundle.features.popular[:7])
    assert (answer.fallback, answer.degraded) == ("popular", ("cold_user",))


def test_an_answer_says_that_it_was_not_reranked(bundle: Bundle, unranked: Bundle) -> None:
    assert Recommender(bundle).recommend("u001", rerank=False).degraded == ("no_rerank",)
    assert Recommender(unranked).recommend("u001", rerank=False).degraded == ()


def test_a_catalogue_without_text_has_empty_titles(bundle: Bundle) -> None:
    plain = replace(bundle, manifest={**bundle.manifest, "item_columns": {"text": []}})
    assert {item.title for item in Recommender(plain).recommend("u001").items} == {""}


def test_wrong_arguments_are_refused(bundle: Bundle) -> None:
    recommender = Recommender(bundle)
    with pytest.raises(UnknownIdError, match="unknown item id 'nothing'"):
        recommender.similar_items("nothing")
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        recommender.recommend("nobody", k=0)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        recommender.recommend("u001", k=0)
    for user_idx in ([-1], [40]):
        with pytest.raises(ValueError, match=r"user_idx must be 0\.\.39"):
            recommend_batch(bundle, np.array(user_idx), Wanted(5))
    with pytest.raises(ValueError, match=r"item_idx must be 0\.\.59"):
        similar_items(bundle, np.array([-1]), 5)


@pytest.fixture(scope="module")
def filtered(bundle: Bundle) -> Bundle:
    """A third of the items are dramas; the years rise from 1990 to 2019, two items each."""
    genre = pl.Series("genre", ["drama" if item % 3 == 0 else "crime" for item in range(60)])
    year = pl.Series("year", [1990.0 + item // 2 for item in range(60)])
    columns = {"text": ["title"], "categorical": ["genre"], "number": ["year"], "list": []}
    return replace(
        bundle,
        items=bundle.items.with_columns(genre, year),
        manifest={**bundle.manifest, "item_columns": columns},
    )


@pytest.mark.parametrize("k", [5, 30])
@pytest.mark.parametrize("n", [1, 40])
def test_k_allowed_items_come_back_where_k_exist_also_to_cold_users(filtered: Bundle, k: int, n: int) -> None:
    allowed = filtered.item_filters.allowed(Filters(where={"genre": "drama"}))
    assert allowed is not None and allowed.sum() == 20
    users = np.arange(40 - n, 40)
    found = recommend_batch(filtered, users, Wanted(k, allowed=allowed))
    for user, items in zip(users.tolist(), found.item_idx, strict=True):
        got = items[items >= 0]
        seen = set(filtered.history.items(user).tolist())
        assert len(got) == min(k, len(set(np.flatnonzero(allowed).tolist()) - seen))
        assert allowed[got].all() and not seen & set(got.tolist())


@pytest.mark.parametrize("who", [{"user_id": "u003"}, {"user_id": "u039"}, {"user_id": "nobody"}])
def test_an_answer_satisfies_the_filters(filtered: Bundle, who: dict[str, str]) -> None:
    recommender = Recommender(filtered)
    filters = Filters(where={"genre": "drama", "year": {">=": 2010}}, deny=["i045"])
    answer = recommender.recommend(**who, k=10, exclude_seen=False, filters=filters)
    ids = {item.item_id for item in answer.items}
    assert ids == {"i042", "i048", "i051", "i054", "i057"}
    assert recommender.recommend(**who, filters=Filters(allow=["i007"]), exclude_seen=False).items[0].item_id == "i007"
    assert recommender.recommend(**who, filters=Filters(allow=[])).items == []
    assert recommender.recommend(**who, filters=Filters()) == recommender.recommend(**who)
    with pytest.raises(DataError, match="unknown column 'colour'; known: genre, year"):
        recommender.recommend(**who, filters=Filters(where={"colour": "red"}))


def test_similar_items_may_be_filtered(filtered: Bundle) -> None:
    allowed = np.zeros(60, dtype=bool)
    allowed[[3, 7, 9]] = True
    found = similar_items(filtered, np.array([7, 8]), 5, allowed)
    assert sorted(found.item_idx[0].tolist()) == [-1, -1, -1, 3, 9]
    assert sorted(found.item_idx[1].tolist()) == [-1, -1, 3, 7, 9]


@pytest.mark.parametrize("few", [200, 0])
def test_items_that_are_not_available_come_to_nobody(
    filtered: Bundle, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out as what users have seen, or by a bitmap where they are many: the lists are the same."""
    monkeypatch.setattr("reckg.recommend.wanted.FEW_UNAVAILABLE", few)
    gone = np.array([0, 3, 7, 30, 31], dtype=np.int64)
    less = replace(LiveBundle.of(filtered), unavailable=gone)
    users = np.arange(40)
    for seen in (True, False):
        for k in (5, 60):
            found, every = (
                recommend_batch(bundle, users, Wanted(60, exclude_seen=seen)) for bundle in (less, filtered)
            )
            found = ScoredItems(found.item_idx[:, :k], found.score[:, :k])
            assert not np.isin(found.item_idx, gone).any()
            lengths = ((every.item_idx >= 0) & ~np.isin(every.item_idx, gone)).sum(axis=1)
            assert ((found.item_idx >= 0).sum(axis=1) == np.minimum(lengths, k)).all()
    dramas = less.item_filters.allowed(Filters(where={"genre": "drama"}))
    assert dramas is not None and dramas.sum() == 20
    assert sorted(
        recommend_batch(less, users[:1], Wanted(60, exclude_seen=False, allowed=dramas)).item_idx[0, :17].tolist()
    ) == [item for item in range(0, 60, 3) if item not in gone]
    popular = popular_items(less, 5, exclude=(np.array([0, 1]), less.features.popular[:1]))
    order = [item for item in filtered.features.popular[1:].tolist() if item not in gone]
    assert popular.item_idx[0].tolist() == order[:5]
    assert not np.isin(similar_items(less, np.array([3, 8]), 60).item_idx, gone).any()
    answer = Recommender(less).recommend("nobody", 60)
    assert {item.item_id for item in answer.items} == {f"i{n:03d}" for n in range(60) if n not in gone}
