"""TransR: entities projected into a space per relation, where tail = head + relation for true facts.

Source: Lin et al., AAAI 2015. The attention over these projections is KGAT's, arXiv:1905.07854, equations 4 and 5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reckg.model.sparse.dgl_compat import dgl


class TransR(nn.Module):
    """A vector (relation_dim) and a projection (embedding_dim, relation_dim) for each relation.

    Args:
        n_relations: number of relations, inverses included.
    """

    def __init__(self, n_relations: int, embedding_dim: int, relation_dim: int) -> None:
        super().__init__()
        self.relation = nn.Parameter(torch.empty(n_relations, relation_dim))
        self.projection = nn.Parameter(torch.empty(n_relations, embedding_dim, relation_dim))
        nn.init.xavier_uniform_(self.relation)
        for projection in self.projection:
            nn.init.xavier_uniform_(projection)

    def distance(
        self, nodes: torch.Tensor, head: torch.Tensor, relation: torch.Tensor, tail: torch.Tensor
    ) -> torch.Tensor:
        """Computes |W_r h + e_r - W_r t|^2. Lower is more plausible.

        Args:
            nodes: (n_nodes, embedding_dim).
            head, relation, tail: (b,) int64.
        Returns:
            (b,).
        """
        difference = nodes[head] - nodes[tail]  # (b, d): the projection is linear
        projected = torch.bmm(difference.unsqueeze(1), self.projection[relation]).squeeze(1)  # (b, relation_dim)
        return (projected + self.relation[relation]).square().sum(1)

    @torch.no_grad()
    def attention_logits(
        self, nodes: torch.Tensor, head: torch.Tensor, relation: torch.Tensor, tail: torch.Tensor, block: int = 1 << 18
    ) -> torch.Tensor:
        """Computes (W_r t) . tanh(W_r h + e_r) for every edge.

        Args:
            nodes: (n_nodes, embedding_dim).
            head, relation, tail: (n_edges,) int64.
            block: edges at once.
        Returns:
            (n_edges,).
        """
        logits = torch.empty(len(head), device=nodes.device)
        for r in range(len(self.relation)):
            edges = torch.nonzero(relation == r).squeeze(1)
            for chunk in edges.split(block):
                projected_head = nodes[head[chunk]] @ self.projection[r] + self.relation[r]
                projected_tail = nodes[tail[chunk]] @ self.projection[r]
                logits[chunk] = (projected_tail * projected_head.tanh()).sum(1)
        return logits


def attention(graph: Any, prior: torch.Tensor, logits: torch.Tensor | None) -> torch.Tensor:
    """Computes the softmax of logits over each head's edges, starting from the prior shares.

    DGL computes it on the CPU, because its wheels on PyPI have no CUDA kernels. It is done once a refresh.

    Args:
        graph: DGL's; edges run tail -> head, so that a node's in-edges are its neighbourhood.
        prior: (n_edges,) shares that sum to 1 by head.
        logits: (n_edges,), or None for the prior itself.
    Returns:
        (n_edges,) on the logits' device; sums to 1 by head.
    """
    if logits is None:
        return prior
    scores = (logits.cpu() + prior.cpu().log()).unsqueeze(1)
    shares: torch.Tensor = dgl.nn.functional.edge_softmax(graph, scores).squeeze(1).to(logits.device)
    return shares
