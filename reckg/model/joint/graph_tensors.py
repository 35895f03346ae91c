"""A KnowledgeGraph as torch needs it: edge arrays, edge weights from attention, and the adjacency to propagate over."""

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
    """A KnowledgeGraph on a device. shares (n_edges,): each edge's attention, summing to 1 by head."""

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
        """Sets each edge's weight to the geometric mean of its attention seen from both ends; logits (n_edges,).

        With uniform attention that is 1 / sqrt(degree x degree), LightGCN's normalisation; in general it keeps the
        matrix symmetric and its spectrum bounded by 1, while both ends have a say.
        """
        self.logits = logits
        self.shares = self.prior if logits is None else attention(self._dgl_graph, self.prior, logits)
        self.adjacency.set_weights(geometric_mean(self.shares, self.shares[self.inverse_edge]))

    @cached_property
    def _kinds(self) -> EdgeKinds:
        """The edges by relation, a relation and its inverse being one."""
        n_relations = self.graph.n_relations
        return EdgeKinds(self.head, self.tail, self.relation % n_relations, n_relations)

    def set_relations(self, relations: torch.Tensor) -> None:
        """set_attention with the logit of an edge's relation; relations (2 * n_relations,).

        logits, shares and weights then have a gradient to them, and so has propagation.
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
        """(2 * n_relations,) of shares (n_edges,): what a relation's edges have of a node's attention, on average over
        the nodes that have the relation; 0 where none has."""
        n = 2 * self.graph.n_relations
        nodes = torch.bincount(torch.unique(self.head * n + self.relation) % n, minlength=n)
        return torch.zeros(n, device=shares.device).index_add(0, self.relation, shares) / nodes.clamp(min=1)


def geometric_mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """sqrt(a * b) of numbers that are not negative; where one is zero the gradient is zero, not infinite."""
    product = a * b
    if not product.requires_grad:
        return product.sqrt()
    return torch.where(product > 0, product, 1).sqrt() * (product > 0)
