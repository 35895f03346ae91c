"""A toy world whose ranking features can be worked out by hand, and a random one of tables, history and candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from reckg.data.history import History
from reckg.ranking.features.extract import FEATURES, candidate_features
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.build import TableInputs, build_feature_tables
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.retrieval.scored_items import ScoredItems

DAY = 86_400
NOW = 100 * DAY

# user  attributes  items, with the day            item  entities      number
#  0    a           0 (day 10), 1 (day 90)          0    red, big      1
#  1    a, b        1 (day 95), 2 (day 99), 1       1    red           3
#  2    b           -                               2    big, rare     5
#                                                   3    -             -
EVENTS = [(0, 0, 10), (0, 1, 90), (1, 1, 95), (1, 2, 99), (1, 1, 100)]
ENTITIES = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]])
ATTRIBUTES = np.array([[1, 0], [1, 1], [0, 1]])
NUMBERS = np.array([[1.0], [3.0], [5.0], [np.nan]])
ITEM_VECTORS = np.array([[1, 0, 9], [3, 4, 8], [0, -2, 7], [0, 0, 6]], dtype=np.float32)  # the last is no graph's
USER_VECTORS = np.array([[2, 1, 5], [1, 1, 5], [0, 3, 5]], dtype=np.float32)
TEXT = np.array([[0.0, 2.0], [1.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
SPREAD = float(np.std([1.0, 3.0, 5.0]))


def toy_history() -> History:
    frame = pl.DataFrame(EVENTS, schema=["user_idx", "item_idx", "day"], orient="row")
    return History.from_interactions(frame.with_columns(timestamp=pl.col("day") * DAY), 3)


def toy_tables(history: History | None = None, **changes: Any) -> FeatureTables:
    settings: dict[str, Any] = {
        "n_users": 3,
        "n_items": 4,
        "item_entities": sp.csr_matrix(ENTITIES),
        "user_entities": sp.csr_matrix(ATTRIBUTES),
        "numbers": NUMBERS,
        "now": NOW,
        "neighbours": 10,
        "order": "ahead",
        "item_vectors": ITEM_VECTORS,
        "graph_dim": 2,
        "text": TEXT,
    }
    return build_feature_tables(history or toy_history(), TableInputs(**(settings | changes)))


World = tuple[FeatureTables, History, ScoredItems, np.ndarray, np.ndarray]


def random_world(seed: int, order: str = "ahead", n_users: int = 30, n_items: int = 50) -> World:
    """Tables, a history (the last user has none), candidates of unequal number, and the vectors."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "user_idx": rng.integers(0, n_users - 1, 400),
            "item_idx": rng.integers(0, n_items, 400),
            "timestamp": rng.integers(0, NOW, 400),
        }
    )
    history = History.from_interactions(frame, n_users)
    item_vectors = rng.normal(size=(n_items, 19)).astype(np.float32)
    tables = build_feature_tables(
        history,
        TableInputs(
            n_users=n_users,
            n_items=n_items,
            item_entities=sp.csr_matrix(rng.random((n_items, 20)) < 0.2),
            user_entities=sp.csr_matrix(rng.random((n_users, 6)) < 0.3),
            numbers=np.where(rng.random((n_items, 2)) < 0.1, np.nan, rng.normal(size=(n_items, 2))),
            now=NOW,
            neighbours=7,
            order=order,  # type: ignore[arg-type]
            item_vectors=item_vectors,
            graph_dim=13,
            text=rng.normal(size=(n_items, 11)),
        ),
    )
    items = np.array([rng.permutation(n_items)[:12] for _ in range(n_users)])
    score = -np.sort(-rng.normal(size=items.shape)).astype(np.float32)
    padding = np.arange(12) >= rng.integers(0, 13, n_users)[:, None]
    items[padding], score[padding] = -1, -np.inf
    vectors = rng.normal(size=(n_users, 19)).astype(np.float32)
    return tables, history, ScoredItems(items, score), vectors, item_vectors


def extract_features(
    tables: FeatureTables,
    history: History,
    user_idx: np.ndarray,
    candidates: ScoredItems,
    vectors: np.ndarray,
    item_vectors: np.ndarray,
) -> np.ndarray:
    """(n * c, F): the features of (n, c) candidates of the users, whose (n, d) vectors are given."""
    scores = UserScores(tables, history, np.asarray(user_idx, dtype=np.int64), vectors, item_vectors)
    return candidate_features(scores, candidates).reshape(-1, len(FEATURES))


def part_of(world: World, users: np.ndarray, width: int = 12) -> np.ndarray:
    """(n, width, F): the features of some users, their lists cut or padded to a width."""
    tables, history, candidates, vectors, item_vectors = world
    wide = ((0, 0), (0, max(0, width - 12)))
    items = np.pad(candidates.item_idx[users], wide, constant_values=-1)[:, :width]
    score = np.pad(candidates.score[users], wide, constant_values=-np.inf)[:, :width]
    found = extract_features(tables, history, users, ScoredItems(items, score), vectors[users], item_vectors)
    return found.reshape(len(users), width, -1)
