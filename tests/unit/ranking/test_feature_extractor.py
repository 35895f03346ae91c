"""What the extractor of ranking features promises as a whole, and the tables that it reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from reckg.errors import ArtifactError, DataError
from reckg.ranking.features import extract as features_module
from reckg.ranking.features.extract import FEATURES
from reckg.ranking.tables import row_sums as row_sums_module
from reckg.ranking.tables.feature_tables import load_feature_tables
from reckg.retrieval.scored_items import ScoredItems
from tests.small_features import (
    ATTRIBUTES,
    DAY,
    ITEM_VECTORS,
    NOW,
    NUMBERS,
    USER_VECTORS,
    extract_features,
    part_of,
    random_world,
    toy_history,
    toy_tables,
)


def test_every_feature_of_padding_is_missing_and_of_a_candidate_is_a_float() -> None:
    candidates = ScoredItems(np.array([[2, -1]]), np.array([[0.5, -np.inf]], dtype=np.float32))
    vectors = USER_VECTORS[:1], ITEM_VECTORS
    found = extract_features(toy_tables(), toy_history(), np.array([0]), candidates, *vectors)
    lacking = [name for name, value in zip(FEATURES, found[0], strict=True) if not np.isfinite(value)]
    assert lacking == ["factors", "factors_z", "popularity_near"]
    assert np.isnan(found[1]).all()
    assert found.dtype == np.float32


@pytest.mark.parametrize("items", [[], [3]])
def test_no_candidate_or_one_is_no_error(items: list[int]) -> None:
    candidates = ScoredItems(np.array([items, items], dtype=np.int64), np.ones((2, len(items)), dtype=np.float32))
    vectors = USER_VECTORS[:2], ITEM_VECTORS
    found = extract_features(toy_tables(), toy_history(), np.arange(2), candidates, *vectors)
    assert found.shape == (2 * len(items), len(FEATURES))


@pytest.mark.parametrize("order", ["ahead", "between", "none"])
def test_a_user_gets_the_same_bits_alone_and_in_any_batch(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = random_world(0, order)
    batch = part_of(world, np.arange(30))
    assert np.isfinite(batch[:, 0, FEATURES.index("linear")]).any() and world[0].factors.shape[1] > 4
    assert np.array_equal(np.isnan(batch).all(axis=2), world[2].item_idx < 0)
    rng = np.random.default_rng(1)
    for users in (np.arange(30)[::-1], rng.integers(0, 30, 7), rng.permutation(30)[:2], rng.integers(0, 30, 64)):
        for width in (12, 13, 40):
            assert np.array_equal(part_of(world, users, width)[:, :12], batch[users], equal_nan=True)
    real = (world[2].item_idx >= 0).sum(axis=1)
    for user in range(30):
        own = part_of(world, np.array([user]), max(1, real[user]))
        assert np.array_equal(own[0], batch[user, : max(1, real[user])], equal_nan=True)
    monkeypatch.setattr(features_module, "CELLS_AT_ONCE", 5000)  # a few users a block
    assert features_module.block_users(world[0], 12) < 10
    assert np.array_equal(part_of(world, np.arange(30)), batch, equal_nan=True)
    for name, value in (("FEW_ENTRIES", 0), ("SPARSE", 0), ("SPARSE", 10**9)):  # other ways to the same sums
        with monkeypatch.context() as other:
            other.setattr(row_sums_module, name, value)
            assert np.array_equal(part_of(world, np.arange(30)), batch, equal_nan=True), (name, value)
            own = part_of(world, np.array([4]), int(real[4]))
            assert np.array_equal(own[0], batch[4, : real[4]], equal_nan=True), (name, value)


def test_a_row_depends_on_its_own_user_alone() -> None:
    """Another user's history, candidates and vector change none of its bits."""
    world = random_world(2)
    tables, history, candidates, vectors, item_vectors = world
    before = part_of(world, np.arange(30))
    items, score, other = candidates.item_idx.copy(), candidates.score.copy(), vectors.copy()
    items[1:, :3], score[1:, :3], other[1:] = [[3, 2, 1]], 1.0, 7.0
    after = part_of((tables, history, ScoredItems(items, score), other, item_vectors), np.arange(30))
    assert np.array_equal(after[0], before[0], equal_nan=True) and not np.array_equal(after[1], before[1])


def test_save_and_load_give_the_same_features(tmp_path: Path) -> None:
    world = random_world(1)
    world[0].save(tmp_path / "features")
    loaded = load_feature_tables(tmp_path / "features")
    again = part_of((loaded, *world[1:]), np.arange(30))
    assert np.array_equal(again, part_of(world, np.arange(30)), equal_nan=True)
    assert str(tmp_path / "features" / "features.safetensors") in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_tables_without_a_linear_model_and_texts_come_back_without_them(tmp_path: Path) -> None:
    toy_tables(linear_items=0, text=None).save(tmp_path)
    loaded = load_feature_tables(tmp_path)
    assert loaded.linear is None and loaded.text_neighbours is None and loaded.text.shape == (4, 0)
    assert (loaded.order, loaded.graph_dim) == ("ahead", 2)


@pytest.mark.parametrize("order", ["ahead", "between"])
def test_the_time_of_the_state_is_kept_and_older_tables_tell_it_where_they_have_times(
    tmp_path: Path, order: str
) -> None:
    tables = toy_tables(order=order)
    tables.save(tmp_path)
    assert load_feature_tables(tmp_path).now == tables.now == NOW
    described = tmp_path / "features.json"
    older = {name: value for name, value in json.loads(described.read_text()).items() if name != "now"}
    described.write_text(json.dumps(older))
    assert load_feature_tables(tmp_path).now == (None if order == "ahead" else toy_history().timestamp.max())


def test_damaged_or_foreign_tables_are_refused(tmp_path: Path) -> None:
    toy_tables().save(tmp_path)
    path, described = tmp_path / "features.safetensors", tmp_path / "features.json"
    payload, description = path.read_bytes(), described.read_text()
    path.write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="damaged"):
        load_feature_tables(tmp_path)
    path.write_bytes(payload)
    described.write_text(json.dumps(json.loads(description) | {"columns": ["other"]}))
    with pytest.raises(ArtifactError, match="tables of format 2 with 1 columns; this version of reckg reads others"):
        load_feature_tables(tmp_path)
    for text in ("", "{}", "[]"):
        described.write_text(text)
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_feature_tables(tmp_path)
    described.write_text(json.dumps(json.loads(description) | {"n_items": 3}))
    with pytest.raises(ArtifactError, match=r"features\.safetensors is damaged, or of another run"):
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
        toy_tables(item_vectors=ITEM_VECTORS[:3, :2])
    with pytest.raises(DataError, match="the entities' matrices 2 users and 4 items"):
        toy_tables(user_entities=sp.csr_matrix(ATTRIBUTES[:2]))
