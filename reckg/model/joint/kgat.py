"""Propagation over the knowledge graph: L rounds of aggregation with fixed edge weights, outputs combined.

Sources: KGAT arXiv:1905.07854 (bi-interaction and gcn aggregators, equations 6 to 8), LightGCN arXiv:2002.02126 (sum).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from reckg.model.sparse.dropout import dropout
from reckg.model.sparse.message_passing import Adjacency, propagate

BLOCK_ROWS = 1 << 16  # nodes aggregated at once without gradients


class Aggregator(nn.Module):
    """Joins a node's own vector with its neighbourhood's.

    Args:
        kind: sum, gcn or bi-interaction.
        dim: columns of the vectors.
    """

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "sum":
            return
        if kind not in ("gcn", "bi-interaction"):
            raise ValueError(f"aggregator must be sum, gcn or bi-interaction, got {kind!r}")
        self.joined = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.joined.weight)
        if kind == "bi-interaction":
            self.product = nn.Linear(dim, dim)
            nn.init.xavier_uniform_(self.product.weight)

    def forward(self, node: torch.Tensor, neighbourhood: torch.Tensor) -> torch.Tensor:
        """Joins (n, d) nodes and (n, d) neighbourhoods to (n, d)."""
        if self.kind == "sum":
            return neighbourhood
        out = F.leaky_relu(self.joined(node + neighbourhood))
        if self.kind == "bi-interaction":
            out = out + F.leaky_relu(self.product(node * neighbourhood))
        return F.normalize(out, dim=1)


Table = TypeVar("Table")  # of node vectors: a tensor, or one of reckg.model.sparse.sampled_rows


@dataclass(frozen=True)
class Layers(Generic[Table]):
    """The nodes before and after each of L layers, and each layer's weighted sums.

    The last layer may hold only the first nodes.

    Args:
        nodes: L + 1 times (n_nodes, dim).
        sums: L times (n_nodes, dim).
    """

    nodes: list[Table]
    sums: list[Table]


class Propagation(nn.Module):
    """L layers over a graph. With ``concat`` the output has (layers + 1) * dim columns, else dim.

    Args:
        layers: L.
        dim: columns of the nodes' vectors.
        aggregator: kind of Aggregator.
        combine: mean, concat or last.
        dropout: share of numbers dropped after a layer.
    """

    def __init__(self, *, layers: int, dim: int, aggregator: str, combine: str, dropout: float) -> None:
        super().__init__()
        if combine not in ("mean", "concat", "last"):
            raise ValueError(f"combine must be mean, concat or last, got {combine!r}")
        self.combine, self.dropout = combine, dropout
        self.aggregators = nn.ModuleList(Aggregator(aggregator, dim) for _ in range(layers))

    def forward(self, nodes: torch.Tensor, adjacency: Adjacency, read: int | None = None) -> Layers[torch.Tensor]:
        """Propagates nodes over an adjacency.

        Args:
            nodes: (n_nodes, dim).
            read: number of the first nodes to compute in the last layer; None: all.
        """
        hops = [partial(propagate, adjacency=adjacency)] * (len(self.aggregators) - 1)
        return self.apply_hops(nodes, [*hops, partial(propagate, adjacency=adjacency, rows=read)])

    def apply_hops(
        self, nodes: torch.Tensor, hops: Sequence[Callable[[torch.Tensor], torch.Tensor]]
    ) -> Layers[torch.Tensor]:
        """Propagates nodes through a hop a layer.

        Args:
            nodes: (n, dim).
            hops: each maps (n, dim) nodes to the weighted sums of the first m <= n nodes, which are the next nodes.
        """
        layers = Layers[torch.Tensor]([nodes], [])
        for aggregator, hop in zip(self.aggregators, hops, strict=True):
            layers.sums.append(hop(nodes))
            own = nodes[: len(layers.sums[-1])]
            nodes = dropout(aggregator(own, layers.sums[-1]), self.dropout, self.training)
            layers.nodes.append(nodes)
        return layers

    @torch.no_grad()
    def infer(self, nodes: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        """Computes a vector a node, as ``combine_layers`` over ``forward`` without dropout, layer by layer.

        Beside its result it keeps two (n_nodes, dim) arrays. A layer is aggregated in blocks of rows.
        """
        outputs = [nodes.clone()]
        for aggregator in self.aggregators:
            sums = propagate(nodes, adjacency)
            for own, around in zip(nodes.split(BLOCK_ROWS), sums.split(BLOCK_ROWS), strict=True):
                around.copy_(aggregator(own, around))
            nodes = sums
            if self.combine == "mean":
                outputs[0].add_(nodes)
            elif self.combine == "concat":
                outputs.append(nodes)
        if self.combine == "mean":
            return outputs[0].div_(len(self.aggregators) + 1)
        return nodes if self.combine == "last" else torch.cat(outputs, dim=1)

    def combine_layers(self, nodes: list[torch.Tensor]) -> torch.Tensor:
        """Combines each node's vectors of all layers to a vector."""
        if self.combine == "last":
            return nodes[-1]
        return torch.cat(nodes, dim=1) if self.combine == "concat" else torch.stack(nodes).mean(0)

    def read_out(self, nodes: torch.Tensor, gathered: list[torch.Tensor]) -> torch.Tensor:
        """Computes nodes that are no part of the graph.

        Args:
            nodes: (b, dim) their inputs.
            gathered: per layer the sums of their neighbours, (b, dim).
        Returns:
            (b, d).
        """
        layers = [nodes]
        for aggregator, sums in zip(self.aggregators, gathered, strict=True):
            layers.append(aggregator(layers[-1], sums))
        return self.combine_layers(layers)
