"""KGAT trained as its published implementations train it: the rival of training_speed.

Two sets of settings, both of published code: RecBole 1.2.1's defaults (recbole/properties/model/KGAT.yaml) and the
authors' (arXiv:1905.07854, github.com/xiangwang1223/knowledge_graph_attention_network), which cost more: three layers,
smaller batches, interactions among the triples. The operations of a step are those of RecBole's code, with two
exceptions that spare time: propagation and attention are DGL's kernels, and negatives come from reckg's sampler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.sparse.dgl_compat import dgl
from reckg.model.training.batches import SeenItems

DIM = 64
REG_WEIGHT = 1e-5
MESSAGE_DROPOUT = 0.1


@dataclass(frozen=True)
class Settings:
    """layers: output widths of the bi-interaction layers. interactions_are_triples: they are in the second pass too."""

    layers: tuple[int, ...]
    batch_size: int
    triple_batch_size: int
    interactions_are_triples: bool
    learning_rate: float = 2e-3


RECBOLE = Settings((64,), 2048, 2048, interactions_are_triples=False)
AUTHORS = Settings((64, 32, 16), 1024, 2048, interactions_are_triples=True)


class Kgat(nn.Module):
    """The model over one graph with its inverse relations; layers as in Settings."""

    def __init__(self, graph: KnowledgeGraph, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.n_users, self.n_items = graph.n_users, graph.n_items
        self.head, self.relation, self.tail = (torch.from_numpy(x) for x in (graph.head, graph.relation, graph.tail))
        self.by_relation = [torch.nonzero(self.relation == r).squeeze(1) for r in range(2 * graph.n_relations)]
        self.graph = dgl.graph((self.tail, self.head), num_nodes=graph.n_nodes)  # messages run tail -> head
        self.graph.create_formats_()
        widths = [DIM, *layers]
        self.nodes = nn.Embedding(graph.n_nodes, DIM)
        self.relations = nn.Embedding(2 * graph.n_relations, DIM)
        self.projections = nn.Embedding(2 * graph.n_relations, DIM * DIM)
        self.joined = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], layers, strict=True))
        self.product = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], layers, strict=True))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
            else:
                nn.init.zeros_(parameter)
        self.refresh_attention()

    @torch.no_grad()
    def refresh_attention(self) -> None:
        """TransR scores of all edges, softmax over each head's edges (equations 4 and 5): (n_edges, 1)."""
        scores = torch.empty(len(self.head), 1)
        for r, edges in enumerate(self.by_relation):
            projection = self.projections.weight[r].view(DIM, DIM)
            head = self.nodes(self.head[edges]) @ projection + self.relations.weight[r]
            scores[edges, 0] = (self.nodes(self.tail[edges]) @ projection * head.tanh()).sum(1)
        self.attention = dgl.nn.functional.edge_softmax(self.graph, scores)

    def forward(self) -> torch.Tensor:
        """(n_nodes, DIM + widths of the layers): the nodes and every layer's normalised output (equations 3 and 8)."""
        nodes = self.nodes.weight
        outputs = [nodes]
        for joined, product in zip(self.joined, self.product, strict=True):
            sums = dgl.ops.u_mul_e_sum(self.graph, nodes, self.attention)
            nodes = F.leaky_relu(joined(nodes + sums)) + F.leaky_relu(product(nodes * sums))
            nodes = F.dropout(nodes, MESSAGE_DROPOUT, self.training)
            outputs.append(F.normalize(nodes, dim=1))
        return torch.cat(outputs, dim=1)

    def recommendation_loss(self, user: torch.Tensor, item: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """BPR over (b,) users, items and negative items, after propagation over the whole graph."""
        nodes = self()
        u, i, j = (F.embedding(index, nodes) for index in (user, item + self.n_users, negative + self.n_users))
        return F.softplus((u * j).sum(1) - (u * i).sum(1)).mean() + REG_WEIGHT * regularisation(u, i, j)

    def knowledge_loss(
        self, head: torch.Tensor, relation: torch.Tensor, tail: torch.Tensor, negative: torch.Tensor
    ) -> torch.Tensor:
        """TransR's ranking of (b,) triples over the same with other tails (equation 2)."""
        projection = self.projections(relation).view(-1, DIM, DIM)
        h, t, n = (torch.bmm(self.nodes(x).unsqueeze(1), projection).squeeze(1) for x in (head, tail, negative))
        r = self.relations(relation)
        loss = F.softplus((h + r - t).square().sum(1) - (h + r - n).square().sum(1)).mean()
        return loss + REG_WEIGHT * regularisation(h, r, t, n)

    @torch.no_grad()
    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Users and items; a score is their inner product."""
        self.eval()
        nodes = self().numpy()
        self.train()
        return nodes[: self.n_users], nodes[self.n_users : self.n_users + self.n_items]


def regularisation(*vectors: torch.Tensor) -> torch.Tensor:
    """RecBole's EmbLoss: the sum of the matrices' norms over their number of rows."""
    return torch.stack([v.norm() for v in vectors]).sum() / len(vectors[0])


class KgatLoop:
    """Epochs of a pass over the interactions, a pass over the triples, and a refresh of the attention; Adam.

    user_idx, item_idx: (n,) the training interactions. torch's global random state is left as it was.
    """

    def __init__(
        self, graph: KnowledgeGraph, user_idx: np.ndarray, item_idx: np.ndarray, settings: Settings, seed: int
    ) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Kgat(graph, settings.layers)
            self.random = torch.get_rng_state()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate)
        self.user, self.item = torch.from_numpy(user_idx.copy()), torch.from_numpy(item_idx.copy())
        self.seen = SeenItems(self.user, self.item, graph.n_users, graph.n_items)
        chosen = torch.from_numpy((graph.relation % graph.n_relations != 0) | settings.interactions_are_triples)
        self.triples = self.model.head[chosen], self.model.relation[chosen], self.model.tail[chosen]
        self.known = SeenItems(self.triples[0], self.triples[2], graph.n_nodes, graph.n_nodes)

    def epoch(self) -> dict[str, float]:
        """Trains for one epoch: seconds of the three parts, and the mean losses of the two passes."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            times = [time.perf_counter()]
            bpr = self._pass(self.interaction_batches(), self.model.recommendation_loss)
            times.append(time.perf_counter())
            transr = self._pass(self.triple_batches(), self.model.knowledge_loss)
            times.append(time.perf_counter())
            self.model.refresh_attention()
            times.append(time.perf_counter())
            self.random = torch.get_rng_state()
        interactions, triples, attention = np.diff(times).tolist()
        return {"interactions": interactions, "triples": triples, "attention": attention, "bpr": bpr, "transr": transr}

    def _pass(self, batches: Iterator[tuple[torch.Tensor, ...]], loss_of: Callable[..., torch.Tensor]) -> float:
        losses = []
        for batch in batches:
            self.optimizer.zero_grad()
            loss = loss_of(*batch)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def interaction_batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """(user, item, negative item) of every interaction, once, in random order."""
        for rows in torch.randperm(len(self.user), generator=self.generator).split(self.settings.batch_size):
            user = self.user[rows]
            yield user, self.item[rows], self.seen.sample_negatives(user, self.generator)

    def triple_batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """(head, relation, tail, negative tail) of every triple, once, in random order."""
        order = torch.randperm(len(self.triples[0]), generator=self.generator)
        for rows in order.split(self.settings.triple_batch_size):
            head, relation, tail = (part[rows] for part in self.triples)
            yield head, relation, tail, self.known.sample_negatives(head, self.generator)
