"""Reads out nodes that are no part of the graph, by the trained weights over the graph's layers, in NumPy.

A new node hears its neighbours as a node of the graph would; the neighbours do not change. An edge's weight is the
geometric mean of its attention seen from both ends: the new node's own share, and the share that one more edge would
have in its neighbour's attention. So a node of the graph, read out with its own edges, has its stored vector.

Nodes are numbered here as entities, then items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Edges:
    """The m edges of a node.

    Args:
        relation: (m,) int64, 0 for an interaction, as the node sees it; an inverse is n_relations higher.
        tail: (m,) int64 nodes.
        count: (m,) summed weights of the edge's interactions, 1 for another edge.
        weight: (m,) part of the edge among the node's own of its kind.
    """

    relation: np.ndarray
    tail: np.ndarray
    count: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.tail)

    def joined(self, other: Edges) -> Edges:
        if not len(other):
            return self
        names = ("relation", "tail", "count", "weight")
        return Edges(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


@dataclass(frozen=True, eq=False)
class Readout:
    """A trained graph model over one graph.

    Args:
        arrays: layers, L of (n, d): the input of each layer; interactions, others (n,): the weights of a node's
            interactions, and the number of its other edges; aggregators.<layer>.<part>.<weight or bias>; with attention
            that is not uniform also log_total (n,), the log of a node's sum of prior x exp(logit), and relation_logit
            (2R,), or transr.relation (2R, k) and transr.projection (2R, d, k).
        n_relations: R, ``interact`` included, without inverses.
    """

    arrays: Mapping[str, Any]
    n_relations: int
    aggregator: str
    combine: str
    interaction_share: float

    @property
    def dim(self) -> int:
        return int(self.arrays["layers"][0].shape[1])

    def layers(self, own: np.ndarray, edges: Edges) -> np.ndarray:
        """Computes the layers of a node.

        Args:
            own: (d,) the node before propagation.
            edges: its m edges.
        Returns:
            (L + 1, d) float32: the node before propagation and after each layer.
        """
        weights = np.sqrt(self.shares(own, edges)[0] * self._tail_shares(own, edges)).astype(np.float32)
        out = [own.astype(np.float32)]
        for number, nodes in enumerate(self.arrays["layers"]):
            out.append(self._aggregate(number, out[-1], np.einsum("m,md->d", weights, nodes[edges.tail])))
        return np.stack(out)

    def combined(self, layers: np.ndarray) -> np.ndarray:
        """Combines (L + 1, d) layers into one unit vector; zeros stay zeros."""
        if self.combine == "last":
            return unit(layers[-1])
        return unit(layers.ravel() if self.combine == "concat" else layers.mean(axis=0))

    def shares(self, own: np.ndarray, edges: Edges) -> tuple[np.ndarray, float]:
        """Computes the shares of the node's own attention.

        Args:
            own: (d,) the node before propagation.
            edges: its m edges.
        Returns:
            (m,) shares that sum to 1, and the log of their divisor.
        """
        kind = (edges.relation % self.n_relations == 0).astype(np.int64)
        total = np.bincount(kind, weights=edges.weight, minlength=2)
        shares = edges.weight / total[kind] * self._kind_share(kind, total[1 - kind])
        if "log_total" not in self.arrays or not len(edges):
            return shares, 0.0
        logits = self._logits(own, edges, from_tail=False)
        scaled = shares * np.exp(logits - logits.max())
        return scaled / scaled.sum(), float(np.log(scaled.sum()) + logits.max())

    def _tail_shares(self, own: np.ndarray, edges: Edges) -> np.ndarray:
        """Computes each edge's share of its tail's attention, as one of the tail's edges or its first of the kind.

        Args:
            own: (d,) the node before propagation.
            edges: its m edges.
        Returns:
            (m,) shares.
        """
        kind = (edges.relation % self.n_relations == 0).astype(np.int64)
        counts = np.stack([self.arrays["others"][edges.tail], self.arrays["interactions"][edges.tail]]).astype(float)
        place = np.arange(len(edges))
        present, of_other_kind = counts[kind, place], counts[1 - kind, place]
        prior = edges.count / np.where(present > 0, present, edges.count) * self._kind_share(kind, of_other_kind)
        grown = prior
        if "log_total" in self.arrays:
            grown = prior * np.exp(self._logits(own, edges, from_tail=True) - self.arrays["log_total"][edges.tail])
        return np.asarray(np.where(present > 0, grown, grown / (1 - prior + grown)))

    def _kind_share(self, kind: np.ndarray, of_other_kind: np.ndarray) -> np.ndarray:
        """Returns the share that edges of a kind have together.

        Args:
            kind: (m,) 1 for interactions, else 0.
            of_other_kind: (m,) number of the node's edges of the other kind.
        """
        return np.where(of_other_kind > 0, np.where(kind == 1, self.interaction_share, 1 - self.interaction_share), 1.0)

    def _logits(self, own: np.ndarray, edges: Edges, *, from_tail: bool) -> np.ndarray:
        """Returns (m,) attention logits of the edges, by relation or by KGAT.

        Args:
            own: (d,) the node before propagation.
            edges: its m edges.
            from_tail: the logits of the inverse edges, which the tails see.
        """
        relation = (edges.relation + self.n_relations * from_tail) % (2 * self.n_relations)
        if "relation_logit" in self.arrays:
            return np.asarray(self.arrays["relation_logit"][relation])
        tails, logits = self.arrays["layers"][0][edges.tail], np.empty(len(edges))
        for number in np.unique(relation):
            of_relation = relation == number
            projection, vector = self.arrays["transr.projection"][number], self.arrays["transr.relation"][number]
            near = np.einsum("d,dk->k", own, projection)
            far = np.einsum("md,dk->mk", tails[of_relation], projection)
            head, tail = (far, near) if from_tail else (near, far)
            logits[of_relation] = (tail * np.tanh(head + vector)).sum(axis=1)
        return logits

    def _aggregate(self, layer: int, node: np.ndarray, neighbourhood: np.ndarray) -> np.ndarray:
        """Aggregates one node as reckg.model.joint.kgat.Aggregator."""
        if self.aggregator == "sum":
            return neighbourhood
        out = self._linear(layer, "joined", node + neighbourhood)
        if self.aggregator == "bi-interaction":
            out = out + self._linear(layer, "product", node * neighbourhood)
        return unit(out)

    def _linear(self, layer: int, part: str, vector: np.ndarray) -> np.ndarray:
        name = f"aggregators.{layer}.{part}."
        out = np.einsum("od,d->o", self.arrays[name + "weight"], vector) + self.arrays[name + "bias"]
        return np.asarray(np.where(out > 0, out, np.float32(0.01) * out))


def unit(vector: np.ndarray) -> np.ndarray:
    """Scales a (d,) vector to length 1, float32; zeros stay zeros."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
