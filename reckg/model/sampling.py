"""Training batches: interactions in shuffled order, negative items, corrupted triples. All seeded by a generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from reckg.model.histories import Histories


@dataclass(frozen=True)
class TrainBatch:
    """Interactions of one step, (b,) int64 each: rows of the histories, their users and items."""

    row: torch.Tensor
    user: torch.Tensor
    item: torch.Tensor


def batches(histories: Histories, batch_size: int, generator: torch.Generator) -> Iterator[TrainBatch]:
    """One epoch: every example once, in random order, in batches of batch_size (the last may be smaller)."""
    rows = histories.examples()
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    for row in rows[order].split(batch_size):
        yield TrainBatch(row, histories.user[row], histories.item[row])


class SeenItems:
    """Which (user, item) pairs are training interactions, for negatives that never are one."""

    def __init__(self, user: torch.Tensor, item: torch.Tensor, n_users: int, n_items: int) -> None:
        self.n_items = n_items
        self._pairs = torch.unique(user * n_items + item)
        full = torch.bincount(self._pairs // n_items, minlength=n_users) >= n_items
        self._has_negatives = ~full

    def contains(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """(b,) bool."""
        pair = user * self.n_items + item
        where = torch.searchsorted(self._pairs, pair).clamp(max=len(self._pairs) - 1)
        return self._pairs[where] == pair

    def sample_negatives(self, user: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(b,) an item for each user that the user has not interacted with, uniform over those.

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
    """(n,) items drawn with replacement, and (n,) log of the expected count of each drawn item."""
    items = torch.multinomial(probability, n, replacement=True, generator=generator)
    return items, (probability[items] * n).log()


def corrupt_tails(tail: torch.Tensor, n_users: int, n_nodes: int, generator: torch.Generator) -> torch.Tensor:
    """(b,) random tails for a ranking loss: a user for a user, an item or entity for an item or entity."""
    as_user = torch.randint(n_users, tail.shape, generator=generator)
    as_other = torch.randint(n_users, n_nodes, tail.shape, generator=generator)
    return torch.where(tail < n_users, as_user, as_other)
