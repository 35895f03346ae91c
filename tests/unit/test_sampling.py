"""Batches, negatives and corrupted tails: what is drawn, how often, and that a seed decides it."""

from __future__ import annotations

import pytest
import torch

from reckg.model.graph_tensors import GraphTensors
from reckg.model.histories import Histories
from reckg.model.sampling import SeenItems, batches, corrupt_tails, sample_items
from tests import toy
from tests.small_model import CPU, histories, toy_graph

USER, ITEM = torch.from_numpy(toy.USER_IDX), torch.from_numpy(toy.ITEM_IDX)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_histories(ordered: bool = False) -> Histories:
    return histories(GraphTensors(toy_graph(), CPU), ordered=ordered)


def pairs(seed: int, size: int = 3, ordered: bool = False) -> list[tuple[int, int]]:
    found = [(b.user.tolist(), b.item.tolist()) for b in batches(small_histories(ordered), size, seeded(seed))]
    return [pair for users, items in found for pair in zip(users, items, strict=True)]


def test_an_epoch_holds_every_interaction_once() -> None:
    assert sorted(pairs(0)) == sorted(zip(toy.USER_IDX.tolist(), toy.ITEM_IDX.tolist(), strict=True))
    assert [len(b.user) for b in batches(small_histories(), 3, seeded())] == [3, 3, 2]
    assert [len(b.user) for b in batches(small_histories(), 100, seeded())] == [8]


def test_in_ordered_histories_the_first_of_each_user_is_no_example() -> None:
    # ann: emma | heidi   bob: dune | solaris, emma   cyd: dune | solaris   dee: emma |
    assert sorted(pairs(0, ordered=True)) == [(0, 3), (1, 0), (1, 2), (2, 2)]


def test_a_batch_knows_its_rows() -> None:
    told = small_histories()
    for batch in batches(told, 3, seeded()):
        assert torch.equal(told.user[batch.row], batch.user) and torch.equal(told.item[batch.row], batch.item)


def test_the_generator_decides_the_order_and_moves_on() -> None:
    assert pairs(1) == pairs(1) != pairs(2)
    generator, told = seeded(), small_histories()
    first, second = ([b.row.tolist() for b in batches(told, 8, generator)] for _ in range(2))
    assert first != second


def test_contains_knows_exactly_the_interactions() -> None:
    seen = SeenItems(USER, ITEM, toy.N_USERS, toy.N_ITEMS)
    known = set(zip(toy.USER_IDX.tolist(), toy.ITEM_IDX.tolist(), strict=True))
    user, item = (x.flatten() for x in torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij"))
    expected = [pair in known for pair in zip(user.tolist(), item.tolist(), strict=True)]
    assert seen.contains(user, item).tolist() == expected


def test_negatives_are_never_interactions_and_uniform_over_the_rest() -> None:
    seen = SeenItems(USER, ITEM, toy.N_USERS, toy.N_ITEMS)
    bob = torch.full((6000,), 1)  # he took 0, 1 and 2: what is left are 3 and 4
    drawn = torch.bincount(seen.sample_negatives(bob, seeded()), minlength=5)
    assert drawn[:3].tolist() == [0, 0, 0]
    assert drawn[3].item() == pytest.approx(3000, abs=200)
    users = torch.arange(4).repeat(500)
    assert not seen.contains(users, seen.sample_negatives(users, seeded(1))).any()


def test_a_user_who_took_everything_has_no_negative() -> None:
    seen = SeenItems(torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 1, 2, 2, 0]), 2, 3)
    assert seen.sample_negatives(torch.tensor([1, 1]), seeded()).max() <= 2
    with pytest.raises(ValueError, match="every item"):
        seen.sample_negatives(torch.tensor([1, 0]), seeded())


def test_items_are_sampled_in_proportion_and_come_with_the_log_of_their_expected_count() -> None:
    probability = torch.tensor([0.5, 0.3, 0.2, 0.0])
    items, log_count = sample_items(probability, 5000, seeded())
    share = torch.bincount(items, minlength=4) / 5000
    torch.testing.assert_close(share, probability, atol=0.03, rtol=0)
    torch.testing.assert_close(log_count.exp(), 5000 * probability[items])


def test_corrupted_tails_are_of_the_tails_kind_and_cover_it() -> None:
    tail = torch.tensor([0, 3, 4, 8, 11]).repeat(400)
    found = corrupt_tails(tail, n_users=4, n_nodes=12, generator=seeded())
    assert set(found[tail < 4].tolist()) == {0, 1, 2, 3}
    assert set(found[tail >= 4].tolist()) == set(range(4, 12))


def test_corrupted_tails_stay_in_range_in_a_graph_of_many_millions_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest number below one that float32 knows, times the number of nodes, must not round up to it."""
    largest = 1 - 2**-24
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.full(tuple(size), largest))
    users, nodes = 30_000_001, 70_000_001
    found = corrupt_tails(torch.tensor([0, users]), n_users=users, n_nodes=nodes, generator=seeded())
    assert found[0] < users <= found[1] < nodes
