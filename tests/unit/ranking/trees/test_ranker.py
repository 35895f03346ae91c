"""The ranker: what it learns, when the guard refuses it, how its score is made, and what is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from reckg.errors import ArtifactError, DataError
from reckg.ranking.features.extract import FEATURES
from reckg.ranking.trees.blend import Blend, fit_blend
from reckg.ranking.trees.queries import Queries
from reckg.ranking.trees.ranker import Ranker, load_ranker
from reckg.ranking.trees.train import PATIENCE, RankerResult, TreeSettings, _judge_groups, train_ranker
from reckg.retrieval.scored_items import ScoredItems

N, C = 120, 20
ORDERS = ("retrieval", "blend", "ranker")
DEPTHS = {"vectors": 15, "cooccurrence": 10}
SETTINGS = {"trees": 30, "min_data_in_leaf": 20, "folds": 3}


class World:
    """N label users with C candidates; the labels follow one feature or none."""

    def __init__(self, signal: str | None, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        items = np.array([rng.permutation(100)[:C] for _ in range(N)])
        score = -np.sort(-rng.normal(size=(N, C)), axis=1).astype(np.float32)
        self.candidates = ScoredItems(items, score)
        values = np.full((N, C, len(FEATURES)), np.nan, dtype=np.float32)
        values[:, :, FEATURES.index("retrieval_score")] = score
        values[:, :, FEATURES.index("retrieval_score_z")] = score
        values[:, :, FEATURES.index("retrieval_rank")] = np.arange(C)
        for name in ("cooccurrence_z", "popularity", "item_age"):
            values[:, :, FEATURES.index(name)] = rng.random((N, C))
        chance = 0.5 * score + rng.gumbel(size=(N, C))
        if signal is not None:
            chance += 8 * values[:, :, FEATURES.index(signal)]
        best = np.argsort(-chance, axis=1)[:, :2]
        hits = np.zeros((N, C), dtype=bool)
        np.put_along_axis(hits, best, True, axis=1)
        relevant = np.arange(N + 1) * 2, np.take_along_axis(items, best, axis=1).ravel()
        self.queries = Queries(np.arange(N), items, values, hits, relevant)

    @property
    def features(self) -> np.ndarray:
        return self.queries.features.reshape(N * C, -1)

    def train(self, **settings: object) -> RankerResult:
        return train(self.queries, **settings)


def train(queries: Queries, **settings: object) -> RankerResult:
    given = SETTINGS | settings
    trees = TreeSettings(**{name: given.pop(name) for name in vars(TreeSettings()) if name in given})  # type: ignore[arg-type]
    return train_ranker(queries, DEPTHS, trees, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served() -> tuple[World, Ranker]:
    world = World("popularity")
    result = world.train()
    assert result.ranker is not None, result.info
    return world, result.ranker


@pytest.mark.parametrize("signal", ["popularity", "cooccurrence_z"])
def test_a_signal_in_a_feature_is_learnt_and_served(signal: str) -> None:
    result = World(signal).train()
    assert result.ranker is not None
    means = result.info["out_of_fold_ndcg@10"]
    assert means["ranker"] > means["retrieval"] + 0.1
    assert result.info["difference"]["low"] > 0
    assert (means["blend"] > means["retrieval"] + 0.1) == (signal == "cooccurrence_z")  # only it is a source score
    assert result.info["served"] and "is better than retrieval's" in result.info["why"]


def test_where_trees_add_nothing_the_blend_is_served_alone(tmp_path: Path) -> None:
    world = World("cooccurrence_z")
    for name in ("popularity", "item_age", "retrieval_rank"):
        world.queries.features[:, :, FEATURES.index(name)] = np.nan  # the blend has all there is to know
    flat = world.features
    result = world.train(learning_rate=1.0, leaves=2)
    assert result.ranker is not None and result.info["trees"] == 0
    reranked = result.ranker.rerank(world.candidates, flat)
    order = np.argsort(-result.ranker.blend.scores(flat).reshape(N, C), axis=1, kind="stable")
    np.testing.assert_array_equal(reranked.item_idx, np.take_along_axis(world.candidates.item_idx, order, axis=1))
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


def test_the_guard_judges_users_outside_the_training() -> None:
    """With labels at random a forest that may memorise fits them, and is refused all the same."""
    world = World(None, seed=3)
    result = world.train(leaves=60, min_data_in_leaf=1, learning_rate=0.5)
    assert result.ranker is None
    assert result.info["difference"]["mean"] < 0.02


def test_lists_of_one_user_are_in_one_fold() -> None:
    """Each user's list is there twice: a forest that memorises would know the one from the other."""
    world, twice = World(None, seed=3), np.repeat(np.arange(N), 2)
    result = train(world.queries.take(twice), leaves=60, min_data_in_leaf=1, learning_rate=0.5)
    assert result.ranker is None and result.info["label_users"] == 2 * N
    known = replace(world.queries.take(twice), user=np.arange(2 * N))  # as if they were different users
    assert train(known, leaves=60, min_data_in_leaf=1, learning_rate=0.5).info["difference"]["mean"] > 0.1


def test_the_guards_figures_are_those_of_all_label_users() -> None:
    world = World("popularity")
    queries = replace(world.queries.take(np.arange(40, N)), without=40)
    result = train(queries)
    assert result.info["label_users"] == N
    assert result.info["label_users_without_relevant_candidate"] == 40
    assert result.info["labels_among_candidates"] == 2 * (N - 40)
    own = queries.ndcg(queries.features[:, :, 0]).sum() / N  # 40 users count, with 0
    assert result.info["out_of_fold_ndcg@10"]["retrieval"] == pytest.approx(own)
    assert result.info["candidates"] == C


def cold_world(signal: bool) -> Queries:
    """A world in which half of the users have no history; theirs is the popular order, and a signal or none in it."""
    queries = World("popularity").queries
    cold = np.arange(N) % 2 == 0
    queries.features[:, :, FEATURES.index("history_length")] = np.where(cold, 0.0, np.log1p(3.0))[:, None]
    popular = queries.features[:, :, FEATURES.index("popular_score")]
    popular[:] = np.random.default_rng(5).random((N, C)) if signal else 10 * queries.hits
    return queries


def test_users_without_a_history_are_judged_against_the_popular_order() -> None:
    better = train(cold_world(signal=True))
    assert better.ranker is not None and better.ranker.ranks_cold
    queries = cold_world(signal=True)
    popular = queries.ndcg(queries.features[:, :, FEATURES.index("popular_score")])[queries.cold].mean()
    assert queries.cold.sum() == N // 2
    assert better.info["cold_users"]["out_of_fold_ndcg@10"]["retrieval"] == pytest.approx(popular)
    perfect = train(cold_world(signal=False))  # nothing beats a popular order that knows the hits
    assert perfect.info["cold_users"]["out_of_fold_ndcg@10"]["retrieval"] == pytest.approx(1.0)
    assert perfect.ranker is None or not perfect.ranker.ranks_cold
    assert "cold_users" not in World("popularity").train().info


def test_too_few_queries_are_refused_with_their_count() -> None:
    result = train(replace(World("popularity").queries.take(np.arange(5)), without=115))
    assert result.ranker is None
    assert "only 5 of 120 label users have a relevant item among their first 20 candidates" in result.info["why"]
    nobody = train(replace(World("popularity").queries.take(np.arange(0)), without=120))
    assert "only 0 of 120 label users" in nobody.info["why"] and nobody.info["candidates"] == 0


def test_the_score_is_blend_plus_trees_and_falls(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    found = ranker.rerank(world.candidates, world.features)
    trees = ranker._booster.predict(world.features, raw_score=True)
    expected = (trees + ranker.blend.scores(world.features)).reshape(N, C)
    assert np.abs(trees).max() > 0.1 and np.ptp(ranker.blend.scores(world.features)) > 0.1
    assert found.score == pytest.approx(-np.sort(-expected, axis=1), abs=1e-5)
    assert (np.diff(found.score, axis=1) <= 0).all()
    assert np.array_equal(np.sort(found.item_idx, axis=1), np.sort(world.candidates.item_idx, axis=1))


def test_a_list_is_reranked_alone_as_in_a_batch(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    batch = ranker.rerank(world.candidates, world.features)
    one = ScoredItems(world.candidates.item_idx[7:8], world.candidates.score[7:8])
    alone = ranker.rerank(one, world.features[7 * C : 8 * C])
    assert np.array_equal(alone.item_idx[0], batch.item_idx[7])
    assert np.array_equal(alone.score[0], batch.score[7])


def test_padding_stays_at_the_end(served: tuple[World, Ranker]) -> None:
    world, ranker = served
    items, score = world.candidates.item_idx[:2].copy(), world.candidates.score[:2].copy()
    features = world.features[: 2 * C].copy()
    items[1, 5:], score[1, 5:], features[C + 5 :] = -1, -np.inf, np.nan
    found = ranker.rerank(ScoredItems(items, score), features)
    assert (found.item_idx[1, 5:] == -1).all() and np.isneginf(found.score[1, 5:]).all()
    assert set(found.item_idx[1, :5].tolist()) == set(items[1, :5].tolist())
    assert np.isfinite(found.score[1, :5]).all()


def test_padding_teaches_nothing() -> None:
    """Lists with padding give the very ranker that the same lists give without those columns."""
    world = World("popularity")
    plain, wide = world.queries, ((0, 0), (0, 5))
    padded = Queries(
        plain.user,
        np.pad(plain.item_idx, wide, constant_values=-1),
        np.pad(plain.features, (*wide, (0, 0)), constant_values=np.nan),
        np.pad(plain.hits, wide),
        plain.relevant,
    )
    first, second = train(plain), train(padded)
    assert first.ranker is not None and second.ranker is not None
    again, found = (each.ranker.rerank(world.candidates, world.features) for each in (first, second))  # type: ignore[union-attr]
    assert np.array_equal(found.item_idx, again.item_idx)
    assert second.info["out_of_fold_ndcg@10"] == pytest.approx(first.info["out_of_fold_ndcg@10"])


def test_trees_start_from_the_blend_and_see_a_sample_of_the_negatives() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((50, C, len(FEATURES))).astype(np.float32)
    real = np.ones((50, C), dtype=bool)
    real[:, 15:] = False
    hits = (rng.random((50, C)) < 0.2) & real
    blend = Blend({"retrieval_score_z": 2.0, "linear_z": 1.0})
    rows = np.zeros(51, dtype=np.int64), np.zeros(0, dtype=np.int64)
    whole = Queries(np.arange(50), np.where(real, np.arange(C), -1), features, hits, rows)
    part = whole.sample(4, seed=1)
    assert part[hits].all() and not part[:, 15:].any()
    assert ((part & ~hits).sum(axis=1) == 4).all()
    assert (part != whole.sample(4, seed=2)).any()
    assert np.array_equal(whole.sample(20, seed=1), real)
    data: Any = whole.dataset(blend, part)
    assert np.array_equal(data.get_init_score(), blend.scores(features[part]))
    assert np.array_equal(data.get_label(), hits[part])
    assert data.get_group().tolist() == part.sum(axis=1).tolist()


def test_trees_grow_until_the_choice_has_long_been_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world, grown = World("cooccurrence_z"), []
    for name in ("popularity", "item_age", "retrieval_rank"):
        world.queries.features[:, :, FEATURES.index(name)] = np.nan
    update = lgb.Booster.update
    monkeypatch.setattr(lgb.Booster, "update", lambda booster: grown.append(booster) or update(booster))
    for trees, expected in ((25, 25), (300, PATIENCE)):  # the blend alone is best: 20 trees at a time from there
        grown.clear()
        assert world.train(trees=trees, learning_rate=1.0, leaves=2).info["trees"] == 0
        assert len(grown) == SETTINGS["folds"] * expected


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
    assert loaded.depths == DEPTHS


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
        ({"blend": {"popularity": 1.0}}, "unknown scores"),
        ({"depths": {"vectors": 5, "other": 5}}, "unknown sources"),
        ({"depths": {"cooccurrence": 5}}, "unknown sources"),
        ({"depths": None}, "cannot be read"),
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
    with pytest.raises(ValueError, match="expected n \\* c rows"):
        ranker.rerank(world.candidates, world.features[:, 1:])


def test_the_blend_finds_the_weights_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    values = np.full((4000, 10, len(FEATURES)), np.nan)
    first, second = rng.normal(size=(4000, 10)), rng.normal(size=(4000, 10))
    values[:, :, FEATURES.index("retrieval_score_z")] = first
    values[:, :, FEATURES.index("linear_z")] = second
    values[:, :, FEATURES.index("cooccurrence_z")] = rng.random((4000, 10))  # means nothing
    utility = 2.0 * first + 0.7 * second + rng.gumbel(size=(4000, 10))
    hits = utility == utility.max(axis=1, keepdims=True)
    weights = fit_blend(values, hits, np.ones_like(hits)).weights
    assert weights["retrieval_score_z"] == pytest.approx(2.0, rel=0.07)
    assert weights["linear_z"] == pytest.approx(0.7, rel=0.07)
    assert weights.get("cooccurrence_z", 0.0) < 0.15


def test_the_retrieval_score_always_counts_in_the_blend() -> None:
    rng = np.random.default_rng(1)
    values = np.full((500, 10, len(FEATURES)), np.nan)
    score = rng.normal(size=(500, 10))
    values[:, :, FEATURES.index("retrieval_score_z")] = score
    hits = score == score.min(axis=1, keepdims=True)  # the worst is chosen
    weights = fit_blend(values, hits, np.ones_like(hits)).weights
    assert weights == {"retrieval_score_z": 0.05}
    values[:] = 0.0  # what equal scores are when standardised
    with pytest.raises(DataError, match="all equal"):
        fit_blend(values, hits, np.ones_like(hits))
    with pytest.raises(DataError, match="no query has a relevant item"):
        fit_blend(values, np.zeros_like(hits), np.ones_like(hits))


def test_the_blend_learns_from_the_head_of_the_lists_only() -> None:
    rng = np.random.default_rng(2)
    values = np.full((800, 60, len(FEATURES)), np.nan)
    values[:, :, FEATURES.index("retrieval_score_z")] = -np.sort(-rng.normal(size=(800, 60)), axis=1)
    values[:, :, FEATURES.index("linear_z")] = rng.random((800, 60))
    hits = np.zeros((800, 60), dtype=bool)
    hits[np.arange(800), rng.integers(0, 50, 800)] = True
    before = fit_blend(values, hits, np.ones_like(hits))
    values[:, 50:] = -100.0
    hits[:, 55] = True
    assert fit_blend(values, hits, np.ones_like(hits)) == before


def test_the_head_of_the_lists_becomes_that_of_the_blend(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    values = np.full((600, 100, len(FEATURES)), np.nan)
    values[:, :, FEATURES.index("retrieval_score_z")] = -np.sort(-rng.normal(size=(600, 100)), axis=1)
    popular = rng.uniform(-1, 1, (600, 100))
    popular[:, 50:60] = 3.0
    values[:, :, FEATURES.index("popular_score_z")] = popular
    hits = np.zeros((600, 100), dtype=bool)
    hits[np.arange(600), np.argmax(0.5 * popular[:, :50] + rng.gumbel(size=(600, 50)), axis=1)] = True
    monkeypatch.setattr("reckg.ranking.trees.blend.ROUNDS", 1)
    assert fit_blend(values, hits, np.ones_like(hits)).weights["popular_score_z"] == pytest.approx(0.5, abs=0.1)
    hits[:, 50:55] = True  # the most popular, outside the vectors' head
    assert fit_blend(values, hits, np.ones_like(hits)).weights["popular_score_z"] == pytest.approx(0.5, abs=0.1)
    monkeypatch.undo()
    assert fit_blend(values, hits, np.ones_like(hits)).weights["popular_score_z"] > 1.0
    hits[:, :50] = False
    hits[:, 20] = True  # in the vectors' head alone, and nothing tells of it: still there is a blend
    assert fit_blend(values, hits, np.ones_like(hits)).weights["retrieval_score_z"] >= 0.05


def test_a_blend_counts_missing_scores_as_nothing() -> None:
    values = np.full((2, len(FEATURES)), np.nan)
    values[:, FEATURES.index("retrieval_score_z")] = [2.0, -1.0]
    values[1, FEATURES.index("linear_z")] = -4.0
    assert Blend({"retrieval_score_z": 3.0, "linear_z": 0.5}).scores(values).tolist() == [6.0, -3.0 - 0.5 * 4.0]


def test_equal_retrieval_scores_are_a_reason_and_no_error() -> None:
    """Every label user is new: the vectors know nothing of any."""
    world = World(None)
    for name in ("retrieval_score", "retrieval_score_z"):
        world.queries.features[:, :, FEATURES.index(name)] = 0.0
    result = world.train()
    assert result.ranker is None and not result.info["served"]
    assert result.info["why"] == "the retrieval scores of every user are all equal: there is no order to improve on"


def test_a_group_that_the_ranker_does_not_help_keeps_the_simple_order() -> None:
    """The signal of the long histories is noise for the short ones."""
    world = World("cooccurrence_z")
    queries = world.queries
    short = np.arange(N) % 3 == 0
    features = queries.features
    features[:, :, FEATURES.index("history_length")] = np.log1p(np.where(short, 4, 40))[:, None]
    features[short, :, FEATURES.index("cooccurrence_z")] = np.random.default_rng(5).random((int(short.sum()), C)) * 3
    result = train(queries)
    assert result.ranker is not None
    groups = result.info["groups"]
    assert groups["long"]["order"] == "ranker" and groups["short"]["order"] == "retrieval"
    assert "not clearly better" in groups["short"]["why"]
    assert result.ranker.order_of(np.array([0, 1, 9, 10])).tolist() == ["ranker", "retrieval", "retrieval", "ranker"]


def test_popularity_is_the_simple_order_where_it_is_clearly_better() -> None:
    world = World(None)
    queries = world.queries
    features = queries.features
    features[:, :, FEATURES.index("history_length")] = np.log1p(3)
    popular = np.random.default_rng(3).random((N, C))
    features[:, :, FEATURES.index("popular_score")] = popular + 5 * queries.hits
    verdicts = _judge_groups(queries, {name: np.random.default_rng(1).random((N, C)) for name in ORDERS}, 0)
    assert {name: verdict["order"] for name, verdict in verdicts.items()} == {"short": "popular"}
