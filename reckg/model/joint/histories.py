"""Users as their histories: what a user's neighbourhood was without the interaction that is to be predicted.

Predicting an interaction from a graph that holds it teaches a model to look it up. So in training a user's side of the
graph is rebuilt for every example: in ordered histories from the interactions before the target, the latest counting
most; in unordered ones from all but the target, or but a group of targets that are predicted together. At inference the
same weights on the whole history are the graph's own, and a user that the graph has never seen is nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from reckg.model.joint.graph_tensors import GraphTensors, geometric_mean
from reckg.model.sparse.sampled_rows import Rows, located, of_users

LATEST = 100  # interactions of an ordered history that count at most


@dataclass(frozen=True)
class Bags:
    """Weighted neighbours of b examples' users: example i has nodes[offsets[i]:offsets[i+1]], weights likewise."""

    nodes: torch.Tensor
    offsets: torch.Tensor  # (b,)
    weights: torch.Tensor

    def gather(self, vectors: Rows, sums: Rows, items: bool = False) -> torch.Tensor:
        """(b, d) each example's weighted sum of vectors (n_nodes, d); sums (the graph's own) are not needed.

        items: all nodes are items.
        """
        places, table = located(self.nodes, vectors, items)
        return F.embedding_bag(places, table, self.offsets, mode="sum", per_sample_weights=self.weights)


@dataclass(frozen=True)
class Groups:
    """b rows in m groups, each of one user, that are predicted together.

    of (b,): the group of each row, counted from 0 on; first (m,): where each begins; largest: rows of a group at most.
    """

    of: torch.Tensor
    first: torch.Tensor
    largest: int = 1

    @classmethod
    def alone(cls, n: int, device: torch.device) -> Groups:
        """n rows, each by itself."""
        every = torch.arange(n, device=device)
        return cls(every, every)


@dataclass(frozen=True)
class WithoutTargets:
    """m groups' users with the graph's own neighbourhood less the edges to the group's items, the others' attention
    rescaled."""

    user: torch.Tensor  # (m,)
    targets: Bags  # of each group, with the weights of the edges that are left out
    scale: torch.Tensor  # (m,)

    def gather(self, vectors: Rows, sums: Rows) -> torch.Tensor:
        """(m, d) from sums (n_nodes, d), the weighted sums of vectors (n_nodes, d) over whole neighbourhoods."""
        left_out = self.targets.gather(vectors, sums, items=True)
        return (of_users(self.user, sums) - left_out) * self.scale.unsqueeze(1)


class Histories:
    """Training interactions in user and time order, tied to the edges of the training graph.

    Args:
        indptr, item_idx: compressed rows, user u's items are item_idx[indptr[u]:indptr[u+1]], oldest first.
        ordered: whether the order within a history means something. half_life: as in reckg.graph.recency; 0: off.
        interaction_share: as the graph was built with.
    """

    def __init__(
        self,
        indptr: np.ndarray,
        item_idx: np.ndarray,
        tensors: GraphTensors,
        *,
        ordered: bool,
        half_life: float,
        interaction_share: float,
    ) -> None:
        graph, device = tensors.graph, tensors.head.device
        self.tensors, self.ordered, self.half_life = tensors, ordered, half_life
        self.share = interaction_share
        self.indptr = torch.from_numpy(indptr.copy()).to(device)
        self.item = torch.from_numpy(item_idx.copy()).to(device)
        self.user = torch.repeat_interleave(torch.arange(graph.n_users, device=device), self.indptr.diff())
        is_interaction = (tensors.relation == 0) & (tensors.head < graph.n_users)
        edge = torch.nonzero(is_interaction).squeeze(1)
        key = tensors.head[edge] * graph.n_nodes + tensors.tail[edge]  # increasing: edges are ordered so
        self.edge = edge[torch.searchsorted(key, self.user * graph.n_nodes + self.item + graph.n_users)]
        self.has_repeats = len(torch.unique(self.user * graph.n_items + self.item)) < len(self.item)
        self.other = torch.nonzero((tensors.relation != 0) & (tensors.head < graph.n_users)).squeeze(1)
        counts = torch.bincount(tensors.head[self.other], minlength=graph.n_users)
        self.other_indptr = F.pad(counts.cumsum(0), (1, 0))

    def examples(self) -> torch.Tensor:
        """Rows to predict: all, or in ordered histories those that something comes before."""
        rows = torch.arange(len(self.item), device=self.item.device)
        return rows[rows > self.indptr[self.user]] if self.ordered else rows

    def neighbourhoods(self, rows: torch.Tensor, groups: Groups | None = None) -> list[Bags] | list[WithoutTargets]:
        """The neighbourhoods, to be added up, of the m groups' users as they were without the rows (b,) of the group.

        None: every row is a group, as it is in any case in ordered histories.
        """
        return self._before(rows) if self.ordered else [self._without(rows, groups)]

    def _without(self, rows: torch.Tensor, groups: Groups | None) -> WithoutTargets:
        groups = groups or Groups.alone(len(rows), rows.device)
        edge = self.edge[rows]
        share, weight = self.tensors.shares[edge], self.tensors.adjacency.weights[edge]
        if self.has_repeats and groups.largest > 1:  # an edge can be left out only once
            once = self._joined(edge, groups.of, torch.ones_like(share)) > 0
            share, weight = share * once, weight * once
        left = 1 - _sums(share, groups.of, len(groups.first))
        scale = torch.where(left > 1e-6, left.clamp(min=1e-6).rsqrt(), 0.0)
        targets = Bags(self.tensors.tail[edge], groups.first, weight)
        return WithoutTargets(self.user[rows[groups.first]], targets, scale)

    def _before(self, rows: torch.Tensor) -> list[Bags]:
        user, n = self.user[rows], len(rows)
        position, example, offsets = ranges(torch.maximum(self.indptr[user], rows - LATEST), rows)
        other, other_example, other_offsets = ranges(self.other_indptr[user], self.other_indptr[user + 1])
        counts = (self.item[position] != self.item[rows][example]).float()
        if self.half_life > 0:
            counts = counts * 0.5 ** ((rows[example] - 1 - position) / self.half_life)
        if self.has_repeats:
            counts = self._joined(self.edge[position], example, counts)
        ones = torch.ones_like(other, dtype=counts.dtype)
        parts = [(self.edge[position], example, counts), (self.other[other], other_example, ones)]
        totals = [_sums(count, group, n) for _, group, count in parts]
        alphas = []
        for i, (_, group, count) in enumerate(parts):
            share = self.share if i == 0 else 1 - self.share
            share_of = torch.where(totals[1 - i] == 0, 1.0, share) / totals[i].clamp(min=1e-12)
            alpha = count * share_of[group]
            alphas.append(alpha)
        if self.tensors.logits is not None:
            highest = torch.full((n,), torch.finfo(torch.float32).min, device=rows.device)
            logits = [
                self.tensors.logits[edge].masked_fill(alpha == 0, -torch.inf)
                for alpha, (edge, _, _) in zip(alphas, parts, strict=True)
            ]
            for logit, (_, group, _) in zip(logits, parts, strict=True):
                highest = highest.scatter_reduce(0, group, logit.detach(), "amax")
            alphas = [
                alpha * (logit - highest[group]).exp()
                for alpha, logit, (_, group, _) in zip(alphas, logits, parts, strict=True)
            ]
            total = torch.stack([_sums(a, group, n) for a, (_, group, _) in zip(alphas, parts, strict=True)]).sum(0)
            alphas = [a / total[group].clamp(min=1e-12) for a, (_, group, _) in zip(alphas, parts, strict=True)]
        shares, inverse = self.tensors.shares, self.tensors.inverse_edge
        return [
            Bags(self.tensors.tail[edge], starts, geometric_mean(alpha, shares[inverse[edge]]))
            for alpha, (edge, _, _), starts in zip(alphas, parts, (offsets, other_offsets), strict=True)
        ]

    def _joined(self, edge: torch.Tensor, example: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """counts with an example's repeats of one edge added up where the first of them stands, as in the graph."""
        key = example * len(self.tensors.head) + edge
        unique, where = torch.unique(key, return_inverse=True)
        first = torch.full((len(unique),), len(key), device=key.device)
        first = first.scatter_reduce(0, where, torch.arange(len(key), device=key.device), "amin")
        return torch.zeros_like(counts).index_put((first,), _sums(counts, where, len(unique)))


def ranges(first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions first[i]:last[i] of all i in a row, the i of each position, and where each i starts."""
    length = last - first
    end = length.cumsum(0)
    example = torch.repeat_interleave(torch.arange(len(first), device=first.device), length)
    position = torch.arange(len(example), device=first.device) - (end - length - first)[example]
    return position, example, end - length


def _sums(values: torch.Tensor, group: torch.Tensor, n: int) -> torch.Tensor:
    return torch.zeros(n, device=values.device).index_add(0, group, values)
