"""The cost of a request without the network: candidates of every source, their features, and reranking.

A synthetic world: users of groups with tastes, items with rare and common entities, texts, numbers, users with
attributes. Requests of single users run on one thread, as in a server. Every part is timed on its own in processor time
of the thread, because other work on the machine lengthens wall clock more. Figures are medians over the requests.
``features_ms`` is for the request's candidates alone: values shared by sources and features are computed for the
sources. ``extract_ms`` is for all inputs of the features of a given list, as in evaluation and training.
``compiled_ms`` is reranking with compiled trees, where the extra 'compiled' is
installed. ``search_ms`` is FAISS's own search for the candidates by the vectors, which retrieval does twice.
retrieve_ms, features_ms, rerank_ms, compiled_ms, extract_ms, search_ms, candidates (mean).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time

import lightgbm as lgb
import numpy as np
import polars as pl
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from reckg.data.history import History
from reckg.ranking.features.extract import FEATURES, candidate_features
from reckg.ranking.sources.candidates import available_sources, retrieve
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.build import TableInputs, build_feature_tables
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.item_item import Order
from reckg.ranking.trees.blend import BLENDED, Blend
from reckg.ranking.trees.ranker import Ranker
from reckg.retrieval.faiss_index import import_faiss
from reckg.retrieval.index import ItemIndex, build_index
from tests.benchmarks.measure import Result, beside, finish, parser

PARTS = ("retrieve", "features", "rerank", "compiled", "extract", "search")
DIM, GRAPH_DIM, TEXT_DIM = 96, 64, 64
NOW = 100_000_000


def history(args: argparse.Namespace, rng: np.random.Generator) -> History:
    """Users take items mostly of their group, popular ones more often."""
    n = args.users * args.events
    user = np.repeat(np.arange(args.users), args.events)
    group = np.where(rng.random(n) < 0.7, user % 20, rng.integers(0, 20, n))
    item = (args.items * rng.random(n) ** 2).astype(np.int64) // 20 * 20 + group
    frame = pl.DataFrame({"user_idx": user, "item_idx": item % args.items, "timestamp": rng.integers(0, NOW, n)})
    return History.from_interactions(frame, args.users)


def world(args: argparse.Namespace) -> tuple[FeatureTables, History, ItemIndex, np.ndarray, np.ndarray]:
    """Tables, history, index and vectors."""
    rng = np.random.default_rng(args.seed)
    past = history(args, rng)
    items = rng.standard_normal((args.items, DIM), dtype=np.float32)
    items += 2 * rng.standard_normal((20, DIM), dtype=np.float32)[np.arange(args.items) % 20]
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    users = np.stack([items[past.items(user)].sum(axis=0) for user in range(args.users)])
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    entity = (500 * rng.random((args.items, 8)) ** 2).astype(np.int64)
    ones = np.ones(entity.size, dtype=np.float32)
    places = np.repeat(np.arange(args.items), 8), entity.ravel()
    tables = build_feature_tables(
        past,
        TableInputs(
            n_users=args.users,
            n_items=args.items,
            item_entities=sp.csr_matrix((ones, places), shape=(args.items, 500)),
            user_entities=sp.random(args.users, 30, 0.1, format="csr", random_state=args.seed, dtype=np.float32),
            numbers=rng.random((args.items, 3)),
            now=NOW,
            neighbours=200,
            order=args.order,
            item_vectors=items,
            graph_dim=GRAPH_DIM,
            text=items[:, :TEXT_DIM] + 0.1 * rng.standard_normal((args.items, TEXT_DIM)),
            threads=1,
        ),
    )
    return tables, past, build_index(items), users, items


def ranker(features: np.ndarray, depths: dict[str, int], args: argparse.Namespace) -> Ranker:
    """Trees of noise."""
    noise = np.random.default_rng(args.seed).random(len(features))
    settings = {"num_leaves": args.leaves, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1, "seed": args.seed}
    booster = lgb.train(settings, lgb.Dataset(features, label=noise), num_boost_round=args.trees)
    weights = {name: 0.1 for name in BLENDED if name in FEATURES}
    return Ranker(booster.model_to_string(), Blend(weights), depths, {})


def measured(args: argparse.Namespace) -> dict[str, float]:
    tables, past, index, users, items = world(args)
    depths = dict.fromkeys(available_sources(tables), args.depth) | {"vectors": args.vectors}

    def of(user: int) -> UserScores:
        rows = np.array([user])
        return UserScores(tables, past, rows, users[rows], items)

    def request(user: int, seconds: dict[str, list[float]]) -> int:
        seen = np.array([0, len(past.items(user))]), past.items(user)
        began = time.thread_time()
        scores = of(user)
        found = retrieve(scores, index, depths, seen)
        at = [began, time.thread_time()]
        features = candidate_features(scores, found)
        at.append(time.thread_time())
        model.rerank(found, features.reshape(found.item_idx.size, -1))
        at.append(time.thread_time())
        compiled.rerank(found, features.reshape(found.item_idx.size, -1))
        at.append(time.thread_time())
        candidate_features(of(user), found)
        at.append(time.thread_time())
        index._index.search(users[[user]], args.vectors + len(seen[1]))
        at.append(time.thread_time())
        for part, start, stop in zip(PARTS, at[:-1], at[1:], strict=True):
            seconds[part].append(stop - start)
        return found.item_idx.size

    first = of(0)
    some = candidate_features(first, retrieve(first, index, depths, None))
    model, compiled = (ranker(some[0], depths, args) for _ in range(2))
    is_compiled = compiled.compile()
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    sizes = []
    for turn, user in enumerate(
        np.random.default_rng(args.seed).permutation(args.users)[: args.requests + 20].tolist()
    ):
        if turn == 20:  # the turns before warmed up
            seconds = {part: [] for part in PARTS}
        sizes.append(request(user, seconds))
    if args.profile:
        with cProfile.Profile() as profile:
            for user in range(min(200, args.users)):
                request(user, seconds)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
    figures = {f"{part}_ms": round(float(np.median(values)) * 1000, 3) for part, values in seconds.items()}
    if not is_compiled:
        del figures["compiled_ms"]
    return figures | {"candidates": round(float(np.mean(sizes)), 1)}


def main(words: list[str] | None = None) -> Result:
    options = parser(__doc__ or "")
    options.add_argument("--items", type=int, default=10_000)
    options.add_argument("--users", type=int, default=4_000)
    options.add_argument("--events", type=int, default=50, help="of a user")
    options.add_argument("--order", choices=("none", "between", "ahead"), default="ahead")
    options.add_argument("--vectors", type=int, default=60, help="candidates by the vectors")
    options.add_argument("--depth", type=int, default=25, help="candidates of every other source")
    options.add_argument("--trees", type=int, default=60)
    options.add_argument("--leaves", type=int, default=15)
    options.add_argument("--requests", type=int, default=300)
    options.add_argument("--profile", action="store_true", help="print where the time goes")
    args = options.parse_args(words)
    if args.beside:
        return beside("features", args, words)
    if args.small:
        args.items, args.users, args.requests = 400, 60, 20
    order: Order = args.order
    with threadpool_limits(1):
        import_faiss().omp_set_num_threads(1)
        figures = measured(args)
    print(f"{order}: {figures}")
    names = ("items", "users", "events", "order", "vectors", "depth", "trees", "leaves", "requests")
    settings = {name: getattr(args, name) for name in names}
    return finish(
        "features", figures, settings, packages=("numpy", "lightgbm", "faiss-cpu"), seed=args.seed, out=args.out
    )


if __name__ == "__main__":
    main()
