"""A KnowledgeGraph as torch needs it: edge arrays, edge weights from attention, and the adjacency to propagate over."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.dgl_compat import dgl
from reckg.model.message_passing import Adjacency
from reckg.model.transr import attention


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
        self.adjacency.set_weights((self.shares * self.shares[self.inverse_edge]).sqrt())
