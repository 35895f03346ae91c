"""Propagation whose edge weights train, a number per relation: exact gradients without a product for every edge.

The weight of an edge (h, t) of kind k is a constant x exp(factor[k] + scale[h] + scale[t]). With out = W nodes, where
W is symmetric, and g the gradient of out:

- the gradient of nodes is W g;
- the gradient of scale[n] is g[n] . out[n] + nodes[n] . (W g)[n];
- the gradient of factor[k] is the sum of g * (W_k nodes), where W_k has only the edges of kind k. Over all kinds these
  add up to the sum of g * out, so that the kind with the most edges is the remainder and needs no product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from reckg.model.sparse.sparse_rows import SparseRows


class EdgeKinds:
    """A symmetric matrix's edges by kind. An edge and its inverse are the same kind.

    Args:
        row, col, kind: (n_edges,) int64, ordered by row.
        n_kinds: number of kinds.
    """

    def __init__(self, row: torch.Tensor, col: torch.Tensor, kind: torch.Tensor, n_kinds: int) -> None:
        self.n_kinds, self.most = n_kinds, int(torch.bincount(kind, minlength=n_kinds).argmax())
        self._of = {}
        for k in range(n_kinds):
            edge = torch.nonzero(kind == k).squeeze(1)
            if k != self.most and len(edge):
                rows, counts = torch.unique_consecutive(row[edge], return_counts=True)
                self._of[k] = edge, col[edge], counts.cumsum(0) - counts, rows

    def gradient(self, g: torch.Tensor, nodes: torch.Tensor, out: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Computes the gradient of the factors.

        Args:
            g, nodes: (n_nodes, d).
            out: (n_nodes, d), or its first rows.
            weight: (n_edges,).
        Returns:
            (n_kinds,).
        """
        found = g.new_zeros(self.n_kinds)
        for k, (edge, col, start, rows) in self._of.items():
            sums = F.embedding_bag(col, nodes, start, mode="sum", per_sample_weights=weight[edge])
            found[k] = sums.flatten() @ g[rows].flatten()
        found[self.most] = g[: len(out)].flatten() @ out.flatten() - found.sum()
        return found


@dataclass(frozen=True)
class Factors:
    """The parts that an adjacency's weights are made from, which get their gradient.

    Args:
        kinds: the edges by kind.
        scale: (n_nodes,).
        factor: (n_kinds,).
    """

    kinds: EdgeKinds
    scale: torch.Tensor
    factor: torch.Tensor

    def propagate(self, nodes: torch.Tensor, matrix: SparseRows, rows: int | None = None) -> torch.Tensor:
        """Propagates nodes with a gradient to the factors.

        Args:
            nodes: (n_nodes, d).
            matrix: the symmetric matrix that these factors make.
            rows: number of first rows to compute; None: all.
        Returns:
            (n_nodes, d), or (rows, d).
        """
        out: torch.Tensor = _Propagate.apply(nodes, self.scale, self.factor, matrix, self.kinds, rows)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return out


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        nodes: torch.Tensor,
        scale: torch.Tensor,
        factor: torch.Tensor,
        matrix: SparseRows,
        kinds: EdgeKinds,
        rows: int | None,
    ) -> torch.Tensor:
        out = matrix.times(nodes, rows)
        ctx.matrix, ctx.kinds, ctx.missing = matrix, kinds, len(nodes) - len(out)
        ctx.save_for_backward(nodes, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        nodes, out = ctx.saved_tensors
        g = F.pad(gradients[0], (0, 0, 0, ctx.missing)).contiguous()
        to_nodes = ctx.matrix.times(g)
        to_scale = to_factor = None
        if ctx.needs_input_grad[1]:
            to_scale = (nodes * to_nodes).sum(1)
            to_scale[: len(out)] += (gradients[0] * out).sum(1)
            to_factor = ctx.kinds.gradient(g, nodes, out, ctx.matrix.weight)
        return to_nodes, to_scale, to_factor, None, None, None
