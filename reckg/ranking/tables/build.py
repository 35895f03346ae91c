"""The feature tables of a history as it stands."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from reckg.data.history import History
from reckg.errors import DataError
from reckg.ranking.tables.columns import (
    attribute_lift,
    event_keys,
    item_age,
    item_popularity,
    popular_items,
    rarity,
    row_lengths,
    standardised,
    unit_length,
    user_recency,
)
from reckg.ranking.tables.factors import factor_gram, fit_factors
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.item_item import (
    Order,
    cooccurrence,
    entity_neighbours,
    linear_weights,
    two_step_walk,
    vector_neighbours,
)

LINEAR_ITEMS = 5_000  # catalogues above this have no linear score: its inverse costs n_items^3
LINEAR_REGULARISATION = 300.0
LINEAR_ENTRIES = 2_000_000  # the linear model's pruning costs accuracy; small catalogues keep it whole
FACTOR_EVENTS = 20_000_000  # histories of more interactions have no factors: they take minutes of each state
TEXT_ITEMS = 200_000  # catalogues above this have no neighbours by text: an exact search costs n_items^2


def build_feature_tables(
    history: History,
    *,
    n_users: int,
    n_items: int,
    item_entities: sp.csr_matrix,
    user_entities: sp.csr_matrix,
    numbers: np.ndarray,
    now: int | None,
    neighbours: int,
    order: Order,
    item_vectors: np.ndarray,
    graph_dim: int,
    text: np.ndarray | None = None,
    linear_items: int = LINEAR_ITEMS,
    seed: int = 0,
    threads: int = 1,
) -> FeatureTables:
    """The tables of a history as it stands.

    Args:
        history: of n_users users; nothing later than ``now``.
        item_entities, user_entities: (n_items, E), (n_users, A): non-zero where the item or user has the entity.
        numbers: (n_items, Fn) float: number columns, NaN where unknown; Fn may be 0.
        now: epoch seconds, the time of the state; None where the data has no times, or only an order.
        neighbours: entries kept of a row of the item-item matrices.
        order: see item_item.Order.
        item_vectors: (n_items, d), of the same state, graph_dim of them the graph model's.
        text: (n_items, t) vectors of the items' texts, zeros where an item has none; None: there are no texts.
        linear_items: the linear model is left out (its feature is NaN) in larger catalogues.
        seed, threads: of the factorisation.
    Raises:
        DataError: shapes do not fit, or an interaction is later than ``now``.
    """
    numbers = np.asarray(numbers, dtype=np.float32)
    _check_shapes(history, n_users, n_items, item_entities, user_entities, numbers, item_vectors)
    _check_times(history, now)
    entities, traits = _of_ones(item_entities), _of_ones(user_entities)
    few = len(history.item_idx) <= FACTOR_EVENTS
    factors = fit_factors(history, n_items, seed, threads) if few else np.zeros((n_items, 0), dtype=np.float32)
    text = np.zeros((n_items, 0), dtype=np.float16) if text is None else unit_length(text)
    items = [*item_popularity(history, n_items, now), item_age(history, n_items, now)]
    rare, timed = rarity(entities), order == "between" and now is not None
    popular, popular_score = popular_items(history, n_items, now)
    return FeatureTables(
        order=order,
        now=now,
        graph_dim=graph_dim,
        users=np.column_stack([np.log1p(np.diff(history.indptr)), user_recency(history, now)]).astype(np.float32),
        items=np.column_stack([*items, np.log1p(np.diff(entities.indptr))]).astype(np.float32),
        numbers=standardised(numbers),
        vectors=unit_length(item_vectors[:, :graph_dim]),
        text=text,
        factors=factors,
        factor_gram=factor_gram(factors),
        event_keys=event_keys(history) if timed else np.zeros(0, dtype=np.int64),
        event_times=np.sort(history.timestamp) if timed else np.zeros(0, dtype=np.int64),
        popular=popular,
        popular_score=popular_score,
        entity_length=row_lengths(rare),
        entities=rare,
        cooccurrence=cooccurrence(history, n_items, neighbours, order),
        walk=two_step_walk(history, n_items, neighbours),
        entity_neighbours=entity_neighbours(rare, neighbours),
        user_entities=traits,
        attribute_lift=attribute_lift(history, traits, n_items),
        linear=_linear_table(history, n_items, neighbours) if n_items <= linear_items else None,
        text_neighbours=vector_neighbours(text, neighbours) if text.shape[1] and n_items <= TEXT_ITEMS else None,
    )


def _linear_table(history: History, n_items: int, neighbours: int) -> sp.csr_matrix:
    """Fits the linear model and keeps LINEAR_ENTRIES of it, or ``neighbours`` a row if these are more."""
    kept = max(neighbours, LINEAR_ENTRIES // max(1, n_items))
    return linear_weights(history, n_items, LINEAR_REGULARISATION, kept)


def _check_times(history: History, now: int | None) -> None:
    """Raises DataError if an interaction is later than ``now``."""
    if now is not None and len(history.timestamp) and history.timestamp.max() > now:
        late = int((history.timestamp > now).sum())
        raise DataError(
            f"{late} of {len(history.timestamp)} interactions are later than the time of the features "
            f"({int(history.timestamp.max())} > {now}): they would leak into the ranker."
        )


def _of_ones(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A copy with 1 where the matrix is not zero."""
    ones = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    ones.eliminate_zeros()
    ones.sort_indices()
    ones.data[:] = 1
    return ones


def _check_shapes(
    history: History,
    n_users: int,
    n_items: int,
    item_entities: sp.csr_matrix,
    user_entities: sp.csr_matrix,
    numbers: np.ndarray,
    item_vectors: np.ndarray,
) -> None:
    if item_vectors.ndim != 2 or len(item_vectors) != n_items:
        raise DataError(f"features of {n_items} items: their vectors have the shape {item_vectors.shape}.")
    found = (history.n_users, user_entities.shape[0], item_entities.shape[0], numbers.ndim, len(numbers))
    if found != (n_users, n_users, n_items, 2, n_items):
        raise DataError(
            f"features of {n_users} users and {n_items} items: the history has {found[0]} users, the entities' "
            f"matrices {found[1]} users and {found[2]} items, the numbers the shape {numbers.shape}. "
            "Run 'reckg build-graph' again."
        )
