"""Every ranking feature by hand on a toy world, and what the extractor promises as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from reckg.data.history import History
from reckg.errors import ArtifactError, DataError
from reckg.ranking import features as features_module
from reckg.ranking.features import FEATURES, extract_features
from reckg.ranking.item_item import linear_weights
from reckg.ranking.tables import FeatureTables, build_feature_tables, load_feature_tables
from reckg.retrieval.scored_items import ScoredItems

DAY = 86_400
NOW = 100 * DAY

# user  items, with the day            item  entities      number
#  0    0 (day 10), 1 (day 90)          0    red, big      1
#  1    1 (day 95), 2 (day 99), 1       1    red           3
#  2    -                               2    big, rare     5
#                                       3    -             -
EVENTS = [(0, 0, 10), (0, 1, 90), (1, 1, 95), (1, 2, 99), (1, 1, 100)]
ENTITIES = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]])
NUMBERS = np.array([[1.0], [3.0], [5.0], [np.nan]])
VECTORS = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
SPREAD = float(np.std([1.0, 3.0, 5.0]))


def toy_history() -> History:
    frame = pl.DataFrame(EVENTS, schema=["user_idx", "item_idx", "day"], orient="row")
    return History.from_interactions(frame.with_columns(timestamp=pl.col("day") * DAY), 3)


def toy_tables(**changes: Any) -> FeatureTables:
    settings: dict[str, Any] = {
        "n_users": 3,
        "n_items": 4,
        "item_entities": sp.csr_matrix(ENTITIES),
        "numbers": NUMBERS,
        "now": NOW,
        "neighbours": 10,
        "ordered": True,
        "item_vectors": VECTORS,
    }
    return build_feature_tables(toy_history(), **(settings | changes))


def feature(name: str, tables: FeatureTables | None = None) -> np.ndarray:
    """(3 users, 4 candidates): one feature with the items 0..3 as every user's candidates."""
    candidates = ScoredItems(np.tile(np.arange(4), (3, 1)), np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (3, 1)))
    found = extract_features(tables or toy_tables(), toy_history(), np.arange(3), candidates)
    return found.reshape(3, 4, -1)[:, :, FEATURES.index(name)]


def test_retrieval_score_and_rank() -> None:
    assert feature("retrieval_score").tolist() == [[4, 3, 2, 1]] * 3
    assert feature("retrieval_rank").tolist() == [[0, 1, 2, 3]] * 3


def test_cooccurrence_is_summed_over_the_history() -> None:
    tables = toy_tables()
    matrix = tables.cooccurrence.toarray()
    assert matrix[1, 2] > 0 and matrix[0, 1] > 0
    expected = np.array([matrix[0] + matrix[1], matrix[1] + matrix[2] + matrix[1], np.zeros(4)])
    assert feature("cooccurrence", tables) == pytest.approx(expected, abs=1e-6)


def test_recent_cooccurrence_decays_with_the_age_in_the_history() -> None:
    tables = toy_tables()
    matrix = tables.cooccurrence.toarray()
    expected = np.array([0.7 * matrix[0] + matrix[1], 0.49 * matrix[1] + 0.7 * matrix[2] + matrix[1], np.zeros(4)])
    assert feature("cooccurrence_recent", tables) == pytest.approx(expected, abs=1e-6)


def test_recent_features_are_missing_without_an_order() -> None:
    tables = toy_tables(ordered=False)
    assert np.isnan(feature("cooccurrence_recent", tables)).all()
    assert np.isnan(feature("shared_entities_recent", tables)).all()
    assert (feature("cooccurrence", tables)[:2] > 0).any()


def test_linear_is_the_linear_model_of_the_history() -> None:
    weights = linear_weights(toy_history(), 4, 300.0, 4).toarray()
    expected = np.array([weights[0] + weights[1], 2 * weights[1] + weights[2], np.zeros(4)])
    assert feature("linear") == pytest.approx(expected, rel=1e-4)


def test_linear_is_missing_in_large_catalogues() -> None:
    tables = toy_tables(linear_items=3)
    assert tables.linear is None
    assert np.isnan(feature("linear", tables)).all()


def test_popularity() -> None:
    assert feature("popularity")[0] == pytest.approx(np.log1p([1, 3, 1, 0]))


def test_recent_popularity_and_trend_look_at_the_latest_tenth() -> None:
    # the 0.9 quantile of the days 10, 90, 95, 99, 100 is 99.6: one interaction, of item 1
    assert feature("recent_popularity")[0] == pytest.approx(np.log1p([0, 1, 0, 0]))
    share = 1 / 5
    expected = np.log([1 / (1 + share), 2 / (1 + 3 * share), 1 / (1 + share), 1])
    assert feature("popularity_trend")[0] == pytest.approx(expected, abs=1e-6)


def test_item_age_counts_days_since_the_first_interaction() -> None:
    assert feature("item_age")[0] == pytest.approx([*np.log1p([90, 10, 1]), np.nan], nan_ok=True)


def test_history_length() -> None:
    assert feature("history_length")[:, 0] == pytest.approx(np.log1p([2, 3, 0]))


def test_user_recency_counts_days_since_the_last_interaction() -> None:
    assert feature("user_recency")[:, 0] == pytest.approx([np.log1p(10), np.log1p(0), np.nan], nan_ok=True)


def test_time_features_are_missing_without_times() -> None:
    tables = toy_tables(now=None)
    for name in ("recent_popularity", "popularity_trend", "item_age", "user_recency"):
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


def test_last_similarity_is_the_cosine_to_the_last_item() -> None:
    expected = [[0.6, 1.0, -0.8, 0.0], [0.6, 1.0, -0.8, 0.0], [np.nan] * 4]  # item 1 is the last of both users
    assert feature("last_similarity") == pytest.approx(np.array(expected), abs=1e-3, nan_ok=True)


@pytest.mark.parametrize("change", [{"ordered": False}, {"item_vectors": None}])
def test_last_similarity_is_missing_without_an_order_or_vectors(change: dict[str, Any]) -> None:
    assert np.isnan(feature("last_similarity", toy_tables(**change))).all()


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
    for name in ("shared_entities", "shared_entities_recent", "number_distance"):
        assert np.isnan(feature(name, tables)).all(), name
    assert (feature("entity_count", tables) == 0).all()


def test_every_feature_of_padding_is_missing() -> None:
    candidates = ScoredItems(np.array([[2, -1]]), np.array([[0.5, -np.inf]], dtype=np.float32))
    found = extract_features(toy_tables(), toy_history(), np.array([0]), candidates)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def random_world(seed: int, n_users: int = 30, n_items: int = 50) -> tuple[FeatureTables, History, ScoredItems]:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "user_idx": rng.integers(0, n_users - 1, 400),
            "item_idx": rng.integers(0, n_items, 400),
            "timestamp": rng.integers(0, NOW, 400),
        }
    )
    history = History.from_interactions(frame, n_users)
    tables = build_feature_tables(
        history,
        n_users=n_users,
        n_items=n_items,
        item_entities=sp.csr_matrix(rng.random((n_items, 20)) < 0.2),
        numbers=np.where(rng.random((n_items, 2)) < 0.1, np.nan, rng.normal(size=(n_items, 2))),
        now=NOW,
        neighbours=7,
        ordered=True,
        item_vectors=rng.normal(size=(n_items, 16)),
    )
    items = np.array([rng.permutation(n_items)[:12] for _ in range(n_users)])
    return tables, history, ScoredItems(items, -np.sort(-rng.normal(size=items.shape)).astype(np.float32))


def test_a_user_gets_the_same_bits_alone_and_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, history, candidates = random_world(0)
    batch = extract_features(tables, history, np.arange(30), candidates).reshape(30, 12, -1)
    monkeypatch.setattr(features_module, "CELLS_AT_ONCE", 700)  # a few users a block
    blocks = extract_features(tables, history, np.arange(30), candidates).reshape(30, 12, -1)
    assert np.array_equal(batch, blocks, equal_nan=True)
    monkeypatch.setattr(features_module, "FEW_ENTRIES", 0)
    other_way = extract_features(tables, history, np.arange(30), candidates).reshape(30, 12, -1)
    assert np.array_equal(batch, other_way, equal_nan=True)
    for user in range(30):
        one = ScoredItems(candidates.item_idx[user : user + 1], candidates.score[user : user + 1])
        assert np.array_equal(extract_features(tables, history, np.array([user]), one), batch[user], equal_nan=True)


def test_only_the_latest_items_of_a_long_history_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "LATEST", 1)
    tables = toy_tables()
    assert feature("cooccurrence", tables)[0] == pytest.approx(tables.cooccurrence.toarray()[1])


def test_save_and_load_give_the_same_features(tmp_path: Path) -> None:
    tables, history, candidates = random_world(1)
    tables.save(tmp_path / "features")
    loaded = load_feature_tables(tmp_path / "features")
    expected = extract_features(tables, history, np.arange(30), candidates)
    assert np.array_equal(extract_features(loaded, history, np.arange(30), candidates), expected, equal_nan=True)


def test_tables_without_a_linear_model_and_vectors_come_back_without_them(tmp_path: Path) -> None:
    toy_tables(linear_items=0, item_vectors=None).save(tmp_path)
    loaded = load_feature_tables(tmp_path)
    assert loaded.linear is None and loaded.vectors is None


def test_damaged_or_foreign_tables_are_refused(tmp_path: Path) -> None:
    toy_tables().save(tmp_path)
    path, described = tmp_path / "features.safetensors", tmp_path / "features.json"
    payload, description = path.read_bytes(), described.read_text()
    path.write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="damaged"):
        load_feature_tables(tmp_path)
    path.write_bytes(payload)
    described.write_text(json.dumps(json.loads(description) | {"columns": ["other"]}))
    with pytest.raises(ArtifactError, match="tables of format 1 with 1 columns; this version of reckg reads others"):
        load_feature_tables(tmp_path)
    for text in ("", "{}", "[]"):
        described.write_text(text)
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_feature_tables(tmp_path)
    described.write_text(json.dumps(json.loads(description) | {"n_items": 3}))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_feature_tables(tmp_path)


def test_an_interaction_after_the_time_of_the_features_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 of 5 interactions are later than the time of the features"):
        toy_tables(now=98 * DAY)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="history has 3 users"):
        toy_tables(n_users=4)
    with pytest.raises(DataError, match=r"the numbers the shape \(3, 1\)"):
        toy_tables(numbers=NUMBERS[:3])
    with pytest.raises(DataError, match=r"their vectors have the shape \(3, 2\)"):
        toy_tables(item_vectors=VECTORS[:3])
    tables, history = toy_tables(), toy_history()
    two = ScoredItems(np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32))
    with pytest.raises(DataError, match="features of 1 users for candidates"):
        extract_features(tables, history, np.array([0]), two)
    with pytest.raises(DataError, match="user_idx 0 to 3: the tables have 3 users"):
        extract_features(tables, history, np.array([0, 3]), two)
    with pytest.raises(DataError, match="item_idx 4 to 4: the tables have 4 items"):
        extract_features(tables, history, np.array([0, 1]), ScoredItems(two.item_idx + 4, two.score))
