"""A user's neighbourhood without the interaction to be predicted, against a graph built without that interaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from reckg.graph.recency import recency_weights
from reckg.model.joint import histories as module
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Groups, Histories
from reckg.model.sparse.message_passing import propagate
from tests import toy
from tests.model_references import slow_attention
from tests.small_model import CPU, histories, toy_graph

# The toy world's triples, and two genres that users like: ann romance and space, dee classic.
LIKES = (
    np.concatenate([toy.TRIPLE_HEAD, [0, 0, 3]]),
    np.concatenate([toy.TRIPLE_RELATION, [1, 1, 1]]),
    np.concatenate([toy.TRIPLE_TAIL, [10, 11, 9]]),
)
TASTES: dict[str, Any] = {"relations": ("genres", "likes"), "triples": LIKES}
LONG = ((0, 3, 1, 2), (1, 2, 0), (1, 2), (0,))


def world(items: Sequence[Sequence[int]], half_life: float, logits: bool, **changed: Any) -> GraphTensors:
    """The graph of these histories, oldest first, with random attention logits where asked."""
    user = np.repeat(np.arange(len(items)), [len(row) for row in items])
    item = np.array([i for row in items for i in row], dtype=np.int64)
    graph = toy_graph(user_idx=user, item_idx=item, recency=recency_weights(user, half_life), **(TASTES | changed))
    tensors = GraphTensors(graph, CPU)
    if logits:
        tensors.set_attention(torch.randn(len(graph.head), generator=torch.Generator().manual_seed(3)))
    return tensors


def gather(told: Histories, rows: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """(b, d) what the rows' users get from vectors (n_nodes, d)."""
    sums = propagate(vectors, told.tensors.adjacency)
    return torch.stack([part.gather(vectors, sums) for part in told.neighbourhoods(rows)]).sum(0)


def found_weights(told: Histories, row: int) -> dict[int, float]:
    """Node -> weight of one example's neighbourhood, read from what gather does to the unit vectors."""
    return nonzero(gather(told, torch.tensor([row]), torch.eye(told.tensors.graph.n_nodes))[0])


def nonzero(weights: torch.Tensor) -> dict[int, float]:
    return {node: weight for node, weight in enumerate(weights.tolist()) if abs(weight) > 1e-6}


def expected_weights(
    tensors: GraphTensors,
    items: Sequence[Sequence[int]],
    row: int,
    ordered: bool,
    half_life: float,
    more: Sequence[int] = (),
) -> dict[int, float]:
    """The user's edges by loops: attention over what is left of them here, the other end's as in the training graph.

    Ordered: the history is cut before the target, and the graph built anew from it. Unordered: the edges of the target
    and of the user's rows in more are taken away, and what attention the others had sums to one again.
    """
    rows = [(user, item) for user, history in enumerate(items) for item in history]
    user, targets = rows[row][0], {rows[one] for one in (row, *more)}
    graph, kept = tensors.graph, [pair for n, pair in enumerate(rows) if pair[0] != user or n < row or not ordered]
    recency = recency_weights(np.array([u for u, _ in kept]), half_life)
    kept_recency = [w for pair, w in zip(kept, recency, strict=True) if pair not in targets]
    kept = [pair for pair in kept if pair not in targets]
    rebuilt = toy_graph(
        user_idx=np.array([u for u, _ in kept]),
        item_idx=np.array([i for _, i in kept]),
        recency=np.array(kept_recency),
        **TASTES,
    )
    place_of = {edge: n for n, edge in enumerate(zip(graph.head, graph.relation, graph.tail, strict=True))}
    own = [n for n in range(len(rebuilt.head)) if rebuilt.head[n] == user]
    same = [place_of[(rebuilt.head[n], rebuilt.relation[n], rebuilt.tail[n])] for n in own]
    if ordered:
        logits = [0.0] * len(own) if tensors.logits is None else tensors.logits[same].tolist()
        shares = slow_attention([user] * len(own), rebuilt.prior[own].tolist(), logits)
    else:
        shares = [share / sum(tensors.shares[same].tolist()) for share in tensors.shares[same].tolist()]
    back = tensors.shares[tensors.inverse_edge][same].tolist()
    out: dict[int, float] = {}
    for n, share, other in zip(own, shares, back, strict=True):
        tail = int(rebuilt.tail[n])
        out[tail] = out.get(tail, 0.0) + (share * other) ** 0.5
    return out


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(("ordered", "half_life"), [(False, 0.0), (True, 0.0), (True, 1.5)])
def test_every_neighbourhood_is_that_of_a_graph_without_the_target(
    ordered: bool, half_life: float, logits: bool
) -> None:
    tensors = world(LONG, half_life, logits)
    told = histories(tensors, LONG, ordered=ordered, half_life=half_life)
    for row in told.examples().tolist():
        assert found_weights(told, row) == pytest.approx(
            expected_weights(tensors, LONG, row, ordered, half_life), rel=1e-4
        )
    assert len(told.examples()) == (6 if ordered else 10)


@pytest.mark.parametrize("ordered", [False, True])
def test_many_examples_at_once_equal_one_at_a_time(ordered: bool) -> None:
    told = histories(world(LONG, 1.5, logits=True), LONG, ordered=ordered, half_life=1.5)
    vectors, rows = torch.randn(12, 4), told.examples().flip(0)
    alone = torch.cat([gather(told, row.unsqueeze(0), vectors) for row in rows])
    torch.testing.assert_close(gather(told, rows, vectors), alone)


def gather_groups(told: Histories, groups: Sequence[Sequence[int]], vectors: torch.Tensor) -> torch.Tensor:
    """(m, d) what the groups' users get from vectors (n_nodes, d)."""
    sizes = torch.tensor([len(group) for group in groups])
    of, first = torch.repeat_interleave(torch.arange(len(groups)), sizes), sizes.cumsum(0) - sizes
    rows = torch.tensor([row for group in groups for row in group])
    (part,) = told.neighbourhoods(rows, Groups(of, first, int(sizes.max())))
    return part.gather(vectors, propagate(vectors, told.tensors.adjacency))


@pytest.mark.parametrize("logits", [False, True])
def test_a_groups_neighbourhood_is_that_of_a_graph_without_all_of_it(logits: bool) -> None:
    tensors, groups = world(LONG, 0.0, logits), [[4, 6], [2, 0, 3], [8], [1]]
    found = gather_groups(histories(tensors, LONG), groups, torch.eye(tensors.graph.n_nodes))
    for weights, (row, *more) in zip(found, groups, strict=True):
        assert nonzero(weights) == pytest.approx(expected_weights(tensors, LONG, row, False, 0.0, more), rel=1e-4)


def test_an_item_that_is_twice_in_a_group_is_left_out_once() -> None:
    items = ((0, 0, 3, 1), (1, 2, 0), (1, 2), (0,))
    tensors, groups = world(items, 0.0, logits=False), [[2, 1, 0], [5]]
    found = gather_groups(histories(tensors, items), groups, torch.eye(tensors.graph.n_nodes))
    for weights, (row, *more) in zip(found, groups, strict=True):
        assert nonzero(weights) == pytest.approx(expected_weights(tensors, items, row, False, 0.0, more), rel=1e-4)


def test_a_user_of_whom_the_whole_history_is_predicted_at_once_has_an_empty_neighbourhood() -> None:
    told = histories(world(LONG, 0.0, False, relations=("genres",), triples=_genres()), LONG)
    found = gather_groups(told, [[0, 1, 2, 3], [7]], torch.randn(12, 4))
    assert found[0].tolist() == [0.0] * 4 and found[1].any()


def test_after_the_last_interaction_the_weights_are_the_graphs_own() -> None:
    """Bob's third interaction, predicted from his first two, sees what a graph with these two gives him."""
    tensors = world(LONG, 2.0, logits=False)
    told = histories(tensors, LONG, ordered=True, half_life=2.0)
    shorter = world((LONG[0], LONG[1][:2], *LONG[2:]), 2.0, logits=False)
    edges = torch.nonzero(shorter.head == 1).squeeze(1)
    # Dune and solaris have the same readers in both graphs, so their own side of the edge is the same.
    expected = dict(zip(shorter.tail[edges].tolist(), shorter.adjacency.weights[edges].tolist(), strict=True))
    assert found_weights(told, 4 + 2) == pytest.approx(expected, rel=1e-5)


def test_the_target_never_reaches_its_own_user() -> None:
    for ordered in (False, True):
        told = histories(world(LONG, 0.0, logits=False), LONG, ordered=ordered)
        for row in told.examples().tolist():
            assert toy.N_USERS + told.item[row].item() not in found_weights(told, row)


def test_an_item_that_was_taken_before_is_left_out_when_it_is_taken_again() -> None:
    items = ((0, 3, 0), (1, 2, 0), (1, 2), (0,))
    told = histories(world(items, 0.0, logits=False), items, ordered=True)
    assert set(found_weights(told, 2)) == {7, 10, 11}  # heidi, and the two genres that ann likes


@pytest.mark.parametrize(("ordered", "half_life"), [(False, 0.0), (True, 1.5)])
def test_an_item_taken_twice_weighs_as_in_the_graph(ordered: bool, half_life: float) -> None:
    items = ((0, 0, 3, 1), (1, 2, 0), (1, 2), (0,))
    tensors = world(items, half_life, logits=False)
    told = histories(tensors, items, ordered=ordered, half_life=half_life)
    expected = expected_weights(tensors, items, 3, ordered, half_life)
    assert found_weights(told, 3) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("logits", [False, True])
def test_a_user_with_nothing_but_the_target_has_an_empty_neighbourhood(logits: bool) -> None:
    items = ((0, 3), (1, 2, 0), (1, 2), (0,))
    told = histories(world(items, 0.0, logits, relations=("genres",), triples=_genres()), items)
    assert gather(told, torch.tensor([7, 0]), torch.randn(12, 4))[0].tolist() == pytest.approx([0.0] * 4, abs=1e-6)


@pytest.mark.parametrize("logits", [False, True])
def test_a_first_item_taken_again_has_an_empty_history_before_it(logits: bool) -> None:
    items = ((0, 0), (1, 2, 0), (1, 2), (0,))
    told = histories(world(items, 0.0, logits, relations=("genres",), triples=_genres()), items, ordered=True)
    assert gather(told, torch.tensor([1]), torch.randn(12, 4))[0].tolist() == [0.0] * 4


@pytest.mark.parametrize("ordered", [False, True])
def test_strong_attention_stays_finite(ordered: bool) -> None:
    tensors = world(LONG, 0.0, logits=False)
    tensors.set_attention(torch.full((len(tensors.head),), 200.0))
    strong = histories(tensors, LONG, ordered=ordered)
    plain = histories(world(LONG, 0.0, logits=False), LONG, ordered=ordered)
    for row in (1, 5, 8):
        assert found_weights(strong, row) == pytest.approx(found_weights(plain, row), rel=1e-5)


def test_only_the_latest_of_a_long_ordered_history_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATEST", 2)
    told = histories(world(LONG, 0.0, logits=False), LONG, ordered=True)
    assert set(found_weights(told, 3)) == {4 + 3, 4 + 1, 10, 11}  # ann's fourth, from her second and third


def _genres() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return toy.TRIPLE_HEAD, toy.TRIPLE_RELATION, toy.TRIPLE_TAIL
