"""The user-item-attribute knowledge graph: node order users | items | entities, inverse relations explicit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reckg.errors import DataError

INTERACT = "interact"
SMALLEST = 1e-30  # float32 can still tell it from zero


@dataclass(frozen=True)
class KnowledgeGraph:
    """Edges of a knowledge graph over n_users + n_items + n_entities nodes, in that order.

    Relation 0 is ``interact``. The inverse of relation r is r + n_relations. Its edges are listed too, so that
    ``head`` holds every node with at least one edge.

    Args:
        relations: names, without inverses.
        head, relation, tail: (n_edges,) int64, ordered by head.
        prior: (n_edges,) float32, summing to 1 by head: each edge's attention without a model.
    """

    n_users: int
    n_items: int
    n_entities: int
    relations: tuple[str, ...]
    head: np.ndarray
    relation: np.ndarray
    tail: np.ndarray
    prior: np.ndarray

    @property
    def n_nodes(self) -> int:
        """Number of users, items and entities."""
        return self.n_users + self.n_items + self.n_entities

    @property
    def n_relations(self) -> int:
        """Number of relations without their inverses."""
        return len(self.relations)

    @property
    def has_interaction(self) -> np.ndarray:
        """(n_nodes,) bool: the node is a user or an item with an interaction."""
        out = np.zeros(self.n_nodes, dtype=bool)
        out[self.head[self.relation % self.n_relations == 0]] = True
        return out

    def inverse_edge(self) -> np.ndarray:
        """Finds each edge's inverse: (n_edges,) int64 places."""
        inverse = (self.relation + self.n_relations) % (2 * self.n_relations)
        forward = np.lexsort((self.tail, self.relation, self.head))
        backward = np.lexsort((self.head, inverse, self.tail))
        out = np.empty(len(self.head), dtype=np.int64)
        out[backward] = forward
        return out


def build_knowledge_graph(  # noqa: PLR0913 - the graph's parts
    *,
    n_users: int,
    n_items: int,
    n_entities: int,
    relations: tuple[str, ...],
    triples: tuple[np.ndarray, np.ndarray, np.ndarray],
    user_idx: np.ndarray,
    item_idx: np.ndarray,
    recency: np.ndarray,
    interaction_share: float,
    weight: np.ndarray | None = None,
) -> KnowledgeGraph:
    """Joins interactions and triples to a graph, adds the inverses, and sets each edge's prior share.

    Args:
        relations: names of the relations of ``triples``, without ``interact``; relation i of triples is relations[i].
        triples: (head, relation, tail), (m,) int each; nodes in graph order, no inverses.
        user_idx, item_idx: (n,) the interactions; repeated pairs are joined.
        recency: (n,) > 0, factor of each interaction in its user's neighbourhood, not in its item's.
        interaction_share: share of the prior on interactions, for a node that has other edges too.
        weight: (n,) > 0, weight of each interaction at both ends. None: all 1.
    Raises:
        DataError: a node or a relation is out of range, or a recency or weight is not a positive number.
    """
    weight = np.ones(len(recency)) if weight is None else weight.astype(np.float64)
    wrong = ~(np.isfinite(recency * weight) & (recency > 0) & (weight > 0))
    if wrong.any():
        raise DataError(f"{int(wrong.sum())} of {len(recency)} interactions' weights are not positive numbers.")
    n_nodes, n_relations = n_users + n_items + n_entities, len(relations) + 1
    triple_head, triple_relation, triple_tail = (np.asarray(part, dtype=np.int64) for part in triples)
    _check_range("user", user_idx, n_users)
    _check_range("item", item_idx, n_items)
    _check_range("head", triple_head, n_nodes)
    _check_range("relation", triple_relation, len(relations))
    _check_range("tail", triple_tail, n_nodes)
    pair, where = np.unique(user_idx.astype(np.int64) * n_items + item_idx, return_inverse=True)
    in_history = np.maximum(np.bincount(where, weights=recency * weight, minlength=len(pair)), SMALLEST)
    at_item = np.bincount(where, weights=weight, minlength=len(pair))
    users, items = pair // n_items, pair % n_items + n_users
    head = np.concatenate([users, triple_head])
    relation = np.concatenate([np.zeros(len(users), dtype=np.int64), triple_relation + 1])
    tail = np.concatenate([items, triple_tail])
    ones = np.ones(len(triple_head))
    all_head = np.concatenate([head, tail])
    all_relation = np.concatenate([relation, relation + n_relations])
    all_tail = np.concatenate([tail, head])
    all_weight = np.concatenate([in_history, ones, at_item, ones])
    order = np.lexsort((all_tail, all_relation, all_head))
    all_head, all_relation, all_tail = all_head[order], all_relation[order], all_tail[order]
    return KnowledgeGraph(
        n_users=n_users,
        n_items=n_items,
        n_entities=n_entities,
        relations=(INTERACT, *relations),
        head=all_head,
        relation=all_relation,
        tail=all_tail,
        prior=_prior(all_head, all_relation % n_relations == 0, all_weight[order], n_nodes, interaction_share),
    )


def _check_range(name: str, indices: np.ndarray, end: int) -> None:
    outside = indices[(indices < 0) | (indices >= end)]
    if len(outside):
        raise DataError(f"graph: {len(outside)} {name} indices are out of range 0..{end - 1} (first: {outside[0]}).")


def _prior(
    head: np.ndarray, is_interaction: np.ndarray, weight: np.ndarray, n_nodes: int, interaction_share: float
) -> np.ndarray:
    """Computes shares that sum to 1 by head: a share to interactions, the rest to the other edges.

    Returns:
        (n_edges,) float32.
    """
    group = head * 2 + is_interaction
    total = np.bincount(group, weights=weight, minlength=2 * n_nodes)
    share = np.where(is_interaction, interaction_share, 1.0 - interaction_share)
    other_is_empty = total[head * 2 + ~is_interaction] == 0
    share = np.where(other_is_empty, 1.0, share)
    prior: np.ndarray = (weight / total[group] * share).astype(np.float32)
    return prior
