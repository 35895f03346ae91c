"""Building the feature tables of a history as it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History
from reckg.data.schema import Target
from reckg.errors import DataError
from reckg.ranking.tables.columns import (
    attribute_lift,
    event_keys,
    item_age,
    item_popularity,
    rarity,
    row_lengths,
    standardise,
    unit_length,
    user_recency,
)
from reckg.ranking.tables.factors import factor_gram, fit_factors
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.item_item import (
    LINEAR_ITEMS,
    Order,
    cooccurrence,
    entity_neighbours,
    linear_weights,
    two_step_walk,
    vector_neighbours,
)
from reckg.ranking.tables.popular import POPULAR_SHARE, choose_popular_share, popular_items

LINEAR_REGULARISATION = 300.0
LINEAR_ENTRIES = 2_000_000  # pruning the linear model costs accuracy, so small catalogs keep it whole
FACTOR_EVENTS = 20_000_000  # longer histories have no factors, which take minutes of each state
STRAY = 0.01  # share of the interactions that may be later than the state, see history.latest_time
TEXT_ITEMS = 200_000  # larger catalogs have no neighbours by text: an exact search costs n_items^2


@dataclass(frozen=True)
class TableInputs:
    """Inputs of the feature tables beside the history.

    Args:
        n_users, n_items: U and I.
        item_entities, user_entities: (I, E), (U, A): non-zero if the item or user has the entity.
        numbers: (I, Fn) float: number columns, NaN for unknown values; Fn may be 0.
        now: epoch seconds, the time of the state; None for data without times, or with an order only.
        neighbours: entries kept of a row of the item-item matrices.
        order: see item_item.Order.
        item_vectors: (I, d), of the same state.
        graph_dim: leading dimensions of the vectors that are the graph model's.
        text: (I, t) vectors of the items' texts, zeros for an item without; None: the data has no texts.
        linear_items: larger catalogs have no linear model (its feature is NaN).
        seed, threads: of the factorisation.
        target: the question of the run.
    """

    n_users: int
    n_items: int
    item_entities: sp.csr_matrix
    user_entities: sp.csr_matrix
    numbers: np.ndarray
    now: int | None
    neighbours: int
    order: Order
    item_vectors: np.ndarray
    graph_dim: int
    text: np.ndarray | None = None
    linear_items: int = LINEAR_ITEMS
    seed: int = 0
    threads: int = 1
    target: Target = "new"


def build_feature_tables(history: History, inputs: TableInputs) -> FeatureTables:
    """Builds the tables of a history as it stands.

    Args:
        history: of the inputs' users. At most a hundredth of the interactions is later than ``inputs.now``.
        inputs: vectors, entities, numbers and settings.
    Raises:
        DataError: shapes do not fit, or too many interactions are later than ``now``.
    """
    _check_shapes(history, inputs)
    _check_times(history, inputs.now)
    n_items, now = inputs.n_items, inputs.now
    entities, traits = _indicators(inputs.item_entities), _indicators(inputs.user_entities)
    few = len(history.item_idx) <= FACTOR_EVENTS
    no_factors = np.zeros((n_items, 0), dtype=np.float32)
    factors = fit_factors(history, n_items, inputs.seed, inputs.threads) if few else no_factors
    text = np.zeros((n_items, 0), dtype=np.float16) if inputs.text is None else unit_length(inputs.text)
    items = [*item_popularity(history, n_items, now), item_age(history, n_items, now)]
    rare, timed = rarity(entities), inputs.order == "between" and now is not None
    share = POPULAR_SHARE if now is None else choose_popular_share(history, n_items, inputs.seed)
    popular, popular_score = popular_items(history, n_items, now, share)
    linear = _linear_table(history, n_items, inputs.neighbours) if n_items <= inputs.linear_items else None
    by_text = vector_neighbours(text, inputs.neighbours) if text.shape[1] and n_items <= TEXT_ITEMS else None
    return FeatureTables(
        order=inputs.order,
        now=now,
        graph_dim=inputs.graph_dim,
        users=np.column_stack([np.log1p(np.diff(history.indptr)), user_recency(history, now)]).astype(np.float32),
        items=np.column_stack([*items, np.log1p(np.diff(entities.indptr))]).astype(np.float32),
        numbers=standardise(np.asarray(inputs.numbers, dtype=np.float32)),
        vectors=unit_length(inputs.item_vectors[:, : inputs.graph_dim]),
        text=text,
        factors=factors,
        factor_gram=factor_gram(factors),
        event_keys=event_keys(history) if timed else np.zeros(0, dtype=np.int64),
        event_times=np.sort(history.timestamp) if timed else np.zeros(0, dtype=np.int64),
        popular=popular,
        popular_score=popular_score,
        entity_length=row_lengths(rare),
        entities=rare,
        cooccurrence=cooccurrence(history, n_items, inputs.neighbours, inputs.order),
        walk=two_step_walk(history, n_items, inputs.neighbours),
        entity_neighbours=entity_neighbours(rare, inputs.neighbours),
        user_entities=traits,
        attribute_lift=attribute_lift(history, traits, n_items),
        linear=linear,
        text_neighbours=by_text,
        target=inputs.target,
        own=inputs.target != "new" or history.taken is not None,
        weighted=True,
    )


def _linear_table(history: History, n_items: int, neighbours: int) -> sp.csr_matrix:
    """Fits the linear model and keeps LINEAR_ENTRIES of it, or ``neighbours`` a row if these are more."""
    kept = max(neighbours, LINEAR_ENTRIES // max(1, n_items))
    return linear_weights(history, n_items, LINEAR_REGULARISATION, kept)


def _check_times(history: History, now: int | None) -> None:
    """Raises DataError if interactions are later than ``now``, other than a few with a wrong time."""
    late = 0 if now is None else int((history.timestamp > now).sum())
    if late > max(1, STRAY * len(history.timestamp)):
        raise DataError(
            f"{late} of {len(history.timestamp)} interactions are later than the time of the features "
            f"({int(history.timestamp.max())} > {now}): they would leak into the ranker."
        )


def _indicators(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Copies a matrix with 1 in place of every value other than zero."""
    ones = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    ones.eliminate_zeros()
    ones.sort_indices()
    ones.data[:] = 1
    return ones


def _check_shapes(history: History, inputs: TableInputs) -> None:
    n_users, n_items, numbers = inputs.n_users, inputs.n_items, np.asarray(inputs.numbers)
    vectors = inputs.item_vectors
    if vectors.ndim != 2 or len(vectors) != n_items:
        raise DataError(f"features of {n_items} items: their vectors have the shape {vectors.shape}.")
    users, items = inputs.user_entities.shape[0], inputs.item_entities.shape[0]
    found = (history.n_users, users, items, numbers.ndim, len(numbers))
    if found != (n_users, n_users, n_items, 2, n_items):
        raise DataError(
            f"features of {n_users} users and {n_items} items: the history has {history.n_users} users, the entities' "
            f"matrices {users} users and {items} items, the numbers the shape {numbers.shape}. "
            "Run 'reckg build-graph' again."
        )
