"""Diversity after ranking: toy lists by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.config.run_config import parse_config
from reckg.data.history import History
from reckg.errors import ConfigError
from reckg.ranking.diversity import (
    Diversity,
    ItemTraits,
    diversify,
    history_mix,
    limit_share,
    mmr_order,
    order_calibrated,
    places_over_limit,
    provider_codes,
    provider_order,
    relevance,
    value_matrix,
)
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.golden import open_bundle, save_with_golden
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.recommender import Recommender
from reckg.recommend.requests import recommend_users
from reckg.recommend.wanted import Wanted
from reckg.retrieval.scored_items import ScoredItems
from tests.reference import slow_calibrated, slow_mmr
from tests.small_bundle import small_bundle

NOBODY = History.from_interactions(pl.DataFrame({"user_idx": [0], "item_idx": [0]}), 1)


def one_list(scores: list[float], items: list[int] | None = None) -> ScoredItems:
    item_idx = np.array([items if items is not None else range(len(scores))], dtype=np.int64)
    return ScoredItems(item_idx, np.array([scores], dtype=np.float32))


def test_scores_are_brought_to_0_and_1_within_each_list() -> None:
    item_idx = np.array([[4, 2, 7], [1, 0, -1], [3, -1, -1], [5, 6, 7], [-1, -1, -1]])
    score = np.array([[9, 6, 5], [2, 1, -np.inf], [7, -np.inf, -np.inf], [2, 2, 2], [-np.inf] * 3], dtype=np.float32)
    none = -np.inf
    expected = [[1, 0.25, 0], [1, 0, none], [1, none, none], [1, 1, 1], [none, none, none]]
    np.testing.assert_array_equal(relevance(item_idx, score), expected)


def test_mmr_by_hand() -> None:
    """Two items alike, one at a right angle, one opposite:

    item      0     1     2     3
    score     1    .9    .5     0
    vector    >     >     ^     <       likeness to item 0:   1  1  .5  0
    """
    vectors = np.array([[[2, 0], [1, 0], [0, 3], [-1, 0]]], dtype=np.float32)
    value = np.array([[1, 0.9, 0.5, 0]])
    assert mmr_order(value, vectors, 0.0, 4).tolist() == [[0, 1, 2, 3]]
    # weight .5: after item 0, item 1 has .45 - .5, item 2 has .25 - .25, item 3 has 0 - 0: a tie, the better rank wins.
    assert mmr_order(value, vectors, 0.5, 4).tolist() == [[0, 2, 1, 3]]
    assert mmr_order(value, vectors, 0.9, 3).tolist() == [[0, 3, 2]]
    assert mmr_order(value, vectors, 1.0, 4).tolist() == [[0, 3, 2, 1]]


def test_calibration_by_hand() -> None:
    """A user who took two comedies and a drama; the four best candidates are comedies."""
    values = sparse.csr_matrix(np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1.0]]))
    mix = sparse.csr_matrix(np.array([[2 / 3, 1 / 3]]))
    value, items = np.linspace(1, 0, 6)[None], np.arange(6)[None]
    assert order_calibrated(value, items, values, mix, 0.0, 6).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert order_calibrated(value, items, values, mix, 1.0, 6).tolist() == [[0, 4, 1, 2, 5, 3]]
    assert order_calibrated(value, items, values, sparse.csr_matrix((1, 2)), 0.9, 6).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_an_item_without_values_leaves_the_mix_as_it_is() -> None:
    values = sparse.csr_matrix(np.array([[1, 0], [0, 0], [0, 1.0]]))
    mix = sparse.csr_matrix(np.array([[0.95, 0.05]]))
    order = order_calibrated(np.array([[1, 0.5, 0]]), np.arange(3)[None], values, mix, 1.0, 3)
    assert order.tolist() == [[0, 1, 2]]


def test_without_any_value_the_order_is_the_rankings() -> None:
    values, mix = sparse.csr_matrix((3, 0)), sparse.csr_matrix((1, 0))
    order = order_calibrated(np.array([[1, 0.5, 0]]), np.arange(3)[None], values, mix, 0.9, 2)
    assert order.tolist() == [[0, 1]]


def test_the_providers_limit_gives_way_before_a_place_stays_empty() -> None:
    provider = np.array([0, 0, 0, 1, 0, -1, -1])
    items = np.array([[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 4, -1, -1, -1]])
    assert provider_order(items, provider, 2).tolist() == [[0, 1, 3, 5, 6, 2, 4], [0, 1, 2, 3, 4, 5, 6]]
    assert provider_order(items, provider, 1).tolist()[0] == [0, 3, 5, 6, 1, 2, 4]
    assert places_over_limit(items[:, :4], provider, 2).tolist() == [1, 2]
    assert places_over_limit(np.array([[0, 1, 3, 5]]), provider, 2).tolist() == [0]


def test_scores_fall_and_the_tail_follows() -> None:
    found = one_list([9, 8, 7, 6, 5])
    provider = np.array([0, 0, 1, 1, 0])
    settings = Diversity("provider", provider_column="seller", max_per_provider=1)
    traits = ItemTraits(np.zeros((5, 1), dtype=np.float32), provider=provider)
    answer = diversify(found, 5, 4, settings, traits, NOBODY, np.array([0]))
    assert answer.item_idx.tolist() == [[0, 2, 1, 3, 4]]
    assert answer.score.tolist() == [[9, 7, 7, 6, 5]]
    assert diversify(found, 2, 4, settings, traits, NOBODY, np.array([0])).item_idx.tolist() == [[0, 2]]


def test_a_share_of_all_places() -> None:
    """Three lists of two places: a provider may have three of the six."""
    provider = np.array([0, 0, 1, -1])
    items = np.tile(np.arange(4), (3, 1))
    found = ScoredItems(items, np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (3, 1)))
    answer, over = limit_share(found, 2, provider, 0.5)
    assert answer.item_idx.tolist() == [[0, 1], [0, 2], [2, 3]] and over == 0
    answer, over = limit_share(found, 2, np.array([0, 0, 0, 0]), 0.5)
    assert answer.item_idx.tolist() == [[0, 1]] * 3 and over == 3


def test_the_mix_of_a_history() -> None:
    history = History.from_interactions(pl.DataFrame({"user_idx": [0, 0, 0, 2], "item_idx": [0, 0, 1, 3]}), 3)
    values = sparse.csr_matrix(np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 0.0]]))
    mix = history_mix(history, np.array([0, 1, 2]), values).toarray()
    np.testing.assert_allclose(mix, [[2.5 / 3, 0.5 / 3], [0, 0], [0, 0]])


def test_columns_as_values_and_providers() -> None:
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "genres": [["x", "y", "x"], [], None, ["y", ""]],
            "seller": ["s2", None, "", "s1"],
            "price": [1.0, 2.0, 3.0, 4.0],
        }
    )
    np.testing.assert_array_equal(value_matrix(items, "genres")[0].toarray(), [[0.5, 0.5], [0, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(value_matrix(items, "seller")[0].toarray(), [[0, 1], [0, 0], [0, 0], [1, 0]])
    codes, names = provider_codes(items, "seller")
    assert codes.tolist() == [1, -1, -1, 0] and names == ["s1", "s2"]
    with pytest.raises(
        ConfigError, match=r"diversity\.column: the items have no column 'genre'; they have item_id, gen"
    ):
        value_matrix(items, "genre")
    with pytest.raises(
        ConfigError, match=r"diversity\.column: 'price' is of type Float64; give a categorical or a list"
    ):
        value_matrix(items, "price")
    with pytest.raises(
        ConfigError, match=r"diversity\.provider_column: 'genres' is of type List.*: one provider an item"
    ):
        provider_codes(items, "genres")


@pytest.mark.parametrize(("strategy", "key"), [("calibrated", "column"), ("provider", "provider_column")])
def test_a_strategy_without_its_column(strategy: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"x\.toml: diversity\.{key}: must name a column with the strategy"):
        parse_config({"diversity": {"strategy": strategy}}, "x.toml")
    settings = Diversity(strategy)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"diversity\.{key}: must name a column"):
        diversify(one_list([2, 1]), 2, 2, settings, ItemTraits(np.zeros((2, 1))), NOBODY, np.array([0]))


@pytest.mark.parametrize("seed", range(6))
def test_against_the_slow_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, c, v, weight = 7, 9, 5, rng.random()
    value = -np.sort(-rng.random((n, c)), axis=1)
    value[0, 4:] = -np.inf
    vectors = rng.normal(size=(n, c, 3)).astype(np.float32)
    items = rng.permuted(np.tile(np.arange(20), (n, 1)), axis=1)[:, :c]
    matrix = rng.random((20, v)) * (rng.random((20, v)) < 0.4)
    matrix[::3] = 0.0
    matrix /= np.where(matrix.sum(axis=1, keepdims=True) > 0, matrix.sum(axis=1, keepdims=True), 1)
    mix = rng.random((n, v)) * (rng.random((n, v)) < 0.7)
    mix /= np.where(mix.sum(axis=1, keepdims=True) > 0, mix.sum(axis=1, keepdims=True), 1)
    mine = order_calibrated(value, items, sparse.csr_matrix(matrix), sparse.csr_matrix(mix), weight, 6)
    diverse = mmr_order(value, vectors, weight, 6)
    for row in range(n):
        real = int(np.isfinite(value[row]).sum())
        m = min(6, real)
        assert diverse[row, :m].tolist() == slow_mmr(value[row, :real].tolist(), vectors[row].tolist(), weight, m)
        rows = [matrix[item].tolist() for item in items[row]]
        assert mine[row, :m].tolist() == slow_calibrated(value[row, :real].tolist(), rows, mix[row].tolist(), weight, m)


def shop(strategy: str, **settings: object) -> Bundle:
    """The small bundle with genres and sellers, configured to diversify."""
    bundle = small_bundle()
    genres = [["a", "b", "c"][: item % 3] for item in range(60)]
    items = bundle.items.with_columns(
        genres=pl.Series(genres), seller=pl.Series([f"s{item % 4}" for item in range(60)])
    )
    asked = {"strategy": strategy, "column": "genres", "provider_column": "seller", **settings}
    manifest = bundle.manifest | {"config": bundle.manifest["config"] | {"diversity": asked}}
    return replace(bundle, items=items, manifest=manifest)


@pytest.mark.parametrize("strategy", ["mmr", "calibrated", "provider"])
def test_what_is_configured_is_served(strategy: str) -> None:
    bundle = shop(strategy, weight=0.6, max_per_provider=1)
    users = np.arange(40)
    plain = recommend_batch(bundle, users, Wanted(20, diversity=Diversity()))
    served = recommend_batch(bundle, users, Wanted(5))
    assert not np.array_equal(served.item_idx, plain.item_idx[:, :5])
    assert np.array_equal(
        recommend_batch(replace(bundle, manifest={}), users, Wanted(20)).item_idx.shape, plain.item_idx.shape
    )
    for row in range(39):
        assert set(served.item_idx[row]) <= set(plain.item_idx[row])
        single = recommend_batch(bundle, users[row : row + 1], Wanted(5))
        assert np.array_equal(single.item_idx[0], served.item_idx[row])
        assert np.array_equal(single.score[0], served.score[row])
    assert np.array_equal(served.item_idx[39], plain.item_idx[39, :5])  # nothing is known: the most popular
    requests = [UserRequest(f"u{user:03d}") for user in users]
    assert np.array_equal(recommend_users(bundle, requests, Wanted(5)).found.item_idx, served.item_idx)
    answer = Recommender(bundle).recommend("u003", 5)
    assert [item.item_id for item in answer.items] == bundle.item_ids.raw(served.item_idx[3])
    undone = Recommender(bundle).recommend("u003", 5, diversity=Diversity())
    assert [item.item_id for item in undone.items] == bundle.item_ids.raw(plain.item_idx[3, :5])
    order = recommend_batch(bundle, users, Wanted(5, rerank=False))
    assert np.array_equal(
        order.item_idx, recommend_batch(replace(bundle, ranker=None, manifest={}), users, Wanted(5)).item_idx
    )


def test_a_saved_bundle_diversifies_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle = shop("calibrated", weight=0.5)
    save_with_golden(bundle, folder)
    found = recommend_batch(open_bundle(folder), np.arange(40), Wanted(10))
    assert np.array_equal(found.item_idx, recommend_batch(bundle, np.arange(40), Wanted(10)).item_idx)


def test_a_column_that_the_catalogue_lacks_is_refused_when_the_bundle_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"diversity\.column: the items have no column 'genre'"):
        save_with_golden(shop("calibrated", column="genre"), tmp_path / "bundle")
