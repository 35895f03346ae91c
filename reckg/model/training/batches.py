"""Training batches: interactions in shuffled order, negative items, corrupted triples. A generator seeds all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from reckg.model.joint.histories import Groups, Histories, ranges

GROUPS = 5  # least number of groups of a history with at least five interactions


@dataclass(frozen=True)
class TrainBatch:
    """Interactions of a step, (b,) each: rows of the histories, their users, their items; their groups and weights.

    ``weight`` is None where all count alike.
    """

    row: torch.Tensor
    user: torch.Tensor
    item: torch.Tensor
    groups: Groups
    weight: torch.Tensor | None = None


def batches(
    histories: Histories, batch_size: int, generator: torch.Generator, targets: int = 1
) -> Iterator[TrainBatch]:
    """Yields the batches of an epoch: every example once, in random order.

    Args:
        histories: the training interactions by user.
        batch_size: interactions of a batch. The last batch may be smaller. Batches consist of whole groups, so their
            sizes differ from batch_size by less than one group.
        generator: draws the order and the groups.
        targets: an unordered history is dealt anew into random groups of at most this many interactions, and at most a
            fifth of the history. 1: every interaction is a group.
    """
    device, rows = histories.item.device, histories.examples().cpu()
    sizes = torch.ones_like(rows)
    if targets > 1 and not histories.ordered:
        rows, sizes = _deal(histories.indptr.cpu(), targets, generator)
    order = torch.randperm(len(sizes), generator=generator)
    begin = (sizes.cumsum(0) - sizes)[order]
    sizes = sizes[order]
    position, group, first = ranges(begin, begin + sizes)
    n_groups = torch.unique_consecutive((sizes.cumsum(0) - 1) // batch_size, return_counts=True)[1].tolist()
    n_rows, largest = [int(part.sum()) for part in sizes.split(n_groups)], int(sizes.max()) if len(sizes) else 1
    rows, group, first = (x.to(device) for x in (rows[position], group, first))
    done = groups_done = 0
    for row, of, start in zip(rows.split(n_rows), group.split(n_rows), first.split(n_groups), strict=True):
        groups = Groups(of - groups_done, start - done, largest)
        weight = None if histories.weight is None else histories.weight[row]
        yield TrainBatch(row, histories.user[row], histories.item[row], groups, weight)
        done, groups_done = done + len(row), groups_done + len(start)


def _deal(indptr: torch.Tensor, targets: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Deals every user's interactions at random into groups of nearly equal size.

    Args:
        indptr: (n_users + 1,) where each user's interactions begin.
        targets: most interactions of a group.
    Returns:
        (n,) rows of the interactions, group by group, and (g,) sizes of the groups.
    """
    n = indptr.diff()
    user = torch.repeat_interleave(torch.arange(len(n)), n)
    rows = torch.randperm(len(user), generator=generator)
    rows = rows[torch.argsort(user[rows], stable=True)]
    size = (n // GROUPS).clamp(1, targets)
    n_groups = (n + size - 1) // size
    own = (torch.arange(len(user)) - indptr[user]) * n_groups[user] // n[user]
    return rows, torch.bincount((n_groups.cumsum(0) - n_groups)[user] + own)


class SeenItems:
    """The training pairs (user, item), to sample negatives that are not among them.

    Args:
        user, item: (n,) int64, the training interactions.
    """

    def __init__(self, user: torch.Tensor, item: torch.Tensor, n_users: int, n_items: int) -> None:
        self.n_items = n_items
        self._pairs = torch.unique(user * n_items + item)
        full = torch.bincount(self._pairs // n_items, minlength=n_users) >= n_items
        self._has_negatives = ~full

    def contains(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Tells for (b,) users and (b,) items whether each pair is a training interaction: (b,) bool."""
        pair = user * self.n_items + item
        where = torch.searchsorted(self._pairs, pair).clamp(max=len(self._pairs) - 1)
        seen: torch.Tensor = self._pairs[where] == pair
        return seen

    def sample_negatives(self, user: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draws an item for each user, uniformly from the items without an interaction of the user.

        Args:
            user: (b,) int64.
        Returns:
            (b,) int64 items.
        Raises:
            ValueError: a user has interacted with every item.
        """
        if not bool(self._has_negatives[user].all()):
            raise ValueError("a user has interacted with every item: there is no negative to sample.")
        item = torch.randint(self.n_items, user.shape, generator=generator)
        again = torch.nonzero(self.contains(user, item)).squeeze(1)
        while len(again):
            item[again] = torch.randint(self.n_items, again.shape, generator=generator)
            again = again[self.contains(user[again], item[again])]
        return item


def sample_items(probability: torch.Tensor, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws items with replacement.

    Args:
        probability: (n_items,) the sampling distribution.
        n: number of draws.
    Returns:
        (n,) items, and (n,) the log of each drawn item's expected count.
    """
    items = torch.multinomial(probability, n, replacement=True, generator=generator)
    return items, (probability[items] * n).log()


def corrupt_tails(tail: torch.Tensor, n_users: int, n_nodes: int, generator: torch.Generator) -> torch.Tensor:
    """Draws random tails for a ranking loss: a user replaces a user, an item or entity replaces an item or entity.

    Args:
        tail: (b,) int64 nodes.
    Returns:
        (b,) int64 nodes.
    """
    as_user = torch.randint(n_users, tail.shape, generator=generator)
    as_other = torch.randint(n_users, n_nodes, tail.shape, generator=generator)
    return torch.where(tail < n_users, as_user, as_other)
