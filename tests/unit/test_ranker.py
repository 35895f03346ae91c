"""The ranker: what it learns, when the guard refuses it, how its score is made, and what is read back."""

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
from reckg.ranking import ranker as ranker_module
from reckg.ranking.blend import Blend, fit_blend
from reckg.ranking.features import FEATURES
from reckg.ranking.ranker import Ranker, RankerResult, fit_ranker, load_ranker, train_ranker
from reckg.ranking.tables import build_feature_tables
from reckg.retrieval.index import build_index
from reckg.retrieval.scored_items import ScoredItems

N, C = 120, 20
SETTINGS = {"trees": 30, "min_data_in_leaf": 20, "folds": 3}


class World:
    """N label users with C candidates; the labels follow one feature or none, and may avoid another."""

    def __init__(self, signal: str | None, seed: int = 0, against: str | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.items = np.array([rng.permutation(100)[:C] for _ in range(N)])
        score = -np.sort(-rng.normal(size=(N, C)), axis=1).astype(np.float32)
        self.candidates = ScoredItems(self.items, score)
        values = np.full((N, C, len(FEATURES)), np.nan, dtype=np.float32)
        values[:, :, FEATURES.index("retrieval_score")] = score
        values[:, :, FEATURES.index("retrieval_rank")] = np.arange(C)
        for name in ("cooccurrence", "popularity", "item_age"):
            values[:, :, FEATURES.index(name)] = rng.random((N, C))
        self.features = values.reshape(N * C, -1)
        chance = 0.5 * score + rng.gumbel(size=(N, C))
        if signal is not None:
            chance += 8 * values[:, :, FEATURES.index(signal)]
        if against is not None:
            chance -= 8 * values[:, :, FEATURES.index(against)]
        best = np.argsort(-chance, axis=1)[:, :2]
        self.relevant = np.arange(N + 1) * 2, np.take_along_axis(self.items, best, axis=1).ravel()

    def train(self, **settings: object) -> RankerResult:
        return train_ranker(self.features, self.candidates, self.relevant, **(SETTINGS | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served() -> tuple[World, Ranker]:
    world = World("popularity")
    result = world.train()
    assert result.ranker is not None, result.info
    return world, result.ranker


@pytest.mark.parametrize("signal", ["popularity", "cooccurrence"])
def test_a_signal_in_a_feature_is_learnt_and_served(signal: str) -> None:
    result = World(signal).train()
    assert result.ranker is not None
    means = result.info["out_of_fold_ndcg@10"]
    assert means["ranker"] > means["retrieval"] + 0.1
    assert result.info["difference"]["low"] > 0
    assert (means["blend"] > means["retrieval"] + 0.1) == (signal == "cooccurrence")  # only it is a source score
    assert result.info["served"] and "is better than retrieval's" in result.info["why"]


def test_where_trees_add_nothing_the_blend_is_served_alone(tmp_path: Path) -> None:
    world = World("cooccurrence")
    flat = world.features.copy()
    for name in ("popularity", "item_age", "retrieval_rank"):
        flat[:, FEATURES.index(name)] = np.nan  # the blend has all there is to know
    result = train_ranker(flat, world.candidates, world.relevant, **(SETTINGS | {"learning_rate": 1.0, "leaves": 2}))  # type: ignore[arg-type]
    assert result.ranker is not None and result.info["trees"] == 0
    reranked = result.ranker.rerank(world.candidates, flat)
    order = np.argsort(-result.ranker.blend.scores(flat).reshape(N, C), axis=1, kind="stable")
    np.testing.assert_array_equal(reranked.item_idx, np.take_along_axis(world.items, order, axis=1))
    result.save(tmp_path)
    loaded = load_ranker(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.rerank(world.candidates, flat).score, reranked.score)


def test_the_guard_refuses_a_ranker_that_does_not_help() -> None:
    world = World(None)
    result = world.train()
    assert result.ranker is None
    assert not result.info["served"]
    assert "not clearly better than retrieval's" in result.info["why"]
    assert set(result.info["out_of_fold_ndcg@10"]) == {"retrieval", "blend", "ranker"}


def test_the_guard_judges_users_outside_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """With labels at random a forest that may memorise fits them, and is refused all the same."""
    world = World(None, seed=3)
    monkeypatch.setattr(ranker_module, "MONOTONE", {})
    result = world.train(leaves=60, min_data_in_leaf=1, learning_rate=0.5)
    assert result.ranker is None
    assert result.info["difference"]["mean"] < 0.02


def test_the_guards_figures_are_those_of_all_label_users(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    some = np.repeat(np.isin(np.arange(N), np.arange(40)), 2)
    elsewhere = world.relevant[0], np.where(some, 1000 + np.arange(2 * N), world.relevant[1])
    result = train_ranker(world.features, world.candidates, elsewhere, **SETTINGS)  # type: ignore[arg-type]
    assert result.info["label_users"] == N
    assert result.info["label_users_without_relevant_candidate"] == 40
    assert result.info["labels_among_candidates"] == 2 * (N - 40)
    whole, less = ranker.info["out_of_fold_ndcg@10"]["retrieval"], result.info["out_of_fold_ndcg@10"]["retrieval"]
    assert less == pytest.approx(whole * (N - 40) / N, rel=0.2)  # 40 users count, with 0


def test_too_few_queries_are_refused_with_their_count() -> None:
    world = World("popularity")
    nowhere = world.relevant[0], 1000 + np.arange(2 * N)
    result = train_ranker(world.features, world.candidates, nowhere, **SETTINGS)  # type: ignore[arg-type]
    assert result.ranker is None
    assert "only 0 of 120 label users have a relevant item among their first 20 candidates" in result.info["why"]


def test_the_score_is_blend_plus_trees_and_falls(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    found = ranker.rerank(world.candidates, world.features)
    trees = ranker._booster.predict(world.features, raw_score=True)
    expected = (trees + ranker.blend.scores(world.features)).reshape(N, C)
    assert np.abs(trees).max() > 0.1 and np.ptp(ranker.blend.scores(world.features)) > 0.1
    assert found.score == pytest.approx(-np.sort(-expected, axis=1), abs=1e-5)
    assert (np.diff(found.score, axis=1) <= 0).all()
    assert np.array_equal(np.sort(found.item_idx, axis=1), np.sort(world.items, axis=1))


def test_a_list_is_reranked_alone_as_in_a_batch(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    batch = ranker.rerank(world.candidates, world.features)
    one = ScoredItems(world.items[7:8], world.candidates.score[7:8])
    alone = ranker.rerank(one, world.features[7 * C : 8 * C])
    assert np.array_equal(alone.item_idx[0], batch.item_idx[7])
    assert np.array_equal(alone.score[0], batch.score[7])


def test_padding_stays_at_the_end(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    items, score, features = world.items[:2].copy(), world.candidates.score[:2].copy(), world.features[: 2 * C].copy()
    items[1, 5:], score[1, 5:], features[C + 5 :] = -1, -np.inf, np.nan
    found = ranker.rerank(ScoredItems(items, score), features)
    assert (found.item_idx[1, 5:] == -1).all() and np.isneginf(found.score[1, 5:]).all()
    assert set(found.item_idx[1, :5].tolist()) == set(items[1, :5].tolist())
    assert np.isfinite(found.score[1, :5]).all()


def test_padding_teaches_nothing() -> None:
    """Lists with padding give the very ranker that the same lists give without those columns."""
    world = World("popularity")
    wide = ScoredItems(
        np.pad(world.items, ((0, 0), (0, 5)), constant_values=-1),
        np.pad(world.candidates.score, ((0, 0), (0, 5)), constant_values=-np.inf),
    )
    values = np.pad(world.features.reshape(N, C, -1), ((0, 0), (0, 5), (0, 0)), constant_values=np.nan)
    padded = train_ranker(values.reshape(N * (C + 5), -1), wide, world.relevant, **SETTINGS)  # type: ignore[arg-type]
    plain = world.train()
    assert padded.ranker is not None and plain.ranker is not None
    again = plain.ranker.rerank(world.candidates, world.features)
    found = padded.ranker.rerank(world.candidates, world.features)
    assert np.array_equal(found.item_idx, again.item_idx)
    assert padded.info["out_of_fold_ndcg@10"] == pytest.approx(plain.info["out_of_fold_ndcg@10"])


@pytest.mark.parametrize("name", ["retrieval_score", "cooccurrence"])
def test_a_higher_source_score_never_lowers_the_result(name: str) -> None:
    """Not even where the labels say that it should."""
    world = World("popularity", against="cooccurrence")
    ranker = world.train().ranker
    assert ranker is not None
    higher = world.features.copy()
    higher[:, FEATURES.index(name)] += 0.3
    before = ranker._booster.predict(world.features, raw_score=True) + ranker.blend.scores(world.features)
    after = ranker._booster.predict(higher, raw_score=True) + ranker.blend.scores(higher)
    assert (after >= before).all()


def test_trees_start_from_the_blend_and_see_a_sample_of_the_negatives() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((50, C, len(FEATURES))).astype(np.float32)
    real = np.ones((50, C), dtype=bool)
    real[:, 15:] = False
    hits = (rng.random((50, C)) < 0.2) & real
    blend = Blend({"retrieval_score": 2.0, "linear": 1.0})
    whole = ranker_module._Queries(features, hits, real)
    part = whole.sample(4, seed=1)
    assert (part.hits == hits).all() and part.real[hits].all() and not part.real[:, 15:].any()
    assert ((part.real & ~hits).sum(axis=1) == 4).all()
    assert (part.real != whole.sample(4, seed=2).real).any()
    data: Any = part.dataset(blend)
    assert np.array_equal(data.get_init_score(), blend.scores(features[part.real]))
    assert np.array_equal(data.get_label(), hits[part.real])
    assert data.get_group().tolist() == part.real.sum(axis=1).tolist()


def test_the_ranker_does_not_depend_on_the_threads() -> None:
    world = World("popularity")
    one, two = (world.train(threads=threads, trees=4, folds=2).ranker for threads in (1, 2))
    assert one is not None and two is not None
    first, second = (each.rerank(world.candidates, world.features) for each in (one, two))
    assert np.array_equal(first.score, second.score)


def test_save_and_load_rerank_the_same(served: tuple[World, Ranker], tmp_path: Path) -> None:
    world, ranker = served
    ranker.save(tmp_path / "ranker")
    loaded = load_ranker(tmp_path / "ranker")
    assert loaded is not None
    first, second = (each.rerank(world.candidates, world.features) for each in (ranker, loaded))
    assert np.array_equal(first.score, second.score) and np.array_equal(first.item_idx, second.item_idx)
    assert loaded.info == json.loads(json.dumps(ranker.info))


def test_a_refusal_is_written_and_read_as_none(served: tuple[World, Ranker], tmp_path: Path) -> None:
    served[1].save(tmp_path)
    RankerResult(None, {"why": "it does not help"}).save(tmp_path)
    assert load_ranker(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["ranker.json"]
    assert json.loads((tmp_path / "ranker.json").read_text())["info"] == {"why": "it does not help"}


def test_a_damaged_or_foreign_ranker_is_refused(served: tuple[World, Ranker], tmp_path: Path) -> None:
    served[1].save(tmp_path)
    model, described = tmp_path / "ranker.txt", tmp_path / "ranker.json"
    text, description = model.read_text(), json.loads(described.read_text())
    model.write_text(text[: len(text) // 2])
    with pytest.raises(ArtifactError, match="damaged"):
        load_ranker(tmp_path)
    model.write_text(text)
    for change, message in (
        ({"format_version": 99}, "format 99"),
        ({"features": ["other"]}, "other features"),
        ({"blend": {"other": 1.0}}, "unknown scores"),
        ({"blend": None}, "cannot be read"),
    ):
        described.write_text(json.dumps(description | change))
        with pytest.raises(ArtifactError, match=message):
            load_ranker(tmp_path)
    described.write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_ranker(tmp_path)
    model.unlink()
    described.unlink()
    with pytest.raises(ArtifactError, match=r"ranker\.json"):
        load_ranker(tmp_path)


def test_shapes_that_do_not_fit_are_refused(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    with pytest.raises(ValueError, match="expected n \\* c rows"):
        ranker.rerank(world.candidates, world.features[1:])
    with pytest.raises(DataError, match="they do not fit"):
        train_ranker(world.features[:, 1:], world.candidates, world.relevant)
    with pytest.raises(DataError, match="labels of 119 users"):
        train_ranker(world.features, world.candidates, (world.relevant[0][:-1], world.relevant[1][:-2]))


def test_the_blend_finds_the_weights_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    values = np.full((4000, 10, len(FEATURES)), np.nan)
    first, second = rng.normal(size=(4000, 10)), rng.normal(size=(4000, 10))
    values[:, :, FEATURES.index("retrieval_score")] = first
    values[:, :, FEATURES.index("linear")] = np.sign(second) * second**2  # enters as its signed root
    values[:, :, FEATURES.index("cooccurrence")] = rng.random((4000, 10))  # means nothing
    utility = 2.0 * first + 0.7 * second + rng.gumbel(size=(4000, 10))
    hits = utility == utility.max(axis=1, keepdims=True)
    weights = fit_blend(values, hits, np.ones_like(hits)).weights
    assert weights["retrieval_score"] == pytest.approx(2.0, rel=0.07)
    assert weights["linear"] == pytest.approx(0.7, rel=0.07)
    assert weights.get("cooccurrence", 0.0) < 0.15


def test_the_retrieval_score_always_counts_in_the_blend() -> None:
    rng = np.random.default_rng(1)
    values = np.full((500, 10, len(FEATURES)), np.nan)
    score = rng.normal(size=(500, 10))
    values[:, :, FEATURES.index("retrieval_score")] = score
    hits = score == score.min(axis=1, keepdims=True)  # the worst is chosen
    weights = fit_blend(values, hits, np.ones_like(hits)).weights
    assert weights == {"retrieval_score": pytest.approx(0.05 / score.std(), rel=0.1)}
    values[:] = 1.0
    with pytest.raises(DataError, match="all equal"):
        fit_blend(values, hits, np.ones_like(hits))
    with pytest.raises(DataError, match="no query has a relevant item"):
        fit_blend(values, np.zeros_like(hits), np.ones_like(hits))


def test_the_blend_learns_from_the_head_of_the_lists_only() -> None:
    rng = np.random.default_rng(2)
    values = np.full((800, 60, len(FEATURES)), np.nan)
    values[:, :, FEATURES.index("retrieval_score")] = -np.sort(-rng.normal(size=(800, 60)), axis=1)
    values[:, :, FEATURES.index("linear")] = rng.random((800, 60))
    hits = np.zeros((800, 60), dtype=bool)
    hits[np.arange(800), rng.integers(0, 50, 800)] = True
    before = fit_blend(values, hits, np.ones_like(hits))
    values[:, 50:] = 100.0
    hits[:, 55] = True
    assert fit_blend(values, hits, np.ones_like(hits)) == before


def test_a_blend_counts_missing_scores_as_nothing() -> None:
    values = np.full((2, len(FEATURES)), np.nan)
    values[:, FEATURES.index("retrieval_score")] = [2.0, -1.0]
    values[1, FEATURES.index("linear")] = -4.0
    assert Blend({"retrieval_score": 3.0, "linear": 0.5}).scores(values).tolist() == [6.0, -3.0 - 0.5 * 2.0]


def test_fit_ranker_retrieves_without_the_history_and_trains() -> None:
    rng = np.random.default_rng(0)
    n_users, n_items = 80, 40
    rows = [(user, item) for user in range(n_users) for item in rng.choice(n_items, 6, replace=False)]
    history = History.from_interactions(pl.DataFrame(rows, schema=["user_idx", "item_idx"], orient="row"), n_users)
    tables = build_feature_tables(
        history,
        n_users=n_users,
        n_items=n_items,
        item_entities=sp.csr_matrix(rng.random((n_items, 5)) < 0.3),
        numbers=np.zeros((n_items, 0)),
        now=None,
        neighbours=10,
        ordered=False,
    )
    vectors = rng.normal(size=(n_users + n_items, 8)).astype(np.float32)
    users = np.arange(0, n_users, 2)
    fresh = [next(item for item in range(n_items) if item not in history.items(int(user))) for user in users]
    labels = np.arange(len(users) + 1), np.array(fresh)
    index = build_index(vectors[n_users:])
    result = fit_ranker(
        tables, history, index, vectors[:n_users], users, labels, candidates=100, trees=5, min_data_in_leaf=5, folds=2
    )
    assert result.info["label_users"] == len(users)
    assert result.info["candidates"] == n_items
    assert result.info["labels_among_candidates"] == len(users)  # every unseen item is a candidate
    seen = np.arange(len(users) + 1), np.array([history.items(int(user))[0] for user in users])
    refused = fit_ranker(tables, history, index, vectors[:n_users], users, seen, candidates=100)
    assert refused.info["labels_among_candidates"] == 0
