"""A large bundle made of random arrays, for benchmarks of speed; the quality of its lists is meaningless.

Vectors of 64 dimensions around cluster centres, ten items a user, attributes and numbers at random, and a ranker of
trees of 31 leaves that learned noise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.pipeline.ranking.index_choice import index_of
from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.build import TableInputs, build_feature_tables
from reckg.ranking.trees.blend import Blend
from reckg.ranking.trees.ranker import Ranker
from reckg.recommend.golden import save_with_golden

DIM, CLUSTERS, TAKEN, CANDIDATES = 64, 200, 10, 200
LABELLED = 64  # users whose candidates the ranker learns from
ASKED = 2000  # users with whom the recall of an index is measured
DEPTHS = {"vectors": 60, "profile": 80, "cooccurrence": 60, "walk": 40, "entities": 20}
START, SECONDS = 1_600_000_000, 2 * 365 * 86_400


def write_bundle(
    folder: Path,
    *,
    users: int,
    items: int,
    depths: dict[str, int] = DEPTHS,
    trees: int = 100,
    attributes: bool = True,
    seed: int = 0,
) -> None:
    """Writes a bundle. attributes: five an item; their neighbours take most of the time."""
    rng = np.random.default_rng(seed)
    centre, cluster = rng.normal(size=(CLUSTERS, DIM)), np.sort(rng.integers(0, CLUSTERS, items))
    own = rng.integers(0, CLUSTERS, users)
    item_vectors, user_vectors = (_around(centre, of, rng) for of in (cluster, own))
    first, end = (np.searchsorted(cluster, np.arange(CLUSTERS), side) for side in ("left", "right"))
    taken = first[own][:, None] + (rng.random((users, TAKEN)) ** 2 * np.maximum(end - first, 1)[own][:, None])
    n = users * TAKEN
    history = History(
        indptr=np.arange(0, n + 1, TAKEN),
        item_idx=np.minimum(taken.astype(np.int64), items - 1).ravel(),
        timestamp=np.sort(START + rng.integers(0, SECONDS, (users, TAKEN)), axis=1).ravel(),
        weight=np.ones(n, dtype=np.float32),
    )
    values = rng.integers(0, 2000, (items, 5))
    entities = sparse.csr_matrix(
        (np.ones(values.size, dtype=np.float32), (np.repeat(np.arange(items), 5), values.ravel())), (items, 2000)
    )
    entities = entities if attributes else sparse.csr_matrix((items, 0), dtype=np.float32)
    features = build_feature_tables(
        history,
        TableInputs(
            n_users=users,
            n_items=items,
            item_entities=entities,
            user_entities=sparse.csr_matrix((users, 0), dtype=np.float32),
            numbers=rng.random((items, 2)).astype(np.float32),
            now=START + SECONDS,
            neighbours=50,
            order="ahead",
            item_vectors=item_vectors,
            graph_dim=DIM,
        ),
    )
    item_ids = pl.Series("item_id", [f"i{number:06d}" for number in range(items)])
    bundle = Bundle(
        version="large",
        manifest={"config": {"rank": {"candidates": CANDIDATES}}, "data_hash": "0" * 64},
        user_ids=IdMap([f"u{number:07d}" for number in range(users)], "user id"),
        item_ids=IdMap(item_ids, "item id"),
        items=item_ids.to_frame(),
        user_vectors=user_vectors,
        item_vectors=item_vectors,
        index=index_of(user_vectors[:ASKED], item_vectors, Config()),
        history=history,
        features=features,
        ranker=None,
    )
    save_with_golden(replace(bundle, ranker=_ranker(bundle, rng, depths, trees)), folder)


def _around(centre: np.ndarray, of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, d) float32 unit vectors around centres (c, d), one of each of."""
    vectors = centre.astype(np.float32)[of]
    vectors += rng.standard_normal(vectors.shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _ranker(bundle: Bundle, rng: np.random.Generator, depths: dict[str, int], trees: int) -> Ranker:
    users = np.arange(min(LABELLED, len(bundle.user_ids)))
    scores = UserScores(bundle.features, bundle.history, users, bundle.user_vectors[users], bundle.item_vectors)
    found = retrieve(scores, bundle.index, depths, None)
    features = candidate_features(scores, found)[found.item_idx >= 0]
    labels = rng.normal(size=len(features)) + found.score[found.item_idx >= 0].clip(-1)
    settings = {"num_leaves": 31, "num_threads": 2, "verbose": -1, "seed": 0, "deterministic": True}
    booster = lgb.train(settings, lgb.Dataset(features, label=labels), num_boost_round=trees)
    return Ranker(booster.model_to_string(), Blend({"retrieval_score_z": 1.0}), depths, {"served": True})
