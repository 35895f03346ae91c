"""The joint model: ID embeddings and text vectors enter the graph, attention weighs it, propagation mixes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Bags, WithoutTargets
from reckg.model.joint.kgat import Layers, Propagation
from reckg.model.joint.transr import TransR
from reckg.model.sparse.sampled_rows import CutRows, SampledRows, of_users
from reckg.model.text.encoder import TextEncoder


@dataclass(frozen=True)
class ModelSettings:
    """Sizes and choices of a joint model. Names and meanings are those of the configuration's ``model`` section.

    Args:
        user_ids: users have an ID part. Without, a user is represented by history and attributes, and has no row in
            the ID table, whose row i is then node n_users + i.
    """

    embedding_dim: int
    relation_dim: int
    layers: int
    aggregator: str
    combine: str
    attention: str
    dropout: float
    id_dropout: float
    user_ids: bool


class JointModel(nn.Module):
    """A graph model that gives users, items and entities vectors. Text enters through a gate.

    Args:
        graph: the training graph. Nodes without an interaction in it get no ID part, because it would be noise.
        text: an encoder of the items' texts (row i is item i), or None.
        settings: sizes and choices.
    """

    known: torch.Tensor  # (n_nodes, 1) bool: has an ID part
    describable: torch.Tensor  # (n_nodes, 1) bool: has something besides its ID

    def __init__(self, graph: KnowledgeGraph, text: TextEncoder | None, settings: ModelSettings) -> None:
        super().__init__()
        attention, embedding_dim = settings.attention, settings.embedding_dim
        if attention not in ("uniform", "transr", "relation"):
            raise ValueError(f"attention must be uniform, transr or relation, got {attention!r}")
        self.n_users, self.n_items = graph.n_users, graph.n_items
        self.attention, self.id_dropout = attention, settings.id_dropout
        self.first_row = 0 if settings.user_ids else graph.n_users
        self.embedding = nn.Parameter(torch.randn(graph.n_nodes - self.first_row, embedding_dim) * 0.1)
        self.propagation = Propagation(
            layers=settings.layers,
            dim=embedding_dim,
            aggregator=settings.aggregator,
            combine=settings.combine,
            dropout=settings.dropout,
        )
        self.transr = TransR(2 * graph.n_relations, embedding_dim, settings.relation_dim)
        self.relation_product = nn.Linear(embedding_dim, 2 * graph.n_relations, bias=True)
        self.relation_difference = nn.Linear(embedding_dim, 2 * graph.n_relations, bias=False)
        if attention == "relation":
            self.relation_logit = nn.Parameter(torch.zeros(2 * graph.n_relations))
        known = torch.from_numpy(graph.has_interaction)
        known[graph.n_users + graph.n_items :] = True
        known[: graph.n_users] &= settings.user_ids
        self.register_buffer("known", known.unsqueeze(1))
        self.register_buffer("describable", torch.from_numpy(_describable(graph, text)).unsqueeze(1))
        self.text = text
        if text is not None:
            self.text_projection = nn.Linear(text.dim, embedding_dim, bias=False)
            self.text_gate = nn.Linear(text.dim, embedding_dim)
            nn.init.xavier_uniform_(self.text_projection.weight)
            nn.init.zeros_(self.text_gate.weight)
            nn.init.zeros_(self.text_gate.bias)

    def text_nodes(self, encode: torch.Tensor | None = None) -> torch.Tensor:
        """Computes the gated projections of the items' texts.

        Args:
            encode: (b,) items that a trained encoder encodes anew, with gradients. All others keep the vector of their
                last encoding, without.
        Returns:
            (n_items, embedding_dim).
        """
        assert self.text is not None
        if encode is None or not self.text.trains:
            return self.project_text(self.text.vectors)
        encoded = self.text.encode(encode)
        return self.project_text(self.text.vectors).index_copy(0, encode, self.project_text(encoded))

    def project_text(self, vectors: torch.Tensor) -> torch.Tensor:
        """Projects text vectors (n, text dim) to (n, embedding_dim)."""
        projected: torch.Tensor = torch.sigmoid(self.text_gate(vectors)) * self.text_projection(vectors)
        return projected

    def node_input(self, text: torch.Tensor | None = None) -> torch.Tensor:
        """Computes the nodes before propagation. In training, ID parts of some describable nodes are dropped.

        Args:
            text: from text_nodes; None: made from the vectors as they are.
        Returns:
            (n_nodes, embedding_dim).
        """
        nodes = self.embedding * self.draw_ids(slice(self.first_row, None))
        if self.first_row:
            nodes = F.pad(nodes, (0, 0, self.first_row, 0))
        if self.text is None:
            return nodes
        text = self.text_nodes() if text is None else text
        before, after = self.n_users, len(nodes) - self.n_users - self.n_items
        return nodes + F.pad(text, (0, 0, before, after))

    def id_rows(self) -> SampledRows:
        """Gives the whole ID table, its rows looked up by node."""
        rows = torch.arange(len(self.embedding), device=self.embedding.device)
        return SampledRows(self.embedding, rows, self.first_row)

    def draw_ids(self, nodes: torch.Tensor | slice) -> torch.Tensor:
        """Draws which nodes have their ID part. In training, some describable nodes lose it.

        Returns:
            (n, 1) bool.
        """
        keep = self.known[nodes]
        if self.training and self.id_dropout > 0:
            dropped = torch.rand(keep.shape, device=keep.device) < self.id_dropout
            keep = keep & ~(dropped & self.describable[nodes])
        return keep

    def forward(self, tensors: GraphTensors, text: torch.Tensor | None = None) -> Layers[CutRows]:
        """Propagates over a graph.

        Args:
            tensors: the graph.
            text: as in node_input.
        Returns:
            The nodes before propagation and after each layer. The last layer has users and items only.
        """
        users, items = self.n_users, self.n_items
        layers = self.propagation(self.node_input(text), tensors.adjacency, users + items)
        return Layers(*([CutRows.of(values, users, items) for values in of] for of in (layers.nodes, layers.sums)))

    def user_readout(
        self, layers: Layers[Any], user: torch.Tensor, neighbourhoods: Sequence[Bags | WithoutTargets]
    ) -> torch.Tensor:
        """Reads out users with given neighbourhoods, over the layers of all other nodes.

        Args:
            user: (b,).
            neighbourhoods: added up.
        Returns:
            (b, d).
        """
        gathered = [
            torch.stack([part.gather(nodes, sums) for part in neighbourhoods]).sum(0)
            for nodes, sums in zip(layers.nodes, layers.sums, strict=False)
        ]
        return self.propagation.read_out(of_users(user, layers.nodes[0]), gathered)

    def item_vectors(self, layers: Layers[CutRows]) -> torch.Tensor:
        """Combines the layers of the graph's own items: (n_items, d) unit vectors."""
        return F.normalize(self.propagation.combine_layers([nodes.items for nodes in layers.nodes]), dim=1)

    def relation_logits(self, nodes: torch.Tensor, head: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """Computes logits of P(r | head, tail).

        Args:
            nodes: rows by node.
            head, tail: (b,).
        Returns:
            (b, 2 * n_relations).
        """
        h, t = nodes[head], nodes[tail]
        logits: torch.Tensor = self.relation_product(h * t) + self.relation_difference(h - t)
        return logits

    def update_attention(self, tensors: GraphTensors) -> None:
        """Refreshes the edge weights of a graph from the current parameters.

        They have a gradient only with attention ``relation``, which needs a refresh in every step.
        """
        if self.attention == "relation":
            tensors.set_relations(self.relation_logit)
        elif self.attention == "uniform":
            tensors.set_attention(None)
        else:
            tensors.set_attention(self._transr_logits(tensors))

    @torch.no_grad()
    def _transr_logits(self, tensors: GraphTensors) -> torch.Tensor:
        """Computes KGAT's attention logits from the nodes before propagation."""
        training = self.training
        self.eval()
        nodes = self.node_input()
        self.train(training)
        return self.transr.attention_logits(nodes, tensors.head, tensors.relation, tensors.tail)

    @torch.no_grad()
    def embeddings(self, tensors: GraphTensors) -> Embeddings:
        """Computes unit vectors of all nodes.

        Args:
            tensors: a graph of the same nodes, which may hold other interactions.
        """
        if self.attention == "relation":
            self.update_attention(tensors)
        training = self.training
        self.eval()
        combined = self.propagation.infer(self.node_input(), tensors.adjacency)
        vectors = combined.div_(combined.norm(dim=1, keepdim=True).clamp_(min=1e-12)).cpu().numpy()
        self.train(training)
        users, items = self.n_users, self.n_users + self.n_items
        return Embeddings(vectors[:users], vectors[users:items], vectors[items:])


def _describable(graph: KnowledgeGraph, text: TextEncoder | None) -> np.ndarray:
    """Marks nodes with something besides an ID: attributes, a text, or (users) a history. (n_nodes,) bool."""
    out = np.zeros(graph.n_nodes, dtype=bool)
    out[graph.head[graph.relation % graph.n_relations != 0]] = True
    out[: graph.n_users] = True
    out[graph.n_users + graph.n_items :] = False
    if text is not None:
        out[graph.n_users : graph.n_users + graph.n_items] |= text.tokens.lengths > 0
    return out
