"""The joint model: ID embeddings and text vectors enter the graph, attention weighs it, propagation mixes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from reckg.model.linear.spectral import Spectral


class JointModel(nn.Module):
    """Users, items and entities of one graph to vectors; text enters through a gate.

    Args:
        graph: the training graph; nodes that have no interaction in it get no ID part, for it would be noise.
        text: an encoder of the items' texts (row i is item i), or None.
        user_ids: whether users have an ID part, or are what their history and attributes say; without one they have no
            rows in the ID table, whose row i is node first_row + i.
    """

    known: torch.Tensor  # (n_nodes, 1) bool: has an ID part
    describable: torch.Tensor  # (n_nodes, 1) bool: has something besides its ID

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
        user_ids: bool,
    ) -> None:
        super().__init__()
        if attention not in ("uniform", "transr", "relation"):
            raise ValueError(f"attention must be uniform, transr or relation, got {attention!r}")
        self.n_users, self.n_items = graph.n_users, graph.n_items
        self.attention, self.id_dropout = attention, id_dropout
        self.first_row = 0 if user_ids else graph.n_users
        self.embedding = nn.Parameter(torch.randn(graph.n_nodes - self.first_row, embedding_dim) * 0.1)
        self.propagation = Propagation(
            layers=layers, dim=embedding_dim, aggregator=aggregator, combine=combine, dropout=dropout
        )
        self.transr = TransR(2 * graph.n_relations, embedding_dim, relation_dim)
        self.relation_product = nn.Linear(embedding_dim, 2 * graph.n_relations, bias=True)
        self.relation_difference = nn.Linear(embedding_dim, 2 * graph.n_relations, bias=False)
        if attention == "relation":
            self.relation_logit = nn.Parameter(torch.zeros(2 * graph.n_relations))
        known = torch.from_numpy(graph.has_interaction)
        known[graph.n_users + graph.n_items :] = True
        known[: graph.n_users] &= user_ids
        self.register_buffer("known", known.unsqueeze(1))
        self.register_buffer("describable", torch.from_numpy(_describable(graph, text)).unsqueeze(1))
        self.spectral: Spectral | None = None
        self.text = text
        if text is not None:
            self.text_projection = nn.Linear(text.dim, embedding_dim, bias=False)
            self.text_gate = nn.Linear(text.dim, embedding_dim)
            nn.init.xavier_uniform_(self.text_projection.weight)
            nn.init.zeros_(self.text_gate.weight)
            nn.init.zeros_(self.text_gate.bias)

    def text_nodes(self, encode: torch.Tensor | None = None) -> torch.Tensor:
        """(n_items, embedding_dim): the gated projections that stand for the items' texts.

        encode: (b,) items that a trained encoder encodes anew, with gradients to it; all others have the vector of the
        last time that they were encoded, without.
        """
        assert self.text is not None
        if encode is None or not self.text.trains:
            return self.projected_text(self.text.vectors)
        encoded = self.text.encode(encode)
        return self.projected_text(self.text.vectors).index_copy(0, encode, self.projected_text(encoded))

    def projected_text(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, text dim) -> (n, embedding_dim)."""
        return torch.sigmoid(self.text_gate(vectors)) * self.text_projection(vectors)

    def node_input(self, text: torch.Tensor | None = None) -> torch.Tensor:
        """(n_nodes, embedding_dim) before propagation; in training, ID parts of some describable nodes are dropped.

        text: what text_nodes gave; None: of the vectors as they are.
        """
        nodes = self.embedding * self.kept_ids(slice(self.first_row, None))
        if self.first_row:
            nodes = F.pad(nodes, (0, 0, self.first_row, 0))
        if self.text is None:
            return nodes
        text = self.text_nodes() if text is None else text
        before, after = self.n_users, len(nodes) - self.n_users - self.n_items
        return nodes + F.pad(text, (0, 0, before, after))

    def id_rows(self) -> SampledRows:
        """The whole ID table, its rows looked up by node."""
        rows = torch.arange(len(self.embedding), device=self.embedding.device)
        return SampledRows(self.embedding, rows, self.first_row)

    def kept_ids(self, nodes: torch.Tensor | slice) -> torch.Tensor:
        """(n, 1) bool: which of these nodes have their ID part; in training, some describable nodes lose it."""
        keep = self.known[nodes]
        if self.training and self.id_dropout > 0:
            dropped = torch.rand(keep.shape, device=keep.device) < self.id_dropout
            keep = keep & ~(dropped & self.describable[nodes])
        return keep

    def forward(self, tensors: GraphTensors, text: torch.Tensor | None = None) -> Layers[CutRows]:
        """The nodes before propagation and after each layer, of the last one users and items alone; text as above."""
        users, items = self.n_users, self.n_items
        layers = self.propagation(self.node_input(text), tensors.adjacency, users + items)
        return Layers(*([CutRows.of(values, users, items) for values in of] for of in (layers.nodes, layers.sums)))

    def user_readout(
        self, layers: Layers[Any], user: torch.Tensor, neighbourhoods: Sequence[Bags | WithoutTargets]
    ) -> torch.Tensor:
        """(b, d) users (b,) as if these, added up, were their neighbourhoods, over the layers of all other nodes."""
        gathered = [
            torch.stack([part.gather(nodes, sums) for part in neighbourhoods]).sum(0)
            for nodes, sums in zip(layers.nodes, layers.sums, strict=False)
        ]
        return self.propagation.read_out(of_users(user, layers.nodes[0]), gathered)

    def item_vectors(self, layers: Layers[CutRows]) -> torch.Tensor:
        """(n_items, d) unit vectors of the graph's own items."""
        return F.normalize(self.propagation.combined([nodes.items for nodes in layers.nodes]), dim=1)

    def relation_logits(self, nodes: torch.Tensor, head: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """(b, 2 * n_relations) logits of P(r | head, tail)."""
        h, t = nodes[head], nodes[tail]
        return self.relation_product(h * t) + self.relation_difference(h - t)

    def update_attention(self, tensors: GraphTensors) -> None:
        """Refreshes the edge weights of a graph from the current parameters; they have a gradient with ``relation``
        alone, which wants a refresh in every step."""
        if self.attention == "relation":
            tensors.set_relations(self.relation_logit)
        elif self.attention == "uniform":
            tensors.set_attention(None)
        else:
            tensors.set_attention(self._transr_logits(tensors))

    @torch.no_grad()
    def _transr_logits(self, tensors: GraphTensors) -> torch.Tensor:
        training = self.training
        self.eval()
        nodes = self.node_input()
        self.train(training)
        return self.transr.attention_logits(nodes, tensors.head, tensors.relation, tensors.tail)

    @torch.no_grad()
    def embeddings(self, tensors: GraphTensors) -> Embeddings:
        """Unit vectors of all nodes over a graph of the same nodes, which may hold other interactions."""
        if self.attention == "relation":
            self.update_attention(tensors)
        training = self.training
        self.eval()
        combined = self.propagation.inferred(self.node_input(), tensors.adjacency)
        vectors = combined.div_(combined.norm(dim=1, keepdim=True).clamp_(min=1e-12)).cpu().numpy()
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
        out[graph.n_users : graph.n_users + graph.n_items] |= text.tokens.lengths > 0
    return out
