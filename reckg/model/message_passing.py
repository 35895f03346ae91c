"""The hot product: a sparse matrix with fixed weights times dense node vectors, forward and backward.

torch multiplies a CSR matrix quickly but transposes it anew in every backward pass; here the transpose is kept.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch


class Adjacency:
    """A square sparse matrix of fixed pattern, kept with its transpose; the weights can be replaced.

    row, col: (n_edges,) int64, ordered by row. Row = the node that receives, col = the node that sends.
    """

    def __init__(self, row: torch.Tensor, col: torch.Tensor, n_nodes: int) -> None:
        self.n_nodes = n_nodes
        self._crow, self._col = _compress(row, n_nodes), col.int()
        self._by_col = torch.argsort(col, stable=True)
        self._t_crow, self._t_col = _compress(col[self._by_col], n_nodes), row[self._by_col].int()
        self.set_weights(torch.ones(len(row), device=row.device))

    def set_weights(self, weights: torch.Tensor) -> None:
        """weights: (n_edges,) float32, in the order of the edges given."""
        self.weights = weights
        self.matrix = _csr(self._crow, self._col, weights, self.n_nodes)
        self.transpose = _csr(self._t_crow, self._t_col, weights[self._by_col], self.n_nodes)


def _compress(sorted_rows: torch.Tensor, n_nodes: int) -> torch.Tensor:
    counts = torch.bincount(sorted_rows, minlength=n_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


def _csr(crow: torch.Tensor, col: torch.Tensor, weights: torch.Tensor, n_nodes: int) -> torch.Tensor:
    with warnings.catch_warnings():  # torch calls its CSR format beta, once a process
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning)
        return torch.sparse_csr_tensor(crow, col, weights, (n_nodes, n_nodes), check_invariants=False)


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        ctx.transpose = adjacency.transpose
        return adjacency.matrix @ nodes

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.transpose @ gradients[0].contiguous(), None


def propagate(nodes: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
    """(n_nodes, d) -> (n_nodes, d): every node's weighted sum over its neighbours. Weights get no gradient."""
    return _Propagate.apply(nodes, adjacency)
