"""A small valid bundle with random vectors, made in memory, for tests."""

from __future__ import annotations

from dataclasses import replace

import lightgbm as lgb
import numpy as np
import polars as pl
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.build import TableInputs, build_feature_tables
from reckg.ranking.trees.blend import Blend
from reckg.ranking.trees.ranker import Ranker
from reckg.retrieval.index import build_index
from reckg.retrieval.scored_items import ScoredItems
from tests.small_features import extract_features

CANDIDATES = 20
DEPTHS = {"vectors": 12, "profile": 4, "cooccurrence": 8, "entities": 5, "popular": 5}


def small_history(n_users: int, n_items: int, seed: int = 0) -> History:
    """Between 3 and 11 random items of each user, none of the last user's, who is cold; popular items come first."""
    rng = np.random.default_rng(seed)
    chance = 1.0 / np.arange(1, n_items + 1)
    rows = [
        (user, item)
        for user in range(n_users - 1)
        for item in rng.choice(n_items, size=rng.integers(3, 12), replace=False, p=chance / chance.sum())
    ]
    frame = pl.DataFrame(rows, schema=["user_idx", "item_idx"], orient="row")
    timestamp = 1_600_000_000 + rng.integers(0, 10_000_000, frame.height)
    return History.from_interactions(frame.with_columns(timestamp=pl.Series(timestamp)), n_users)


def unit_vectors(n: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def small_bundle(
    n_users: int = 40, n_items: int = 60, dim: int = 8, seed: int = 0, *, ranked: bool = True, version: str = "test-1"
) -> Bundle:
    """Users u000.., items i000.. with titles (the second has none); with ``ranked`` a ranker of DEPTHS."""
    history = small_history(n_users, n_items, seed)
    item_vectors = unit_vectors(n_items, dim, seed + 1)
    entities = sparse.csr_matrix(np.random.default_rng(seed + 2).random((n_items, 12)) < 0.2, dtype=np.float32)
    item_ids = [f"i{item:03d}" for item in range(n_items)]
    titles = [None if item == 1 else f"Title of {raw}" for item, raw in enumerate(item_ids)]
    bundle = Bundle(
        version=version,
        manifest={
            "config": {"rank": {"candidates": CANDIDATES}},
            "metrics": {"ndcg@10": 0.25},
            "data_hash": "0" * 64,
            "item_columns": {"text": ["title"], "categorical": [], "number": [], "list": []},
            "ranker": {"served": ranked},
        },
        user_ids=IdMap([f"u{user:03d}" for user in range(n_users)], "user id"),
        item_ids=IdMap(item_ids, "item id"),
        items=pl.DataFrame({"item_id": item_ids, "title": titles}),
        user_vectors=unit_vectors(n_users, dim, seed + 3),
        item_vectors=item_vectors,
        index=build_index(item_vectors),
        history=history,
        features=build_feature_tables(
            history,
            TableInputs(
                n_users=n_users,
                n_items=n_items,
                item_entities=entities,
                user_entities=sparse.random(n_users, 5, 0.4, format="csr", random_state=seed),
                numbers=np.random.default_rng(seed + 4).random((n_items, 2)).astype(np.float32),
                now=1_610_000_000,
                neighbours=10,
                order="ahead",
                item_vectors=item_vectors,
                graph_dim=dim // 2,
            ),
        ),
        ranker=None,
    )
    return replace(bundle, ranker=small_ranker(bundle, seed)) if ranked else bundle


def candidates_of(bundle: Bundle, users: np.ndarray) -> ScoredItems:
    """The candidates of known users that ``recommend_batch`` reranks."""
    indptr, positions = bundle.history.rows(users)
    scores = UserScores(bundle.features, bundle.history, users, bundle.user_vectors[users], bundle.item_vectors)
    return retrieve(scores, bundle.index, DEPTHS, (indptr, bundle.history.item_idx[positions]))


def small_ranker(bundle: Bundle, seed: int) -> Ranker:
    """A ranker that learnt nothing: a few trees fitted to noise, beside the retrieval score. It changes the order."""
    users = np.arange(bundle.history.n_users)
    found = bundle.index.search(bundle.user_vectors, CANDIDATES)
    vectors = bundle.user_vectors, bundle.item_vectors
    features = extract_features(bundle.features, bundle.history, users, found, *vectors)
    noise = np.random.default_rng(seed + 5).normal(size=len(features))
    settings = {"num_leaves": 7, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1, "seed": seed}
    booster = lgb.train(settings, lgb.Dataset(features, label=noise), num_boost_round=10)
    return Ranker(booster.model_to_string(), Blend({"retrieval_score_z": 1.0}), DEPTHS, {"served": True})
