"""Propagation whose edge weights train, a number a relation: exact gradients without a product for every edge.

The weight of an edge (h, t) of kind k is a constant x exp(factor[k] + scale[h] + scale[t]). With out = W nodes, where
W is symmetric, and g the gradient of out:

- the gradient of nodes is W g;
- that of scale[n] is g[n] . out[n] + nodes[n] . (W g)[n];
- that of factor[k] is the sum of g * (W_k nodes), W_k being the edges of kind k alone. Over all kinds these add up to
  the sum of g * out, so that the kind with the most edges is what the others leave of it and needs no product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from reckg.model.sparse.sparse_rows import SparseRows


class EdgeKinds:
    """A symmetric matrix's edges by kind. row, col, kind: (n_edges,) int64, ordered by row; an edge and its inverse are
    of one kind."""

    def __init__(self, row: torch.Tensor, col: torch.Tensor, kind: torch.Tensor, n_kinds: int) -> None:
        self.n_kinds, self.most = n_kinds, int(torch.bincount(kind, minlength=n_kinds).argmax())
        self._of = {}
        for k in range(n_kinds):
            edge = torch.nonzero(kind == k).squeeze(1)
            if k != self.most and len(edge):
                rows, counts = torch.unique_consecutive(row[edge], return_counts=True)
                self._of[k] = edge, col[edge], counts.cumsum(0) - counts, rows

    def gradient(self, g: torch.Tensor, nodes: torch.Tensor, out: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(n_kinds,) of the factors; g, nodes: (n_nodes, d); out: the same or its first rows; weight: (n_edges,)."""
        found = g.new_zeros(self.n_kinds)
        for k, (edge, col, start, rows) in self._of.items():
            sums = F.embedding_bag(col, nodes, start, mode="sum", per_sample_weights=weight[edge])
            found[k] = sums.flatten() @ g[rows].flatten()
        found[self.most] = g[: len(out)].flatten() @ out.flatten() - found.sum()
        return found


@dataclass(frozen=True)
class Factors:
    """What the weights of an adjacency are made of, which gets their gradient: scale (n_nodes,), factor (n_kinds,)."""

    kinds: EdgeKinds
    scale: torch.Tensor
    factor: torch.Tensor

    def propagate(self, nodes: torch.Tensor, matrix: SparseRows, rows: int | None = None) -> torch.Tensor:
        """(n_nodes, d) -> (n_nodes, d), or the first rows of it; matrix: the symmetric one that these factors make."""
        return _Propagate.apply(nodes, self.scale, self.factor, matrix, self.kinds, rows)


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
