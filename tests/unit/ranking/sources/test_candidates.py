"""Candidates: every source by hand, their union, and how many each gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reckg.arrays.ragged_rows import Rows
from reckg.evaluation.comparison import SYSTEMS
from reckg.ranking.sources import candidates as module
from reckg.ranking.sources.candidates import SOURCES, available_sources, retrieve, source_top
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.retrieval.index import build_index
from reckg.retrieval.scored_items import ScoredItems
from tests.reference import slow_top_items
from tests.small_features import ITEM_VECTORS, USER_VECTORS, random_world, toy_history, toy_tables

INDEX = build_index(ITEM_VECTORS)
FACTORS = np.array([[1.0], [2.0], [0.0], [3.0]], dtype=np.float32)


def tables_with_factors(**changes: Any) -> FeatureTables:
    tables = toy_tables(**({"target": "any"} | changes))
    return replace(tables, factors=FACTORS, factor_gram=np.array([[49.0]]))


def listed(name: str, k: int = 4, seen: Rows | None = None, allowed: np.ndarray | None = None) -> list[list[int]]:
    """What one source gives each of the toy world's users: 0 with the items 0, 1; 1 with 1, 2, 1; 2 with none."""
    scores = UserScores(tables_with_factors(), toy_history(), np.arange(3), USER_VECTORS, ITEM_VECTORS)
    found = source_top(name, scores, INDEX, k, seen, allowed)
    assert found.item_idx.shape == found.score.shape == (3, k)
    assert np.isneginf(found.score[found.item_idx < 0]).all() and np.isfinite(found.score[found.item_idx >= 0]).all()
    return [row[row >= 0].tolist() for row in found.item_idx]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 47, 50, 33, 30; 46, 47, 33, 30; 45, 52, 29, 30
        ("vectors", [[1, 0, 2, 3], [1, 0, 2, 3], [1, 0, 3, 2]]),
        # the graph's (1.3, 0.8) and (0.894, 0.492) with (1, 0), (3, 4), (0, -2), (0, 0)
        ("profile", [[1, 0, 3, 2], [1, 0, 3, 2], []]),
        # recent: 1 after 0 counts 0.7, 2 after 1 counts 1; 1 after 2 counts 0.7, 2 after 1 counts 1.49
        ("cooccurrence", [[2, 1], [2, 1], []]),
        # 1/4, 0.7/2.8, 1/4 with equal ones by the lower item; 0.3725, 0.2475, 0.3725
        ("walk", [[0, 2, 1], [0, 2, 1], []]),
        # the neighbours' cosines 0-1 0.71, 0-2 0.32: 0.71, 0.49, 0.22; 1.05, 0 and 0
        ("entities", [[0, 1, 2], [0], []]),
        # the texts' cosines 0-2 0.8, 1-2 0.6: 0.56 + 0.6 for 2; 1.49 x 0.6 for 2, 0.7 x 0.6 for 1, 0.7 x 0.8 for 0
        ("text", [[2], [2, 0, 1], []]),
        ("factors", [[3, 1, 0, 2], [3, 1, 0, 2], []]),
        # one interaction in the latest tenth, of item 1; then by item
        ("popular", [[1, 0, 2, 3], [1, 0, 2, 3], [1, 0, 2, 3]]),
        # 0.9 for 0, 1 for 1; 0.81 + 1 for 1, 0.9 for 2
        ("own", [[1, 0], [1, 2], []]),
    ],
)
def test_every_source_by_hand(name: str, expected: list[list[int]]) -> None:
    found = listed(name)
    assert found == expected
    assert listed(name, 1) == [row[:1] for row in expected]
    seen: Rows = np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1])
    left = [[1], [0, 2], [1]]
    less = [[item for item in row if item not in out] for row, out in zip(expected, left, strict=True)]
    assert listed(name, 4, seen) == less
    assert [row[:1] for row in listed(name, 1, seen)] == [row[:1] for row in less]
    allowed = np.array([True, False, True, True])
    assert listed(name, 4, seen, allowed) == [[item for item in row if item != 1] for row in less]


def test_the_linear_source_lists_the_largest_positive_scores() -> None:
    tables = toy_tables()
    assert tables.linear is not None
    weights = tables.linear.toarray().astype(np.float64)
    for user, row in enumerate([weights[0] + weights[1], 2 * weights[1] + weights[2], np.zeros(4)]):
        assert listed("linear")[user] == slow_top_items(row.tolist(), set(np.flatnonzero(row <= 0).tolist()), 4)


def test_every_source_but_the_vectors_has_its_words_in_the_report() -> None:
    """The vectors' list is the report's system "retrieval"."""
    told = {name.removeprefix("source_") for name in SYSTEMS if name.startswith("source_")}
    assert told == set(SOURCES) - {"vectors"}


def test_every_source_has_its_test() -> None:
    assert set(SOURCES) == {"vectors", "profile", "cooccurrence", "walk", "entities", "text", "linear", "factors"} | {
        "popular",
        "own",
    }


def test_the_sources_are_those_that_the_tables_can_answer_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_sources(tables_with_factors()) == SOURCES
    for change, lacking in (
        ({"item_entities": np.zeros((4, 0))}, "entities"),
        ({"text": None}, "text"),
        ({"linear_items": 0}, "linear"),
        ({"target": "new"}, "own"),
    ):
        assert set(SOURCES) - set(available_sources(tables_with_factors(**change))) == {lacking}
    assert set(SOURCES) - set(available_sources(toy_tables())) == {"factors", "own"}
    assert available_sources(tables_with_factors(target="repeat")) == ("vectors", "own")
    monkeypatch.setattr(module, "FACTOR_ITEMS", 3)
    assert set(SOURCES) - set(available_sources(tables_with_factors())) == {"factors"}


def test_where_items_come_again_alone_the_vectors_order_them() -> None:
    tables = tables_with_factors(target="repeat")
    scores = UserScores(tables, toy_history(), np.arange(3), USER_VECTORS, ITEM_VECTORS)
    found = source_top("vectors", scores, INDEX, 4, None)
    assert [row[row >= 0].tolist() for row in found.item_idx] == [[1, 0], [1, 2], []]
    assert found.score[0, :2].tolist() == [50, 47]


DEPTHS = {"vectors": 6, "profile": 3, "cooccurrence": 4, "walk": 3, "entities": 3, "text": 2, "linear": 3, "popular": 2}


@pytest.mark.parametrize("order", ["ahead", "between", "none"])
def test_candidates_are_the_union_in_the_vectors_order_without_what_is_left_out(order: str) -> None:
    tables, history, _, vectors, item_vectors = random_world(5, order)
    index = build_index(item_vectors)
    rng = np.random.default_rng(0)
    depths = DEPTHS | {"factors": 3}
    blocked = [rng.permutation(50)[: rng.integers(0, 20)] for _ in range(30)]
    seen = np.cumsum([0, *map(len, blocked)]), np.concatenate(blocked)
    for allowed in (None, rng.random(50) < 0.5):
        scores = UserScores(tables, history, np.arange(30), vectors, item_vectors)
        found = retrieve(scores, index, depths, seen, allowed)
        lists = {name: source_top(name, scores, index, k, seen, allowed).item_idx for name, k in depths.items()}
        for user in range(30):
            items = found.item_idx[user][found.item_idx[user] >= 0]
            union = {item for some in lists.values() for item in some[user].tolist()} - {-1}
            assert set(items.tolist()) == union and len(items) == len(union)
            assert not union & set(blocked[user].tolist()) and (allowed is None or allowed[items].all())
            products = item_vectors[items].astype(np.float64) @ vectors[user].astype(np.float64)
            np.testing.assert_allclose(found.score[user, : len(items)], products, rtol=1e-5, atol=1e-5)
            assert (np.diff(found.score[user, : len(items)]) <= 0).all()
            assert (found.item_idx[user, len(items) :] == -1).all() and np.isneginf(
                found.score[user, len(items) :]
            ).all()
        assert found.item_idx.shape[1] == max((found.item_idx >= 0).sum(axis=1)) > 8
        for users in (np.array([3]), np.array([29]), np.array([7, 3, 21])):
            part = seen[0][users + 1] - seen[0][users]
            own = np.append(0, np.cumsum(part)), np.concatenate([blocked[user] for user in users])
            alone = UserScores(tables, history, users, vectors[users], item_vectors)
            some: ScoredItems = retrieve(alone, index, depths, own, allowed)
            width = some.item_idx.shape[1]
            np.testing.assert_array_equal(some.item_idx, found.item_idx[users, :width])
            np.testing.assert_array_equal(some.score, found.score[users, :width])


def test_equal_scores_come_by_item_and_nothing_at_all_is_one_column_of_padding() -> None:
    scores = UserScores(tables_with_factors(), toy_history(), np.array([0]), np.zeros((1, 3), np.float32), ITEM_VECTORS)
    assert retrieve(scores, INDEX, {"vectors": 1, "popular": 4}, None).item_idx.tolist() == [[0, 1, 2, 3]]
    nothing = retrieve(scores, INDEX, {"vectors": 4}, (np.array([0, 4]), np.arange(4)))
    assert nothing.item_idx.tolist() == [[-1]] and nothing.score.tolist() == [[-np.inf]]
