"""Dropout from a few bits: how much is dropped, where, and what is left."""

from __future__ import annotations

import pytest
import torch

from reckg.model.sparse.dropout import dropout


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_the_share_is_dropped_in_every_column_and_the_rest_keeps_the_mean(share: float) -> None:
    out = dropout(torch.full((40_000, 7), 3.0), share, training=True)
    assert (out == 0).float().mean(0).tolist() == pytest.approx([share] * 7, abs=0.01)
    left = out[out != 0]
    assert left.unique().tolist() == pytest.approx([3 / (1 - share)], rel=1e-3)


def test_numbers_that_share_a_draw_are_dropped_independently() -> None:
    dropped = (dropout(torch.ones(100_000, 4), 0.3, training=True) == 0).double()
    together = dropped.T @ dropped / len(dropped)
    expected = torch.full((4, 4), 0.09, dtype=torch.float64).fill_diagonal_(0.3)
    torch.testing.assert_close(together, expected, atol=0.006, rtol=0)


def test_the_seed_decides_what_is_dropped() -> None:
    nodes, found = torch.ones(33, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(dropout(nodes, 0.5, training=True))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_gradient_is_that_of_what_was_kept() -> None:
    nodes = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    out = dropout(nodes, 0.4, training=True)
    (gradient,) = torch.autograd.grad(out.sum(), nodes)
    torch.testing.assert_close(gradient * nodes, out)
    assert gradient.unique().tolist() == pytest.approx([0, 1 / 0.6], rel=1e-3)


def test_without_training_or_share_nothing_changes() -> None:
    nodes = torch.randn(5, 3)
    assert dropout(nodes, 0.5, training=False) is nodes and dropout(nodes, 0.0, training=True) is nodes
