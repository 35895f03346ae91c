"""The knowledge graph in torch: edge arrays, edge weights from attention, and the adjacency for propagation."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.joint.transr import attention
from reckg.model.sparse.dgl_compat import dgl
from reckg.model.sparse.message_passing import Adjacency
from reckg.model.sparse.relation_gradient import EdgeKinds, Factors


class GraphTensors:
    """A KnowledgeGraph on a device.

    Attributes:
        head, relation, tail, prior: (n_edges,) as in the graph.
        shares: (n_edges,) each edge's attention, summing to 1 by head.
        logits: (n_edges,) before the softmax, or None for uniform attention.
    """

    def __init__(self, graph: KnowledgeGraph, device: torch.device) -> None:
        self.graph = graph
        self.head = torch.from_numpy(graph.head).to(device)
        self.relation = torch.from_numpy(graph.relation).to(device)
        self.tail = torch.from_numpy(graph.tail).to(device)
        self.prior = torch.from_numpy(graph.prior).to(device)
        self.inverse_edge = torch.from_numpy(graph.inverse_edge()).to(device)
        self.adjacency = Adjacency(self.head, self.tail, graph.n_nodes, inverse_edge=self.inverse_edge)
        self.set_attention(None)

    @cached_property
    def _dgl_graph(self) -> Any:
        """DGL's copy of the edges, tail -> head, made when attention first needs it."""
        edges = torch.from_numpy(self.graph.tail), torch.from_numpy(self.graph.head)
        return dgl.graph(edges, num_nodes=self.graph.n_nodes)

    def set_attention(self, logits: torch.Tensor | None) -> None:
        """Sets each edge's weight to the geometric mean of its attention seen from both ends.

        With uniform attention the weight is 1 / sqrt(degree x degree), LightGCN's normalisation. In general it keeps
        the matrix symmetric and its spectrum bounded by 1, while both ends count.

        Args:
            logits: (n_edges,), or None for uniform attention.
        """
        self.logits = logits
        self.shares = self.prior if logits is None else attention(self._dgl_graph, self.prior, logits)
        self.adjacency.set_weights(geometric_mean(self.shares, self.shares[self.inverse_edge]))

    @cached_property
    def _kinds(self) -> EdgeKinds:
        """The edges by relation. A relation and its inverse are the same kind."""
        n_relations = self.graph.n_relations
        return EdgeKinds(self.head, self.tail, self.relation % n_relations, n_relations)

    def set_relations(self, relations: torch.Tensor) -> None:
        """Sets attention from a logit per relation. Logits, shares, weights and propagation have a gradient to it.

        Args:
            relations: (2 * n_relations,).
        """
        logits, n_relations = relations[self.relation], self.graph.n_relations
        none = torch.zeros(self.graph.n_nodes, dtype=logits.dtype, device=logits.device)
        highest = none.scatter_reduce(0, self.head, logits.detach(), "amax", include_self=False)
        scores = self.prior * (logits - highest[self.head]).exp()
        total = none.index_add(0, self.head, scores)
        self.logits, self.shares = logits, scores / total[self.head]
        scale = -(total.clamp(min=torch.finfo(total.dtype).tiny).log() + highest) / 2
        factor = (relations[:n_relations] + relations[n_relations:]) / 2
        weights = geometric_mean(self.shares, self.shares[self.inverse_edge])
        self.adjacency.set_weights(weights, Factors(self._kinds, scale, factor))

    @torch.no_grad()
    def relation_shares(self, shares: torch.Tensor) -> torch.Tensor:
        """Averages shares by relation, over the nodes that have the relation.

        Args:
            shares: (n_edges,) attention.
        Returns:
            (2 * n_relations,) the share of a node's attention that the relation's edges have; 0 for a relation without
            edges.
        """
        n = 2 * self.graph.n_relations
        nodes = torch.bincount(torch.unique(self.head * n + self.relation) % n, minlength=n)
        return torch.zeros(n, device=shares.device).index_add(0, self.relation, shares) / nodes.clamp(min=1)


def geometric_mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Computes sqrt(a * b) of numbers >= 0. The gradient at zero is zero, not infinite."""
    product = a * b
    if not product.requires_grad:
        return product.sqrt()
    return torch.where(product > 0, product, 1).sqrt() * (product > 0)
