"""Users as their histories: a user's neighbourhood without the interaction to predict.

Predicting an interaction from a graph that holds it teaches a model to look it up. So in training a user's side of the
graph is rebuilt for every example. In ordered histories it holds the interactions before the target, with the latest
counting most. In unordered ones it holds all but the target, or all but a group of targets that are predicted
together. At inference the same weights on the whole history are the graph's own, so that a user outside the graph is
treated like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from reckg.model.joint.graph_tensors import GraphTensors, geometric_mean
from reckg.model.sparse.sampled_rows import Rows, locate, of_users

LATEST = 100  # most interactions of an ordered history that count


@dataclass(frozen=True)
class Bags:
    """Weighted neighbours of b examples' users.

    Args:
        nodes: example i has nodes[offsets[i]:offsets[i+1]].
        offsets: (b,).
        weights: as many as nodes.
    """

    nodes: torch.Tensor
    offsets: torch.Tensor  # (b,)
    weights: torch.Tensor

    def gather(self, vectors: Rows, sums: Rows, items: bool = False) -> torch.Tensor:
        """Sums the neighbours' vectors by weight.

        Args:
            vectors: (n_nodes, d).
            sums: the graph's own sums, not needed here.
            items: all nodes are items.
        Returns:
            (b, d).
        """
        places, table = locate(self.nodes, vectors, items)
        return F.embedding_bag(places, table, self.offsets, mode="sum", per_sample_weights=self.weights)


@dataclass(frozen=True)
class Groups:
    """b rows in m groups. A group belongs to a user and is predicted together.

    Args:
        of: (b,) the group of each row, counted from 0.
        first: (m,) where each group begins.
        largest: most rows of a group.
    """

    of: torch.Tensor
    first: torch.Tensor
    largest: int = 1

    @classmethod
    def alone(cls, n: int, device: torch.device) -> Groups:
        """Makes n groups of a row each."""
        every = torch.arange(n, device=device)
        return cls(every, every)


@dataclass(frozen=True)
class WithoutTargets:
    """The groups' users with the graph's own neighbourhood less the edges to the group's items.

    The attention of the other edges is rescaled.

    Args:
        targets: each group's items, with the weights of the edges to leave out.
    """

    user: torch.Tensor  # (m,)
    targets: Bags
    scale: torch.Tensor  # (m,)

    def gather(self, vectors: Rows, sums: Rows) -> torch.Tensor:
        """Takes the targets out of whole neighbourhoods' sums.

        Args:
            vectors: (n_nodes, d).
            sums: (n_nodes, d), the weighted sums of vectors over whole neighbourhoods.
        Returns:
            (m, d).
        """
        left_out = self.targets.gather(vectors, sums, items=True)
        return (of_users(self.user, sums) - left_out) * self.scale.unsqueeze(1)


class Histories:
    """Training interactions in user and time order, tied to the edges of the training graph.

    Args:
        indptr, item_idx: compressed rows; user u's items are item_idx[indptr[u]:indptr[u+1]], oldest first.
        tensors: the training graph.
        ordered: the order within a history carries information.
        half_life: as in reckg.graph.recency; 0: off.
        interaction_share: as the graph was built with.
        weight: (n,) of the interactions, as the graph was built with. None: all 1.
        repeats: items may come again, so that a target's earlier interactions stay in an ordered history.
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
        weight: np.ndarray | None = None,
        repeats: bool = False,
    ) -> None:
        graph, device = tensors.graph, tensors.head.device
        self.tensors, self.ordered, self.half_life = tensors, ordered, half_life
        self.share, self.repeats = interaction_share, repeats
        equal = weight is None or bool((weight == 1).all())
        self.weight = None if equal or weight is None else torch.from_numpy(weight.copy()).float().to(device)
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
        """Lists the rows to predict: all, or in ordered histories all but each user's first."""
        rows = torch.arange(len(self.item), device=self.item.device)
        return rows[rows > self.indptr[self.user]] if self.ordered else rows

    def neighbourhoods(self, rows: torch.Tensor, groups: Groups | None = None) -> list[Bags] | list[WithoutTargets]:
        """Rebuilds the neighbourhoods of the groups' users without the rows of the group.

        Args:
            rows: (b,) rows of the histories.
            groups: None: every row is a group, as always in ordered histories.
        Returns:
            Neighbourhoods to be added up, m users each.
        """
        return self._before(rows) if self.ordered else [self._without(rows, groups)]

    def _without(self, rows: torch.Tensor, groups: Groups | None) -> WithoutTargets:
        """Takes a group's edges out of the graph's own neighbourhood."""
        groups = groups or Groups.alone(len(rows), rows.device)
        edge = self.edge[rows]
        share, weight = self.tensors.shares[edge], self.tensors.adjacency.weights[edge]
        if self.has_repeats and groups.largest > 1:  # an edge can be left out only once
            once = self._join_repeats(edge, groups.of, torch.ones_like(share)) > 0
            share, weight = share * once, weight * once
        left = 1 - _sums(share, groups.of, len(groups.first))
        scale = torch.where(left > 1e-6, left.clamp(min=1e-6).rsqrt(), 0.0)
        targets = Bags(self.tensors.tail[edge], groups.first, weight)
        return WithoutTargets(self.user[rows[groups.first]], targets, scale)

    def _before(self, rows: torch.Tensor) -> list[Bags]:
        """Weighs the interactions before each target, and the user's other edges."""
        user, n = self.user[rows], len(rows)
        position, example, offsets = ranges(torch.maximum(self.indptr[user], rows - LATEST), rows)
        other, other_example, other_offsets = ranges(self.other_indptr[user], self.other_indptr[user + 1])
        counts = torch.ones(len(position), device=rows.device)
        if not self.repeats:
            counts = (self.item[position] != self.item[rows][example]).float()
        if self.weight is not None:
            counts = counts * self.weight[position]
        if self.half_life > 0:
            counts = counts * 0.5 ** ((rows[example] - 1 - position) / self.half_life)
        if self.has_repeats:
            counts = self._join_repeats(self.edge[position], example, counts)
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

    def _join_repeats(self, edge: torch.Tensor, example: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Adds up an example's repeats of the same edge where the first stands, as the graph does."""
        key = example * len(self.tensors.head) + edge
        unique, where = torch.unique(key, return_inverse=True)
        first = torch.full((len(unique),), len(key), device=key.device)
        first = first.scatter_reduce(0, where, torch.arange(len(key), device=key.device), "amin")
        return torch.zeros_like(counts).index_put((first,), _sums(counts, where, len(unique)))


def ranges(first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Concatenates the positions first[i]:last[i] of all i.

    Args:
        first, last: (n,) int64.
    Returns:
        The positions, the i of each position, and (n,) where each i starts.
    """
    length = last - first
    end = length.cumsum(0)
    example = torch.repeat_interleave(torch.arange(len(first), device=first.device), length)
    position = torch.arange(len(example), device=first.device) - (end - length - first)[example]
    return position, example, end - length


def _sums(values: torch.Tensor, group: torch.Tensor, n: int) -> torch.Tensor:
    """Sums values by group: (n,)."""
    return torch.zeros(n, device=values.device).index_add(0, group, values)
