"""Items that a bundle leaves out: by its question, by event type, by dislikes; and the guard's order for groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.bundle.read import load_bundle
from reckg.data.schema import Target
from reckg.ranking.trees.ranker import Ranker
from reckg.recommend.golden import save_with_golden
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.recommender import Recommender
from reckg.recommend.wanted import Wanted
from tests.small_bundle import small_bundle

ALL = 60


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle(ranked=False)


def asked(bundle: Bundle, target: Target) -> Bundle:
    return replace(bundle, features=replace(bundle.features, target=target, own=target != "new"))


def ids(bundle: Bundle, user: str = "u003", **options: object) -> set[str]:
    answer = Recommender(bundle).recommend(user, k=ALL, **options)  # type: ignore[arg-type]
    return {item.item_id for item in answer.items}


def own(bundle: Bundle, user: int = 3) -> set[str]:
    return set(bundle.item_ids.raw(bundle.history.items(user)))


def test_the_question_decides_whether_items_come_again(bundle: Bundle) -> None:
    assert not ids(bundle) & own(bundle)
    assert own(bundle) <= ids(asked(bundle, "any"))
    assert ids(asked(bundle, "repeat")) == own(bundle), "nothing else is a candidate"


@pytest.mark.parametrize("target", ["new", "any"])
def test_a_caller_can_decide_otherwise(bundle: Bundle, target: Target) -> None:
    assert not ids(asked(bundle, target), exclude_seen=True) & own(bundle)
    assert own(bundle) <= ids(asked(bundle, target), exclude_seen=False)


def test_an_item_that_was_only_looked_at_may_be_taken(bundle: Bundle) -> None:
    taken = np.ones(len(bundle.history.item_idx), dtype=bool)
    first = bundle.history.indptr[3]
    taken[first] = False
    looked_at = bundle.item_ids.raw(bundle.history.item_idx[first : first + 1])
    assert ids(replace(bundle, history=replace(bundle.history, taken=taken))) & own(bundle) == set(looked_at)


@pytest.mark.parametrize("target", ["new", "any", "repeat"])
def test_disliked_items_never_come(bundle: Bundle, target: Target) -> None:
    disliked = int(bundle.history.items(3)[0])
    never = np.append(np.zeros(4, dtype=np.int64), np.ones(37, dtype=np.int64)), np.array([disliked])
    with_dislike = asked(replace(bundle, history=replace(bundle.history, never=never)), target)
    name = bundle.item_ids.raw(np.array([disliked]))[0]
    assert name not in ids(with_dislike) and name not in ids(with_dislike, exclude_seen=False)
    assert target == "new" or name in ids(asked(bundle, target)), "without the dislike it comes"
    assert (name in ids(with_dislike, "u004")) == (name in ids(asked(bundle, target), "u004")), "others do not mind"


def test_a_user_with_nothing_but_a_dislike_gets_popular_items_without_it(bundle: Bundle) -> None:
    """The last user has no interaction. The most popular item is the one that a dislike must keep away."""
    first = int(bundle.features.popular[0])
    never = np.append(np.zeros(40, dtype=np.int64), 1), np.array([first])
    name = bundle.item_ids.raw(np.array([first]))[0]
    assert name in ids(bundle, "u039")
    assert name not in ids(replace(bundle, history=replace(bundle.history, never=never)), "u039")


def test_dislikes_and_events_are_part_of_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    taken = np.arange(len(bundle.history.item_idx)) % 2 == 0
    never = np.append(np.zeros(4, dtype=np.int64), np.full(37, 2)), np.array([5, 9])
    written = replace(bundle, history=replace(bundle.history, taken=taken, never=never))
    save_with_golden(written, tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert read.history.taken is not None and read.history.never is not None
    np.testing.assert_array_equal(read.history.taken, taken)
    for found, expected in zip(read.history.never, never, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert ids(read) == ids(written)


def test_the_question_is_part_of_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    save_with_golden(asked(bundle, "any"), tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert (read.features.target, read.features.own, read.features.weighted) == ("any", True, True)
    assert own(read) <= ids(read)


def test_event_types_mean_what_training_said(bundle: Bundle) -> None:
    task = {"target_events": ["buy"], "event_weights": {"buy": 2.0, "view": 0.2}, "negative_events": ["hide"]}
    shop = replace(bundle, manifest={**bundle.manifest, "task": task})
    assert shop.event_meaning("buy") == (2.0, True, False)
    assert shop.event_meaning("view") == (0.2, False, False)
    assert shop.event_meaning("hide") == (0.2, False, True)
    assert shop.event_meaning("unheard of") == (0.2, False, False)
    assert shop.event_meaning("") == (1.0, True, False)
    assert bundle.event_meaning("view") == (1.0, True, False), "a bundle without types"


def with_orders(bundle: Bundle, short: str, long: str) -> Bundle:
    assert bundle.ranker is not None
    info = {**bundle.ranker.info, "groups": {"short": {"order": short}, "long": {"order": long}}}
    ranker = Ranker(bundle.ranker._model, bundle.ranker.blend, bundle.ranker.depths, info)  # type: ignore[arg-type]
    return replace(bundle, ranker=ranker)


def test_the_guard_orders_groups_of_users_apart() -> None:
    ranked = small_bundle()
    lengths = np.diff(ranked.history.indptr)
    users = np.flatnonzero(lengths > 0)
    assert (lengths > 9).any() and (lengths[users] <= 9).any()
    whole = recommend_batch(with_orders(ranked, "popular", "retrieval"), users, Wanted(8))
    plain = recommend_batch(ranked, users, Wanted(8, rerank=False))
    for place, user in enumerate(users.tolist()):
        if lengths[user] > 9:
            assert whole.item_idx[place].tolist() == plain.item_idx[place].tolist()
        else:
            seen = set(ranked.history.items(user).tolist())
            popular = [item for item in ranked.features.popular.tolist() if item not in seen]
            assert whole.item_idx[place].tolist() == popular[:8]
    same = recommend_batch(with_orders(ranked, "ranker", "ranker"), users, Wanted(8))
    np.testing.assert_array_equal(same.item_idx, recommend_batch(ranked, users, Wanted(8)).item_idx)
    mixed = recommend_batch(with_orders(ranked, "retrieval", "ranker"), users, Wanted(8))
    expected = np.where((lengths[users] > 9)[:, None], same.item_idx, plain.item_idx)
    np.testing.assert_array_equal(mixed.item_idx, expected)


def test_given_items_are_in_the_groups_order_too() -> None:
    ranked = small_bundle()
    user = int(np.flatnonzero(np.diff(ranked.history.indptr) == 4)[0])
    names = [f"i{item:03d}" for item in range(20, 30)]
    rank = Recommender(with_orders(ranked, "popular", "ranker")).rank_items(f"u{user:03d}", names)
    score = ranked.features.popular_score[ranked.item_ids.indices([item.item_id for item in rank.order.items])]
    assert (np.diff(score) <= 0).all()
