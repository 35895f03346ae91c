"""Batch recommendations of a million users over a hundred thousand items to one Parquet file: users a second, memory.

The bundle is made of arrays: vectors of 64 dimensions around cluster centres, ten items a user, attributes and numbers
at random, and a ranker of 100 trees that learned noise; what the lists are worth is not the subject. Making the bundle
and each run are processes of their own. users_per_s (in the order of retrieval) and users_per_s_reranked are of
--users and --reranked evenly spaced users, without the loading of the bundle, whose seconds stand beside them.
peak_rss_gb is the most memory that one of the two runs had.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
from scipy import sparse

import jobs.recommend
from reckg.bundle import Bundle, save_bundle
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.ranking.blend import Blend
from reckg.ranking.build_tables import build_feature_tables
from reckg.ranking.candidates import retrieve
from reckg.ranking.features import candidate_features
from reckg.ranking.ranker import Ranker
from reckg.ranking.user_scores import UserScores
from reckg.retrieval.index import build_index
from tests.benchmarks.measure import Result, finish, in_a_process, parser, peak_gb

DIM, CLUSTERS, TAKEN, CANDIDATES, K = 64, 200, 10, 200, 10
LABELLED, TREES = 64, 100  # users, and trees of 31 leaves
DEPTHS = {"vectors": 60, "profile": 80, "cooccurrence": 60, "walk": 40, "entities": 20}
START, SECONDS = 1_600_000_000, 2 * 365 * 86_400


def write_bundle(folder: Path, *, users: int, items: int, seed: int = 0) -> None:
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
    features = build_feature_tables(
        history,
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
    )
    item_ids = pl.Series("item_id", [f"i{number:06d}" for number in range(items)])
    bundle = Bundle(
        version="batch",
        manifest={"config": {"rank": {"candidates": CANDIDATES}}, "data_hash": "0" * 64},
        user_ids=IdMap([f"u{number:07d}" for number in range(users)], "user id"),
        item_ids=IdMap(item_ids, "item id"),
        items=item_ids.to_frame(),
        user_vectors=user_vectors,
        item_vectors=item_vectors,
        index=build_index(item_vectors),
        history=history,
        features=features,
        ranker=None,
    )
    save_bundle(replace(bundle, ranker=_ranker(bundle, rng)), folder)


def _around(centre: np.ndarray, of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, d) float32 unit vectors around centres (c, d), one of each of."""
    vectors = centre.astype(np.float32)[of]
    vectors += rng.standard_normal(vectors.shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _ranker(bundle: Bundle, rng: np.random.Generator) -> Ranker:
    users = np.arange(min(LABELLED, len(bundle.user_ids)))
    scores = UserScores(bundle.features, bundle.history, users, bundle.user_vectors[users], bundle.item_vectors)
    found = retrieve(scores, bundle.index, DEPTHS, None)
    features = candidate_features(scores, found)[found.item_idx >= 0]
    labels = rng.normal(size=len(features)) + found.score[found.item_idx >= 0].clip(-1)
    settings = {"num_leaves": 31, "num_threads": 2, "verbose": -1, "seed": 0, "deterministic": True}
    booster = lgb.train(settings, lgb.Dataset(features, label=labels), num_boost_round=TREES)
    return Ranker(booster.model_to_string(), Blend({"retrieval_score_z": 1.0}), DEPTHS, {"served": True})


def run(bundle: Path, out: Path, asked: Path, rerank: bool) -> None:
    """Leaves seconds of loading, seconds of the rest, CPU seconds and GiB beside ``out``."""
    loading = 0.0
    load = jobs.recommend.load_bundle

    def timed(path: Path) -> Bundle:
        nonlocal loading
        began = time.perf_counter()
        loaded = load(path)
        loading = time.perf_counter() - began
        return loaded

    jobs.recommend.load_bundle = timed
    try:
        counts = jobs.recommend.recommend_all(bundle, out, k=K, users=asked, rerank=rerank, overwrite=True)
    finally:
        jobs.recommend.load_bundle = load
    told = [loading, counts["seconds"] - loading, time.process_time(), peak_gb(), counts["rows"]]
    np.save(out.with_suffix(".npy"), np.array(told))


def main(arguments: list[str] | None = None) -> Result:
    words = parser("Batch recommendations with and without reranking.")
    words.add_argument("--users", type=int, default=1_000_000, help="users in the order of retrieval")
    words.add_argument("--reranked", type=int, default=20_000, help="users that are reranked")
    words.add_argument("--items", type=int, default=100_000, help="of the catalogue")
    words.add_argument("--folder", type=Path, help="keeps the bundle there, and uses what is there")
    given = words.parse_args(arguments)
    n_users, n_items = (2000, 500) if given.small else (1_000_000, given.items)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "bundle").is_dir():
            in_a_process(write_bundle, folder / "bundle", users=n_users, items=n_items, seed=given.seed)
        for name, wanted in (("", given.users), ("_reranked", given.reranked)):
            number, asked = min(wanted, n_users), folder / f"users{name}.parquet"
            every = pl.read_parquet(folder / "bundle" / "users.parquet")
            every[np.linspace(0, n_users - 1, number).astype(np.int64)].write_parquet(asked)
            out = folder / f"recommendations{name}.parquet"
            in_a_process(run, folder / "bundle", out, asked, bool(name))
            loading, seconds, cpu, peak, rows = np.load(out.with_suffix(".npy")).tolist()
            assert rows == number * K == pl.scan_parquet(out).select(pl.len()).collect().item()
            figures |= {f"users_per_s{name}": number / seconds, f"users{name}": number, f"seconds{name}": seconds}
            figures |= {f"loading_s{name}": loading, f"cpu_seconds{name}": cpu, f"peak_rss_gb{name}": peak}
            figures[f"file_gb{name}"] = out.stat().st_size / 2**30
    figures["peak_rss_gb"] = max(figures["peak_rss_gb"], figures["peak_rss_gb_reranked"])
    for name, value in figures.items():
        print(f"  {name:24} {value:12.4g}")
    settings = {"users": n_users, "items": n_items, "dim": DIM, "k": K, "candidates": CANDIDATES, "trees": TREES}
    packages = ["faiss-cpu", "lightgbm", "numpy", "polars"]
    return finish(
        "batch", figures, {**settings, "small": given.small}, packages=packages, seed=given.seed, out=given.out
    )


if __name__ == "__main__":
    main()
