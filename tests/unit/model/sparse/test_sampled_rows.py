"""Rows of nodes by number: of a whole table, of a cut one, of a part of the graph."""

from __future__ import annotations

import pytest
import torch

from reckg.model.sparse.sampled_rows import CutRows, Rows, SampledRows, locate, of_users, places

USERS, ITEMS, NODES = 3, 4, 9


@pytest.mark.parametrize("kind", ["whole", "cut", "sampled"])
def test_every_table_gives_the_same_rows_and_gradients(kind: str) -> None:
    values = torch.randn(NODES, 2, requires_grad=True)
    table: Rows = values
    if kind == "cut":
        table = CutRows.of(values, USERS, ITEMS)
    elif kind == "sampled":
        order = torch.tensor([4, 0, 8, 2, 6, 3, 1])
        table = SampledRows(values[order], places(order, NODES))
    users, items, mixed = torch.tensor([2, 0, 2]), torch.tensor([6, 3, 3]), torch.tensor([8, 1])
    parts = [of_users(users, table), *(rows[at] for at, rows in [locate(items, table, True), locate(mixed, table)])]
    found = torch.cat([*parts, table[mixed]])
    every = torch.cat([users, items, mixed, mixed])
    torch.testing.assert_close(found, values[every])
    weights = torch.randn(len(every), 1)
    (gradient,) = torch.autograd.grad((found * weights).sum(), values)
    torch.testing.assert_close(gradient, torch.zeros(NODES, 1).index_add(0, every, weights).expand(NODES, 2))


def test_the_last_rows_may_be_missing() -> None:
    table = CutRows.of(torch.randn(USERS + ITEMS, 2), USERS, ITEMS)
    assert (len(table.users), len(table.items)) == (USERS, ITEMS)
