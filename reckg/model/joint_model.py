"""The joint model: ID embeddings and text vectors enter the graph, attention weighs it, propagation mixes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.dgl_compat import dgl
from reckg.model.kgat import Propagation
from reckg.model.message_passing import Adjacency
from reckg.model.text_encoder import TextEncoder
from reckg.model.transr import TransR, attention


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors, float32: users (n_users, d), items (n_items, d), entities (n_entities, d)."""

    users: np.ndarray
    items: np.ndarray
    entities: np.ndarray


class GraphTensors:
    """A KnowledgeGraph on a device: edge arrays, the adjacency that propagation uses, and DGL's graph for attention."""

    def __init__(self, graph: KnowledgeGraph, device: torch.device) -> None:
        self.graph = graph
        self.head = torch.from_numpy(graph.head).to(device)
        self.relation = torch.from_numpy(graph.relation).to(device)
        self.tail = torch.from_numpy(graph.tail).to(device)
        self.prior = torch.from_numpy(graph.prior).to(device)
        self.inverse_edge = torch.from_numpy(graph.inverse_edge()).to(device)
        self.dgl_graph = dgl.graph((torch.from_numpy(graph.tail), torch.from_numpy(graph.head)), num_nodes=graph.n_nodes)
        self.adjacency = Adjacency(self.head, self.tail, graph.n_nodes)
        self.set_attention(None)

    def set_attention(self, logits: torch.Tensor | None) -> None:
        """Sets each edge's weight to the geometric mean of its attention seen from both ends.

        With uniform attention that is 1 / sqrt(degree x degree), LightGCN's normalisation; in general it keeps the
        matrix symmetric and its spectrum bounded by 1, while both ends have a say.
        """
        shares = attention(self.dgl_graph, self.prior, logits)
        self.adjacency.set_weights((shares * shares[self.inverse_edge]).sqrt())


class JointModel(nn.Module):
    """Users, items and entities of one graph to vectors; text enters through a gate.

    Args:
        graph: the training graph; nodes that have no interaction in it get no ID part, for it would be noise.
        text: an encoder of the items' texts (row i is item i), or None.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        text: TextEncoder | None,
        *,
        embedding_dim: int,
        relation_dim: int,
        layers: int,
        aggregator: str,
        combine: str,
        attention: str,
        dropout: float,
        id_dropout: float,
    ) -> None:
        super().__init__()
        if attention not in ("uniform", "transr"):
            raise ValueError(f"attention must be uniform or transr, got {attention!r}")
        self.n_users, self.n_items = graph.n_users, graph.n_items
        self.attention, self.id_dropout = attention, id_dropout
        self.embedding = nn.Parameter(torch.randn(graph.n_nodes, embedding_dim) * 0.1)
        self.propagation = Propagation(
            layers=layers, dim=embedding_dim, aggregator=aggregator, combine=combine, dropout=dropout
        )
        self.transr = TransR(2 * graph.n_relations, embedding_dim, relation_dim)
        self.relation_product = nn.Linear(embedding_dim, 2 * graph.n_relations, bias=True)
        self.relation_difference = nn.Linear(embedding_dim, 2 * graph.n_relations, bias=False)
        known = torch.from_numpy(graph.has_interaction)
        known[graph.n_users + graph.n_items :] = True
        self.register_buffer("known", known.unsqueeze(1))
        self.register_buffer("describable", torch.from_numpy(_describable(graph, text)).unsqueeze(1))
        self.text = text
        if text is not None:
            self.text_projection = nn.Linear(text.dim, embedding_dim, bias=False)
            self.text_gate = nn.Linear(text.dim, embedding_dim)
            nn.init.xavier_uniform_(self.text_projection.weight)
            nn.init.zeros_(self.text_gate.weight)
            nn.init.zeros_(self.text_gate.bias)

    def text_vectors(self, batch_items: torch.Tensor | None) -> torch.Tensor:
        """(n_items, text dim): the last refreshed vectors; batch_items (b,) unique ones are encoded with gradients."""
        assert self.text is not None
        vectors = self.text.vectors
        if batch_items is None or not self.text.trains:
            return vectors
        return vectors.index_copy(0, batch_items, self.text.encode(batch_items))

    def projected_text(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, text dim) -> (n, embedding_dim): the gated projection that stands for an item's text."""
        return torch.sigmoid(self.text_gate(vectors)) * self.text_projection(vectors)

    def node_input(self, text_items: torch.Tensor | None = None) -> torch.Tensor:
        """(n_nodes, embedding_dim) before propagation; in training, ID parts of some describable nodes are dropped."""
        keep = self.known
        if self.training and self.id_dropout > 0:
            dropped = torch.rand(keep.shape, device=keep.device) < self.id_dropout
            keep = keep & ~(dropped & self.describable)
        nodes = self.embedding * keep
        if self.text is None:
            return nodes
        projected = self.projected_text(self.text_vectors(text_items))
        before, after = self.n_users, len(nodes) - self.n_users - self.n_items
        return nodes + F.pad(projected, (0, 0, before, after))

    def forward(self, tensors: GraphTensors, text_items: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(node inputs (n_nodes, embedding_dim), propagated nodes (n_nodes, d))."""
        nodes = self.node_input(text_items)
        return nodes, self.propagation(nodes, tensors.adjacency)

    def relation_logits(self, nodes: torch.Tensor, head: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """(b, 2 * n_relations) logits of P(r | head, tail)."""
        h, t = nodes[head], nodes[tail]
        return self.relation_product(h * t) + self.relation_difference(h - t)

    @torch.no_grad()
    def update_attention(self, tensors: GraphTensors) -> None:
        """Refreshes the edge weights of a graph from the current vectors."""
        if self.attention == "uniform":
            tensors.set_attention(None)
            return
        training = self.training
        self.eval()
        nodes = self.node_input()
        tensors.set_attention(self.transr.attention_logits(nodes, tensors.head, tensors.relation, tensors.tail))
        self.train(training)

    @torch.no_grad()
    def embeddings(self, tensors: GraphTensors) -> Embeddings:
        """Unit vectors of all nodes over a graph of the same nodes, which may hold other interactions."""
        training = self.training
        self.eval()
        vectors = F.normalize(self(tensors)[1], dim=1).cpu().numpy()
        self.train(training)
        users, items = self.n_users, self.n_users + self.n_items
        return Embeddings(vectors[:users], vectors[users:items], vectors[items:])


def _describable(graph: KnowledgeGraph, text: TextEncoder | None) -> np.ndarray:
    """(n_nodes,) bool: a node that has something besides its ID: attributes, a text, or (a user) a history."""
    out = np.zeros(graph.n_nodes, dtype=bool)
    out[graph.head[graph.relation % graph.n_relations != 0]] = True
    out[: graph.n_users] = True
    out[graph.n_users + graph.n_items :] = False
    if text is not None:
        out[graph.n_users : graph.n_users + graph.n_items] |= [bool(row) for row in text.tokens]
    return out
