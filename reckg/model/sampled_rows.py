"""Rows of some nodes, looked up by the nodes' own numbers, so that a part of the graph reads like the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ABSENT = 2**31 - 1  # the place of a node that is not there: looking it up is an error, not another node's row


@dataclass(frozen=True)
class SampledRows:
    """values (m, d); the row of node i stands at place[i - first], place (n,) int64."""

    values: torch.Tensor
    place: torch.Tensor
    first: int = 0

    def __getitem__(self, nodes: torch.Tensor) -> torch.Tensor:
        """(b, d) rows of nodes (b,). Raises IndexError where one of them is absent."""
        return self.values[self.place[nodes - self.first]]


def places(nodes: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """(n_nodes,) int64: where each node stands among nodes (m,), ABSENT if it does not."""
    out = torch.full((n_nodes,), ABSENT, device=nodes.device)
    out[nodes] = torch.arange(len(nodes), device=nodes.device)
    return out


def located(nodes: torch.Tensor, vectors: torch.Tensor | SampledRows) -> tuple[torch.Tensor, torch.Tensor]:
    """(where nodes (b,) stand, the rows among which they do): for kernels that take indices and a table."""
    if isinstance(vectors, SampledRows):
        return vectors.place[nodes - vectors.first], vectors.values
    return nodes, vectors
