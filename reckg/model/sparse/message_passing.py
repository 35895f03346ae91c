"""The hot product: a sparse matrix with fixed weights times dense node vectors, forward and backward.

A node's weighted sum over its neighbours is torch's embedding bag. On CPU its kernel (FBGEMM) fetches rows ahead of
their use and adds them in the order of the edges, so the result depends neither on the run nor on the number of
threads. Elsewhere, and in float64, it is torch's CSR product. Both would spend most of a backward pass transposing, so
the transpose is kept. docs/performance.md has the gain.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from reckg.model.sparse.relation_gradient import Factors
from reckg.model.sparse.sparse_rows import SparseRows


class Adjacency:
    """A square sparse matrix of fixed pattern, kept with its transpose; the weights can be replaced.

    Args:
        row, col: (n_edges,) int64, ordered by row. Row = the node that receives, col = the node that sends.
        inverse_edge: (n_edges,) int64, the inverse of each edge. Given, the matrix is its own transpose, with half the
            memory, and ``set_weights`` needs the same weight on both.
        stored: the type in which node vectors and weights are read; sums are float32 inside. bfloat16 halves the bytes
            and costs precision. None: the type of the weights.
    Raises:
        ValueError: the edges are not ordered by row, there are 2**31 or more, or ``inverse_edge`` is wrong.
    """

    def __init__(
        self,
        row: torch.Tensor,
        col: torch.Tensor,
        n_nodes: int,
        *,
        inverse_edge: torch.Tensor | None = None,
        stored: torch.dtype | None = None,
    ) -> None:
        if len(row) >= 2**31:
            raise ValueError(f"a graph has at most 2**31 - 1 edges, got {len(row)}: leave relations out")
        if (row[1:] < row[:-1]).any():
            raise ValueError("edges must be ordered by row: sort them, and their weights alike")
        if inverse_edge is not None and not (
            torch.equal(row[inverse_edge], col) and torch.equal(col[inverse_edge], row)
        ):
            raise ValueError("inverse_edge must lead from every edge (row, col) to an edge (col, row)")
        self.n_nodes, self._inverse_edge, self._stored = n_nodes, inverse_edge, stored
        self._offset, self._col = _offsets(row, n_nodes), col.int()
        if inverse_edge is None:
            by_col = torch.argsort(col, stable=True)
            self._t_offset, self._t_col, self._by_col = _offsets(col, n_nodes), row[by_col].int(), by_col.int()
        self.set_weights(torch.ones(len(row), device=row.device))

    def set_weights(self, weights: torch.Tensor, factors: Factors | None = None) -> None:
        """Replaces the weights.

        Args:
            weights: (n_edges,) float32, in the order of the edges.
            factors: the parts that the weights are made from, for a matrix with inverse_edge. Propagation then has a
                gradient to them.
        Raises:
            ValueError: another number of weights; an edge and its inverse differ; factors of a matrix that is not its
                own transpose.
        """
        if factors is not None and self._inverse_edge is None:
            raise ValueError("factors are for a symmetric matrix alone: give inverse_edge, or leave them out")
        if weights.shape != self._col.shape:
            raise ValueError(
                f"weights must be {tuple(self._col.shape)}, one for every edge, got {tuple(weights.shape)}"
            )
        plain = weights.detach()
        if self._inverse_edge is not None and not torch.equal(plain[self._inverse_edge], plain):
            raise ValueError("an edge and its inverse must have the same weight: leave out inverse_edge if they differ")
        self.weights, self.factors = weights, factors
        stored = plain if self._stored is None else plain.to(self._stored)
        self.matrix = SparseRows(self._offset, self._col, stored)
        self.transpose = self.matrix
        if self._inverse_edge is None:
            self.transpose = SparseRows(self._t_offset, self._t_col, stored.index_select(0, self._by_col))


def _offsets(row: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """Counts where each row's edges begin: (n_nodes + 1,) int32."""
    counts = torch.bincount(row, minlength=n_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: torch.Tensor, adjacency: Adjacency, rows: int | None) -> torch.Tensor:
        ctx.transpose, ctx.missing = adjacency.transpose, 0 if rows is None else len(nodes) - rows
        return adjacency.matrix.times(nodes, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        of_rows = F.pad(gradients[0], (0, 0, 0, ctx.missing)) if ctx.missing else gradients[0]
        return ctx.transpose.times(of_rows.contiguous()), None, None


def propagate(nodes: torch.Tensor, adjacency: Adjacency, rows: int | None = None) -> torch.Tensor:
    """Computes every node's weighted sum over its neighbours.

    Weights get no gradient. The factors that they are made from, if any, do.

    Args:
        nodes: (n_nodes, d).
        adjacency: the weights.
        rows: number of first nodes to compute; None: all.
    Returns:
        (n_nodes, d) or (rows, d).
    """
    if adjacency.factors is not None:
        return adjacency.factors.propagate(nodes, adjacency.matrix, rows)
    out: torch.Tensor = _Propagate.apply(nodes, adjacency, rows)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out
