"""Why a feature is missing: every cause by hand, one for every missing value, and what the library answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from reckg.bundle.bundle import Bundle
from reckg.errors import UnknownIdError
from reckg.ranking.features.extract import FEATURES, candidate_features
from reckg.ranking.features.missing_values import CAUSES, NEEDED, missing_causes
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.recommend.feature_values import FeatureValue
from reckg.recommend.recommender import Recommender
from reckg.retrieval.scored_items import ScoredItems
from tests.small_bundle import candidates_of, small_bundle
from tests.small_features import (
    ATTRIBUTES,
    ITEM_VECTORS,
    USER_VECTORS,
    extract_features,
    random_world,
    toy_history,
    toy_tables,
)

ITEMS = ScoredItems(np.tile(np.arange(4), (3, 1)), np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (3, 1)))


def causes(tables: FeatureTables) -> dict[str, list[list[str]]]:
    """By feature, the causes of users 0, 1, 2 (without a history) and items 0, 1, 2, 3 (of which nothing is known)."""
    scores = UserScores(tables, toy_history(), np.arange(3), USER_VECTORS, ITEM_VECTORS)
    features = candidate_features(scores, ITEMS)
    found = missing_causes(scores, features)
    assert found.dtype == np.int8 and np.array_equal(found > 0, np.isnan(features))
    return {name: [[CAUSES[c] for c in row] for row in found[:, :, n]] for n, name in enumerate(FEATURES)}


THERE = ["", "", "", ""]
ITEM_LACKS = ["", "", "", "absent"]
UNKNOWN, ABSENT, OLD = (["unknown user"] * 4, ["absent"] * 4, ["too old"] * 4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {},
            {
                "cooccurrence": [THERE] * 3,
                "factors": [ABSENT] * 3,  # too few users to factorise
                "closest_similarity": [THERE, THERE, UNKNOWN],
                "shared_entities": [ITEM_LACKS, ITEM_LACKS, UNKNOWN],
                "shared_entities_recent": [ITEM_LACKS, ITEM_LACKS, UNKNOWN],
                "entity_similarity": [ITEM_LACKS, ITEM_LACKS, UNKNOWN],
                "number_distance": [ITEM_LACKS, ITEM_LACKS, UNKNOWN],
                "item_age": [ITEM_LACKS] * 3,  # it has no interaction
                "user_recency": [THERE, THERE, UNKNOWN],
                "popularity_near": [OLD] * 3,  # what is asked for comes after the history
                "attribute_affinity": [THERE] * 3,
            },
        ),
        (
            {"order": "between", "now": None},
            {
                "cooccurrence_recent": [OLD] * 3,
                "cooccurrence_last": [OLD] * 3,
                "profile_similarity_last": [OLD] * 3,
                "text_similarity_last": [OLD] * 3,
                "shared_entities_recent": [OLD] * 3,
                "recent_popularity": [OLD] * 3,
                "latest_popularity": [OLD] * 3,
                "popularity_trend": [OLD] * 3,
                "item_age": [OLD] * 3,
                "user_recency": [OLD] * 3,
                "popularity_near": [OLD] * 3,
            },
        ),
        ({"order": "between"}, {"popularity_near": [THERE, THERE, UNKNOWN], "recent_popularity": [THERE] * 3}),
        (
            {
                "text": None,
                "linear_items": 0,
                "item_entities": np.zeros((4, 0)),
                "numbers": np.zeros((4, 0)),
                "user_entities": sp.csr_matrix((3, 2)),
            },
            {
                "text_similarity": [ABSENT] * 3,
                "text_similarity_last": [ABSENT] * 3,
                "linear": [ABSENT] * 3,
                "shared_entities": [ABSENT] * 3,
                "entity_similarity": [ABSENT] * 3,
                "number_distance": [ABSENT] * 3,
                "attribute_affinity": [ABSENT] * 3,
            },
        ),
        (
            {"user_entities": sp.csr_matrix(ATTRIBUTES * [[1], [0], [1]])},
            {"attribute_affinity": [THERE, UNKNOWN, THERE]},
        ),
    ],
)
def test_every_cause_by_hand(change: dict[str, Any], expected: dict[str, list[list[str]]]) -> None:
    found = causes(toy_tables(**change))
    for name, rows in expected.items():
        assert found[name] == rows, name
        if f"{name}_z" in FEATURES:
            assert found[f"{name}_z"] == rows, name


def test_the_time_of_items_given_in_a_request_is_not_known() -> None:
    tables = toy_tables()
    users = tables.users.copy()
    users[0, 1] = np.nan  # as fold_in leaves it
    assert causes(replace(tables, users=users))["user_recency"] == [OLD, THERE, UNKNOWN]


@pytest.mark.parametrize("order", ["ahead", "between", "none"])
def test_every_missing_value_has_a_cause_that_its_feature_can_have(order: str) -> None:
    tables, history, candidates, vectors, item_vectors = random_world(0, order)
    scores = UserScores(tables, history, np.arange(30), vectors, item_vectors)
    features = candidate_features(scores, candidates)
    found = missing_causes(scores, features)
    assert np.array_equal(found > 0, np.isnan(features))
    real = candidates.item_idx >= 0
    without = [name for n, name in enumerate(FEATURES) if (found[real][:, n] > 0).any()]
    assert {name.removesuffix("_z") for name in without} <= set(NEEDED)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


def test_the_library_tells_what_the_ranker_sees(bundle: Bundle) -> None:
    user = np.array([4])
    candidates = candidates_of(bundle, user)
    vectors = bundle.user_vectors[user], bundle.item_vectors
    features = extract_features(bundle.features, bundle.history, user, candidates, *vectors)
    ids = bundle.item_ids.raw(candidates.item_idx[0])
    told = Recommender(bundle).explain_features("u004", ids[::-1])
    assert list(told) == ids[::-1]
    for item_id, values in zip(ids, features, strict=True):
        assert list(told[item_id]) == list(FEATURES)
        for name, value in zip(FEATURES, values.tolist(), strict=True):
            given = told[item_id][name]
            assert (given.value == value and given.cause == "") if np.isfinite(value) else given.value is None
    assert told[ids[0]]["text_similarity"] == FeatureValue(None, "absent")
    assert told[ids[0]]["popularity_near"] == FeatureValue(None, "too old")


def test_items_of_the_history_and_users_without_one_are_explained_too(bundle: Bundle) -> None:
    recommender = Recommender(bundle)
    own = bundle.item_ids.raw(bundle.history.items(4))[0]
    told = recommender.explain_features("u004", [own])[own]
    assert told["retrieval_score"].value == pytest.approx(
        float(bundle.user_vectors[4] @ bundle.item_vectors[bundle.item_ids.idx(own)]), abs=1e-6
    )
    cold = recommender.explain_features("u039", ["i000"])["i000"]
    assert cold["closest_similarity"] == FeatureValue(None, "unknown user")
    assert cold["history_length"] == FeatureValue(0.0)
    unranked = Recommender(replace(bundle, ranker=None)).explain_features("u004", [own, "i001"])
    assert set(unranked) == {own, "i001"}
    with pytest.raises(UnknownIdError, match="'nothing'"):
        recommender.explain_features("u004", ["nothing"])
