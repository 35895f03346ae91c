"""Rows of some nodes, looked up by the nodes' own numbers, so that a part of the graph reads like the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ABSENT = 2**31 - 1  # the place of an absent node: looking it up is an error, not another node's row


@dataclass(frozen=True)
class SampledRows:
    """Rows of a part of the nodes.

    Args:
        values: (m, d).
        place: (n,) int64; the row of node i stands at place[i - first].
        first: the node at place 0.
    """

    values: torch.Tensor
    place: torch.Tensor
    first: int = 0

    def __getitem__(self, nodes: torch.Tensor) -> torch.Tensor:
        """Looks up the rows of nodes (b,): (b, d).

        Raises:
            IndexError: a node is absent.
        """
        return self.values[self.place[nodes - self.first]]


@dataclass(frozen=True)
class CutRows:
    """Rows of users, items and others, in this order, with users and items also apart.

    A reader of a part has a gradient of that part, not a gradient with zeros for all others.

    Args:
        values: (n, d).
        users, items: the first rows, and the next.
    """

    values: torch.Tensor
    users: torch.Tensor
    items: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, n_users: int, n_items: int) -> CutRows:
        """Cuts (n, d) values into users, items and others."""
        users, items, _ = values.split([n_users, n_items, len(values) - n_users - n_items])
        return cls(values, users, items)

    def __getitem__(self, nodes: torch.Tensor) -> torch.Tensor:
        """Looks up the rows of nodes (b,): (b, d)."""
        return self.values[nodes]


Rows = torch.Tensor | SampledRows | CutRows


def places(nodes: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """Finds each node's place among nodes (m,): (n_nodes,) int64, ABSENT for a node that is not there."""
    out = torch.full((n_nodes,), ABSENT, device=nodes.device)
    out[nodes] = torch.arange(len(nodes), device=nodes.device)
    return out


def locate(nodes: torch.Tensor, vectors: Rows, items: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds indices and a table for kernels that take both.

    Args:
        nodes: (b,).
        vectors: the rows to look up.
        items: all nodes are items.
    Returns:
        (b,) places, and the table of rows.
    """
    if isinstance(vectors, SampledRows):
        return vectors.place[nodes - vectors.first], vectors.values
    if isinstance(vectors, CutRows):
        return (nodes - len(vectors.users), vectors.items) if items else (nodes, vectors.values)
    return nodes, vectors


def of_users(users: torch.Tensor, vectors: Rows) -> torch.Tensor:
    """Looks up the rows of users (b,): (b, d)."""
    return vectors.users.index_select(0, users) if isinstance(vectors, CutRows) else vectors[users]
