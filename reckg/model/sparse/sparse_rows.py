"""A square sparse matrix by rows and its product with dense node vectors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

BAG_TYPES = (torch.float32, torch.bfloat16, torch.float16)  # torch has a parallel embedding bag on CPU for these


@dataclass(frozen=True)
class SparseRows:
    """A square sparse matrix by rows.

    Args:
        offset: (n_nodes + 1,) int32.
        col: (n_edges,) int32.
        weight: (n_edges,).
    """

    offset: torch.Tensor
    col: torch.Tensor
    weight: torch.Tensor

    def times(self, nodes: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        """Multiplies the matrix with node vectors, computed in the type of the weights.

        Args:
            nodes: (n_nodes, d).
            rows: number of first rows to compute; None: all.
        Returns:
            (n_nodes, d), or (rows, d), in the type of the nodes.
        """
        stored = nodes.to(self.weight.dtype)
        if nodes.device.type == "cpu" and stored.dtype in BAG_TYPES:
            offset, col, weight = self.offset, self.col, self.weight
            if rows is not None:
                offset = offset[: rows + 1]
                col, weight = col[: offset[-1]], weight[: offset[-1]]
            sums = F.embedding_bag(col, stored, offset, mode="sum", per_sample_weights=weight, include_last_offset=True)
        else:
            with torch.autocast(nodes.device.type, enabled=False):  # it would convert the matrix to another type
                sums = (self.csr @ stored)[:rows]
        return sums.to(nodes.dtype)

    @cached_property
    def csr(self) -> torch.Tensor:
        """The matrix as torch's CSR tensor."""
        n_nodes = len(self.offset) - 1
        with warnings.catch_warnings():  # torch calls its CSR format beta, once a process
            warnings.filterwarnings(
                "ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning
            )
            return torch.sparse_csr_tensor(
                self.offset, self.col, self.weight, (n_nodes, n_nodes), check_invariants=False
            )
