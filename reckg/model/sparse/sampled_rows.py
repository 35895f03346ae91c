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


@dataclass(frozen=True)
class CutRows:
    """values (n, d) of users, items and others, in this order; those of the first two also apart.

    What reads a part has a gradient of that part, not one of zeros for all.
    """

    values: torch.Tensor
    users: torch.Tensor
    items: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, n_users: int, n_items: int) -> CutRows:
        users, items, _ = values.split([n_users, n_items, len(values) - n_users - n_items])
        return cls(values, users, items)

    def __getitem__(self, nodes: torch.Tensor) -> torch.Tensor:
        """(b, d) rows of nodes (b,)."""
        return self.values[nodes]


Rows = torch.Tensor | SampledRows | CutRows


def places(nodes: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """(n_nodes,) int64: where each node stands among nodes (m,), ABSENT if it does not."""
    out = torch.full((n_nodes,), ABSENT, device=nodes.device)
    out[nodes] = torch.arange(len(nodes), device=nodes.device)
    return out


def located(nodes: torch.Tensor, vectors: Rows, items: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """(where nodes (b,) stand, the rows among which they do): for kernels that take indices and a table.

    items: all of these nodes are items.
    """
    if isinstance(vectors, SampledRows):
        return vectors.place[nodes - vectors.first], vectors.values
    if isinstance(vectors, CutRows):
        return (nodes - len(vectors.users), vectors.items) if items else (nodes, vectors.values)
    return nodes, vectors


def of_users(users: torch.Tensor, vectors: Rows) -> torch.Tensor:
    """(b, d) rows of users (b,)."""
    return vectors.users.index_select(0, users) if isinstance(vectors, CutRows) else vectors[users]
