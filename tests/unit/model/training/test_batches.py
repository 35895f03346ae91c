"""Batches, negatives and corrupted tails: what is drawn, how often, and that a seed decides it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Histories
from reckg.model.training.batches import GROUPS, SeenItems, TrainBatch, batches, corrupt_tails, sample_items
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


LENGTHS = (0, 1, 4, 5, 9, 10, 11, 24, 25, 40, 61)


def long_histories(ordered: bool = False) -> Histories:
    """Users with so many interactions; user u's rows are the items u, u + 1, ..."""
    user = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    item = user + np.concatenate([np.arange(n) for n in LENGTHS])
    graph = toy_graph(n_users=len(LENGTHS), n_items=80, user_idx=user, item_idx=item, triples=_no_triples())
    rows = [item[user == u].tolist() for u in range(len(LENGTHS))]
    return histories(GraphTensors(graph, CPU), rows, ordered=ordered)


def _no_triples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    empty = np.array([], dtype=np.int64)
    return empty, empty, empty


def groups_of(batch: TrainBatch) -> list[list[int]]:
    """The rows of each of a batch's groups."""
    bounds = [*batch.groups.first.tolist(), len(batch.row)]
    return [batch.row[a:b].tolist() for a, b in itertools.pairwise(bounds)]


@pytest.mark.parametrize("targets", [2, 3, 8, 1000])
def test_a_history_is_dealt_into_groups_of_no_more_than_their_share(targets: int) -> None:
    told = long_histories()
    groups = [group for batch in batches(told, 7, seeded(), targets) for group in groups_of(batch)]
    assert sorted(row for group in groups for row in group) == list(range(sum(LENGTHS)))
    sizes: dict[int, list[int]] = {}
    for group in groups:
        (user,) = {told.user[row].item() for row in group}
        sizes.setdefault(int(user), []).append(len(group))
    for user, n in enumerate(LENGTHS):
        most = max(1, min(targets, n // GROUPS))
        assert sum(sizes.get(user, [])) == n and max(sizes.get(user, [0])) <= most
        assert len(sizes.get(user, [])) == -(-n // most)  # and as few of them as can be


def test_batches_are_of_whole_groups_and_about_as_large_as_asked() -> None:
    told = long_histories()
    found = list(batches(told, 20, seeded(), 8))
    assert len(found) == -(-sum(LENGTHS) // 20)
    for batch in found[:-1]:
        assert abs(len(batch.row) - 20) < 8
    for batch in found:
        of = [n for n, group in enumerate(groups_of(batch)) for _ in group]
        assert batch.groups.of.tolist() == of and batch.groups.largest == 8
        assert torch.equal(told.user[batch.row], batch.user) and torch.equal(told.item[batch.row], batch.item)
    assert len(list(batches(told, 1, seeded(), 8))) == len([g for batch in found for g in groups_of(batch)])


def test_every_epoch_deals_anew_as_the_generator_decides() -> None:
    told, generator = long_histories(), seeded()
    epochs = [[groups_of(batch) for batch in batches(told, 20, generator, 8)] for _ in range(2)]
    again = [groups_of(batch) for batch in batches(told, 20, seeded(), 8)]
    assert again == epochs[0]
    first, second = ({frozenset(group) for groups in epoch for group in groups if len(group) > 1} for epoch in epochs)
    assert len(first & second) < len(first) / 3


@pytest.mark.parametrize(("ordered", "targets"), [(True, 8), (True, 1), (False, 1)])
def test_each_row_is_a_group_in_ordered_histories_and_where_one_target_is_asked_for(
    ordered: bool, targets: int
) -> None:
    told = long_histories(ordered)
    rows = told.examples()
    order = torch.randperm(len(rows), generator=seeded(3))
    found = list(batches(told, 50, seeded(3), targets))
    assert [batch.row.tolist() for batch in found] == [row.tolist() for row in rows[order].split(50)]
    for batch in found:
        every = list(range(len(batch.row)))
        assert batch.groups.of.tolist() == batch.groups.first.tolist() == every and batch.groups.largest == 1


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
