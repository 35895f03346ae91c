"""Every ranking feature by hand on a toy world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from reckg.data.history import History
from reckg.ranking.features import extract as features_module
from reckg.ranking.features.extract import (
    ALL_FEATURES,
    FEATURES,
    SOURCE_SCORES,
    candidate_features,
    feature_names,
    standardise_scores,
)
from reckg.ranking.sources import user_scores as user_scores_module
from reckg.ranking.sources.own_items import RHYTHM
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables import columns as columns_module
from reckg.ranking.tables.columns import user_recency
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.item_item import linear_weights
from reckg.retrieval.scored_items import ScoredItems
from tests.small_features import (
    ATTRIBUTES,
    DAY,
    ITEM_VECTORS,
    NOW,
    NUMBERS,
    SPREAD,
    USER_VECTORS,
    extract_features,
    random_world,
    toy_history,
    toy_tables,
)

NAN = np.nan
NOTHING = [NAN] * 4


def feature(name: str, tables: FeatureTables | None = None) -> np.ndarray:
    """(3 users, 4 candidates): one feature with the items 0..3 as every user's candidates."""
    candidates = ScoredItems(np.tile(np.arange(4), (3, 1)), np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (3, 1)))
    vectors = USER_VECTORS, ITEM_VECTORS
    found = extract_features(tables or toy_tables(), toy_history(), np.arange(3), candidates, *vectors)
    return found.reshape(3, 4, -1)[:, :, FEATURES.index(name)]


def assert_feature(name: str, expected: Any, tables: FeatureTables | None = None, within: float = 1e-6) -> None:
    np.testing.assert_allclose(feature(name, tables), np.array(expected), atol=within, err_msg=name)


def test_the_own_rhythm_counts_where_items_may_come_again() -> None:
    tables = toy_tables(target="any")
    candidates = ScoredItems(np.tile(np.arange(4), (3, 1)), np.zeros((3, 4), dtype=np.float32))
    scores = UserScores(tables, toy_history(), np.arange(3), USER_VECTORS, ITEM_VECTORS)
    found = candidate_features(scores, candidates)
    assert feature_names(tables) == ALL_FEATURES and found.shape == (3, 4, len(ALL_FEATURES))
    np.testing.assert_array_equal(
        found[:, :, len(FEATURES) :][:, :, : len(RHYTHM)].transpose(2, 0, 1),
        scores.own.at(candidates.item_idx).astype(np.float32),
    )
    counts = found[:, :, ALL_FEATURES.index("own_count")]
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]
    standardised = found[:, :, ALL_FEATURES.index("own_count_z")]
    np.testing.assert_allclose(standardised[0], [1, 1, -1, -1])


def test_retrieval_score_and_rank() -> None:
    assert feature("retrieval_score").tolist() == [[4, 3, 2, 1]] * 3
    assert feature("retrieval_rank").tolist() == [[0, 1, 2, 3]] * 3


def test_graph_score_is_the_inner_product_of_the_graphs_dimensions() -> None:
    assert_feature("graph_score", [[2, 10, -2, 0], [1, 7, -2, 0], [0, 12, -6, 0]])


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        # items 0, 1, 2 occur 1, 3, 1 times; before 1 comes 0 once and 2 once, before 2 comes 1
        ("ahead", np.array([[0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 0, 0]]) / np.sqrt(3)),
        # next to each other: 0 and 1 once, 1 and 2 twice
        ("between", np.array([[1, 1, 2, 0], [2, 2, 4, 0], [0, 0, 0, 0]]) / np.sqrt(3)),
        # one user has 0 and 1, one has 1 and 2; two have 1
        ("none", np.array([[1, 1, 1, 0], [2, 1, 2, 0], [0, 0, 0, 0]]) / np.sqrt(2)),
    ],
)
def test_cooccurrence_is_summed_over_the_history(order: str, expected: np.ndarray) -> None:
    assert_feature("cooccurrence", expected, toy_tables(order=order))


def test_recent_and_last_cooccurrence_decay_with_the_age_in_the_history() -> None:
    nothing = [0, 0, 0, 0]
    assert_feature("cooccurrence_recent", np.array([[0, 0.7, 1, 0], [0, 0.7, 1.49, 0], nothing]) / np.sqrt(3))
    assert_feature("cooccurrence_last", np.array([[0, 0.4, 1, 0], [0, 0.4, 1.16, 0], nothing]) / np.sqrt(3))


def test_walk_goes_to_an_items_users_and_on_to_their_items() -> None:
    # from 0 to 1: its only user, 1 of 2 items, over the root of 2 users; from 1: half to either user
    there, back = 1 / 2 / np.sqrt(2), 1 / 4
    expected = [[back, there, back, 0], [2 * back, there, 2 * back, 0], [0, 0, 0, 0]]
    assert_feature("walk", expected, toy_tables(order="between"))
    expected = [[back, 0.7 * there, back, 0], [1.49 * back, 0.7 * there, 1.49 * back, 0], [0, 0, 0, 0]]
    assert_feature("walk", expected)


@pytest.mark.parametrize("order", ["none", "between"])
def test_features_of_the_latest_are_missing_where_the_order_says_nothing_of_what_comes(order: str) -> None:
    tables = toy_tables(order=order)
    names = [name for name in SOURCE_SCORES if name.endswith(("_recent", "_last"))]
    assert len(names) == 5
    for name in names:
        assert np.isnan(feature(name, tables)).all(), name
        assert np.isnan(feature(f"{name}_z", tables)).all(), name
        assert np.isfinite(feature(name)[:2, :3]).all(), name
    assert (feature("cooccurrence", tables)[:2] > 0).any()


def test_linear_is_the_linear_model_of_the_history() -> None:
    weights = linear_weights(toy_history(), 4, 300.0, 4).toarray()
    expected = np.array([weights[0] + weights[1], 2 * weights[1] + weights[2], np.zeros(4)])
    assert feature("linear") == pytest.approx(expected, rel=1e-4)


def test_linear_is_missing_in_large_catalogues() -> None:
    tables = toy_tables(linear_items=3)
    assert tables.linear is None
    assert np.isnan(feature("linear", tables)).all()


def test_factors_are_the_least_squares_vector_of_the_history() -> None:
    assert toy_tables().factors.shape == (4, 0), "three users are too few to factorise"
    assert np.isnan(feature("factors")).all()
    one = np.array([[1.0], [2.0], [0.0], [3.0]], dtype=np.float32)
    tables = replace(toy_tables(), factors=one, factor_gram=np.array([[1.0 + 4 + 9 + 35]]))
    # user 0 has items 0 and 1: 5 (1 + 2) / (49 + 4 (1 + 4)); user 1 has 1 and 2: 5 x 2 / (49 + 4 x 4)
    assert_feature("factors", np.outer([15 / 69, 10 / 65, 0], [1, 2, 0, 3]), tables)


def test_profile_similarity_is_to_the_sum_of_the_histories_unit_vectors() -> None:
    unit = np.array([[1, 0], [0.6, 0.8], [0, -1], [0, 0]])
    recent = np.stack([0.7 * unit[0] + unit[1], 1.49 * unit[1] + 0.7 * unit[2], [0, 0]])
    assert_feature("profile_similarity", recent @ unit.T, within=2e-3)
    last = np.stack([0.4 * unit[0] + unit[1], 1.16 * unit[1] + 0.4 * unit[2], [0, 0]])
    assert_feature("profile_similarity_last", last @ unit.T, within=2e-3)
    alike = np.stack([unit[0] + unit[1], 2 * unit[1] + unit[2], [0, 0]])
    assert_feature("profile_similarity", alike @ unit.T, toy_tables(order="none"), within=2e-3)


def test_text_similarity_is_to_the_sum_of_the_texts_vectors() -> None:
    unit = np.array([[0, 1], [1, 0], [0.6, 0.8], [0, 0]])
    recent = np.stack([0.7 * unit[0] + unit[1], 1.49 * unit[1] + 0.7 * unit[2], [0, 0]])
    assert_feature("text_similarity", recent @ unit.T, within=2e-3)
    last = np.stack([0.4 * unit[0] + unit[1], 1.16 * unit[1] + 0.4 * unit[2], [0, 0]])
    assert_feature("text_similarity_last", last @ unit.T, within=2e-3)
    alike = np.stack([unit[0] + unit[1], 2 * unit[1] + unit[2], [0, 0]])
    assert_feature("text_similarity", alike @ unit.T, toy_tables(order="between"), within=2e-3)
    for name in ("text_similarity", "text_similarity_last"):
        assert np.isnan(feature(name, toy_tables(text=None))).all()


def test_closest_similarity_is_the_mean_cosine_with_the_closest_of_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    # cosines with items 0, 1, 2: of 0: 1, 0.6, 0; of 1: 0.6, 1, -0.8; of 2: 0, -0.8, 1
    both = [[1.6 / 2, 1.6 / 2, -0.8 / 2, 0], [1.2 / 3, 1.2 / 3, -0.6 / 3, 0], NOTHING]
    assert_feature("closest_similarity", both, within=1e-3)
    monkeypatch.setattr(features_module, "CLOSEST", 1)
    assert_feature("closest_similarity", [[1, 1, 0, 0], [0.6, 1, 1, 0], NOTHING], within=1e-3)
    monkeypatch.setattr(features_module, "CLOSEST_OF", 1)  # item 1 is the last of both users
    assert_feature("closest_similarity", [[0.6, 1, -0.8, 0], [0.6, 1, -0.8, 0], NOTHING], within=1e-3)


def test_popularity() -> None:
    assert feature("popularity")[0] == pytest.approx(np.log1p([1, 3, 1, 0]))


def test_popular_score_is_of_the_latest_fifth_where_times_are_known_and_orders_the_popular_items() -> None:
    # the 0.8 quantile of the days 10, 90, 95, 99, 100 is 99.2: one interaction, of item 1
    assert feature("popular_score")[0] == pytest.approx(np.log1p([0, 1, 0, 0]))
    assert toy_tables().popular.tolist() == [1, 0, 2, 3]
    untimed = toy_tables(now=None)
    assert feature("popular_score", untimed)[0] == pytest.approx(np.log1p([1, 3, 1, 0]))
    tables, history, *_ = random_world(0)
    latest, overall = (np.bincount(items, minlength=50) for items in (_latest_fifth(history), history.item_idx))
    np.testing.assert_allclose(tables.popular_score, np.log1p(latest), rtol=1e-6)
    assert len(set(latest.tolist())) < 10  # many are equal: then popularity overall decides
    expected = sorted(range(50), key=lambda item: (-tables.popular_score[item], -overall[item], item))
    assert tables.popular.tolist() == expected


def _latest_fifth(history: History) -> np.ndarray:
    return history.item_idx[np.argsort(history.timestamp)[-len(history.item_idx) // 5 :]]


def test_recent_popularity_and_trend_look_at_the_latest_tenth() -> None:
    # the 0.9 quantile of the days 10, 90, 95, 99, 100 is 99.6: one interaction, of item 1
    assert feature("recent_popularity")[0] == pytest.approx(np.log1p([0, 1, 0, 0]))
    share = 1 / 5
    expected = np.log([1 / (1 + share), 2 / (1 + 3 * share), 1 / (1 + share), 1])
    assert feature("popularity_trend")[0] == pytest.approx(expected, abs=1e-6)


def test_latest_popularity_looks_at_the_latest_fiftieth() -> None:
    # the 0.98 quantile of the days is 99.92; of thirty days in a row it is the last but one's, and a bit
    assert feature("latest_popularity")[0] == pytest.approx(np.log1p([0, 1, 0, 0]))
    frame = pl.DataFrame({"user_idx": [0] * 30, "item_idx": [0] * 27 + [1, 1, 2], "timestamp": range(30)})
    columns = columns_module.item_popularity(History.from_interactions(frame, 1), 3, 30)
    assert columns[1].tolist() == np.log1p([0, 2, 1]).tolist()  # the latest tenth
    assert columns[2].tolist() == np.log1p([0, 0, 1]).tolist()


def test_popularity_near_looks_a_month_before_and_after_the_history() -> None:
    # user 0: days 10 to 90, so that all five interactions are near; user 1: days 95 to 100, so that day 10 is not
    expected = [[0, 0, 0, 0], np.log([1 / 1.8, 4 / (1 + 3 * 0.8), 2 / 1.8, 1]), NOTHING]
    assert_feature("popularity_near", expected, toy_tables(order="between"))
    for tables in (toy_tables(), toy_tables(order="none"), toy_tables(order="between", now=None)):
        assert np.isnan(feature("popularity_near", tables)).all()


def test_popularity_near_counts_events_exactly_a_month_away() -> None:
    time, month = 50 * DAY, 30 * DAY
    inside, outside = (time - month, time + month), (time - month - 1, time + month + 1)
    frame = pl.DataFrame(
        {"user_idx": [0, 1, 1, 2, 2], "item_idx": [0, 1, 1, 2, 2], "timestamp": [time, *inside, *outside]}
    )
    history = History.from_interactions(frame, 3)
    scores = UserScores(toy_tables(history, order="between"), history, np.array([0]), USER_VECTORS[:1], ITEM_VECTORS)
    candidates = ScoredItems(np.arange(4)[None], np.zeros((1, 4), dtype=np.float32))
    found = candidate_features(scores, candidates)[0, :, FEATURES.index("popularity_near")]
    share = 3 / 5  # of all interactions: those of items 0 and 1
    assert found == pytest.approx(np.log([2 / (1 + share), 3 / (1 + 2 * share), 1 / (1 + 2 * share), 1]), abs=1e-6)


def test_attribute_affinity_is_the_mean_lift_of_the_users_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "FEWEST_OWNERS", 2)
    # items' shares: 1/5, 3/5, 1/5; users with a took 0, 1, 1, 2, users with b 1, 2; ten more at the shares
    a = np.log([3 / 2.8, 8 / 8.4, 3 / 2.8, 1])
    b = np.log([1, 7 / 7.2, 3 / 2.4, 1])  # nobody with b took item 0: it says nothing
    assert_feature("attribute_affinity", [a, (a + b) / 2, b], toy_tables())
    without = toy_tables(user_entities=sp.csr_matrix(ATTRIBUTES * [[1], [0], [0]]))
    assert_feature("attribute_affinity", [[0, 0, 0, 0], NOTHING, NOTHING], without)  # of one owner: it tells nothing


def test_item_age_counts_days_since_the_first_interaction() -> None:
    assert feature("item_age")[0] == pytest.approx([*np.log1p([90, 10, 1]), np.nan], nan_ok=True)


def test_history_length() -> None:
    assert feature("history_length")[:, 0] == pytest.approx(np.log1p([2, 3, 0]))


def test_user_recency_counts_days_since_the_last_interaction() -> None:
    assert feature("user_recency")[:, 0] == pytest.approx([np.log1p(10), np.log1p(0), np.nan], nan_ok=True)


def test_user_recency_is_nothing_after_the_state() -> None:
    recency = user_recency(toy_history(), NOW - 5 * DAY)
    assert recency == pytest.approx([np.log1p(5), 0, np.nan], nan_ok=True)


def test_time_features_are_missing_without_times() -> None:
    tables = toy_tables(now=None)
    for name in ("recent_popularity", "latest_popularity", "popularity_trend", "item_age", "user_recency"):
        assert np.isnan(feature(name, tables)).all(), name
    assert np.isfinite(feature("popularity", tables)).all()


def test_shared_entities_are_weighted_by_rarity() -> None:
    red, big, rare = (float(np.log(4 / owners)) for owners in (2, 2, 1))
    nan = np.nan
    expected = [
        [red + big / 2, red, big / 2, nan],  # half of user 0's items are big, both are red
        [2 / 3 * red + 1 / 3 * big, 2 / 3 * red, 1 / 3 * (big + rare), nan],
        [nan, nan, nan, nan],
    ]
    assert feature("shared_entities") == pytest.approx(np.array(expected), nan_ok=True)


def test_recent_shared_entities_decay() -> None:
    red, big = (float(np.log(4 / owners)) for owners in (2, 2))
    old, new = 0.7 / 1.7, 1 / 1.7
    expected = [(old + new) * red + old * big, red, old * big, np.nan]
    assert feature("shared_entities_recent")[0] == pytest.approx(expected, nan_ok=True)


def test_entity_similarity_is_the_cosine_of_the_rarities_summed_over_the_history() -> None:
    # rarities in units of log 2: item 0 (1, 1, 0), item 1 (1, 0, 0), item 2 (0, 1, 2)
    zero_one, zero_two = 1 / np.sqrt(2), 1 / np.sqrt(2 * 5)
    expected = [
        [0.7 + zero_one, 0.7 * zero_one + 1, 0.7 * zero_two, NAN],
        [1.49 * zero_one + 0.7 * zero_two, 1.49, 0.7, NAN],
        NOTHING,
    ]
    assert_feature("entity_similarity", expected)
    expected = [[1 + zero_one, zero_one + 1, zero_two, NAN], [2 * zero_one + zero_two, 2, 1, NAN], NOTHING]
    assert_feature("entity_similarity", expected, toy_tables(order="none"))


def test_entity_count() -> None:
    assert feature("entity_count")[0] == pytest.approx(np.log1p([2, 1, 2, 0]))


def test_number_distance_is_to_the_users_mean() -> None:
    mean = (3 + 5 + 3) / 3
    expected = [
        [1 / SPREAD, 1 / SPREAD, 3 / SPREAD, np.nan],
        [(mean - 1) / SPREAD, (mean - 3) / SPREAD, (5 - mean) / SPREAD, np.nan],
        [np.nan] * 4,
    ]
    assert feature("number_distance") == pytest.approx(np.array(expected), nan_ok=True)


def test_number_distance_averages_the_known_columns() -> None:
    numbers = np.column_stack([NUMBERS, [0.0, np.nan, 2.0, 4.0]])
    second = np.abs(np.array([0.0, 2.0]) - 0.0) / np.std([0.0, 2.0, 4.0])
    found = feature("number_distance", toy_tables(numbers=numbers))[0]
    assert found[0] == pytest.approx((1 / SPREAD + second[0]) / 2)
    assert found[1] == pytest.approx(1 / SPREAD)  # the second column is unknown
    assert found[2] == pytest.approx((3 / SPREAD + second[1]) / 2)


def test_without_entities_and_numbers_their_features_are_missing() -> None:
    tables = toy_tables(item_entities=sp.csr_matrix((4, 0)), numbers=np.zeros((4, 0)))
    for name in ("shared_entities", "shared_entities_recent", "entity_similarity", "number_distance"):
        assert np.isnan(feature(name, tables)).all(), name
    assert (feature("entity_count", tables) == 0).all()


@pytest.mark.parametrize("name", SOURCE_SCORES)
@pytest.mark.parametrize("order", ["ahead", "none"])
def test_every_source_score_is_standardised_over_the_users_candidates(name: str, order: str) -> None:
    tables = replace(
        toy_tables(order=order),
        factors=np.array([[1.0], [2.0], [0.0], [3.0]], dtype=np.float32),
        factor_gram=np.array([[49.0]]),
    )
    for values, found in zip(feature(name, tables), feature(f"{name}_z", tables), strict=True):
        known = np.isfinite(values)
        assert np.isnan(found[~known]).all()
        spread = values[known].std() if known.any() else 0
        expected = (values[known] - values[known].mean()) / spread if spread > 0 else np.zeros(known.sum())
        np.testing.assert_allclose(found[known], expected, atol=2e-5)


def test_padding_and_missing_scores_do_not_count_in_the_standardisation() -> None:
    values = np.array([[1.0, 3.0, NAN, 99.0], [5.0, 5.0, 5.0, 5.0]])[None]
    real = np.array([[True, True, True, False], [True] * 4])
    found = standardise_scores(values, real)[0]
    np.testing.assert_array_equal(found[0, :3], [-1, 1, NAN])
    np.testing.assert_array_equal(found[1], [0, 0, 0, 0])


def test_only_the_latest_items_of_a_long_history_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_scores_module, "LATEST", 1)
    tables = toy_tables()
    assert feature("cooccurrence", tables)[0] == pytest.approx(tables.cooccurrence.toarray()[1])
    assert feature("history_length", tables)[0, 0] == pytest.approx(np.log1p(2))


def test_every_feature_has_its_test_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in FEATURES if f'"{name}"' not in text and not name.endswith("_z")] == []
