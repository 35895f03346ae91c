"""Training on sampled neighbourhoods: with every neighbour sampled it is training on the whole graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.sparse.sampled_rows import SampledRows, places
from reckg.model.training import batches as sampling
from reckg.model.training.batches import batches
from reckg.model.training.train import make_optimizer, set_learning_rate, train_step
from tests import toy
from tests.small_model import CPU, histories, joint_model, objective, schedule, text_encoder, toy_graph


def sampler(tensors: GraphTensors, fanout: int = 100, seed: int = 5) -> NeighbourSampler:
    return NeighbourSampler(tensors, fanout, torch.Generator().manual_seed(seed))


def two_ways(tensors: GraphTensors, **changed: Any) -> tuple[Any, Any]:
    """The same objective, same draws: over the whole graph, and over neighbourhoods that leave no neighbour out."""
    makers = [{}, {"sampler": sampler(tensors)}]
    whole, sampled = (
        objective(tensors, generator=torch.Generator().manual_seed(7), **changed, **more) for more in makers
    )
    return whole, sampled


@pytest.mark.parametrize(("ordered", "targets"), [(False, 1), (False, 3), (True, 1)])
@pytest.mark.parametrize("user_ids", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "sampled-softmax"},
        {"loss": "bpr", "kg_loss": "transr", "l2_weight": 0.1},
        {"loss": "sampled-softmax", "kg_loss": "relation", "l2_weight": 0.1},
    ],
)
def test_with_every_neighbour_loss_and_gradients_are_the_whole_graphs(
    settings: dict[str, Any], user_ids: bool, ordered: bool, targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "GROUPS", 1)
    graph = toy_graph(recency=np.linspace(0.3, 1, 8))
    tensors = GraphTensors(graph, CPU)
    tensors.set_attention(torch.randn(len(graph.head), generator=torch.Generator().manual_seed(2)))
    told = histories(tensors, ordered=ordered, half_life=2.0)
    whole, sampled = two_ways(tensors, histories=told, **settings)
    model = joint_model(graph, user_ids=user_ids, aggregator="bi-interaction", combine="concat")
    (batch,) = batches(told, 8, torch.Generator().manual_seed(1), targets)
    assert batch.groups.largest == targets

    total, parts = whole(model, tensors, batch)
    total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found, found_parts = sampled(model, tensors, batch)
    found.backward()

    torch.testing.assert_close(found, total)
    assert found_parts == pytest.approx(parts, rel=1e-4)
    rows = torch.zeros_like(model.embedding).index_add(0, sampled.sampler.row_ids, sampled.sampler.rows.grad)
    torch.testing.assert_close(rows, expected.pop("embedding"), rtol=1e-4, atol=1e-6)
    assert model.embedding.grad is None
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["frozen", "top-k"])
def test_with_text_too(encoder: Path, tmp_path: Path, policy: str) -> None:
    graph = toy_graph()
    tensors = GraphTensors(graph, CPU)
    model = joint_model(graph, text_encoder(encoder, tmp_path, policy))
    whole, sampled = two_ways(tensors, loss="sampled-softmax", text_weight=0.3)
    (batch,) = batches(whole.histories, 8, torch.Generator().manual_seed(1))
    results = []
    for made in (whole, sampled):
        model.zero_grad()
        total, _ = made(model, tensors, batch)
        total.backward()
        trained = {n: p.grad for n, p in model.named_parameters() if p.grad is not None and n != "embedding"}
        results.append((total, {name: gradient.clone() for name, gradient in trained.items()}))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)
    assert any(name.startswith("text_projection") for name in results[1][1])


def test_steps_equal_the_whole_graphs_where_every_row_is_read() -> None:
    """Five steps of clipped AdamW with weight decay: the rows' own optimiser is AdamW."""
    graph, models = toy_graph(), []
    tensors = GraphTensors(graph, CPU)
    for made in two_ways(tensors, loss="sampled-softmax", negatives=200, kg_loss="relation"):
        model = joint_model(graph)
        optimizer = make_optimizer(model, schedule(weight_decay=0.2), made.sampler)
        for step in range(5):
            set_learning_rate(optimizer, step, 3)
            for batch in batches(made.histories, 8, torch.Generator().manual_seed(step)):
                train_step(model, tensors, made, optimizer, batch, 0.3)
        models.append(model)
    for (name, first), (_, second) in zip(*(m.named_parameters() for m in models), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4, msg=name)


def test_rows_that_a_step_does_not_read_stand_still() -> None:
    graph = toy_graph(relations=(), triples=tuple(np.array([], dtype=np.int64) for _ in range(3)))
    tensors = GraphTensors(graph, CPU)
    made = objective(tensors, loss="bpr", sampler=sampler(tensors))
    model = joint_model(graph, layers=1)
    optimizer = make_optimizer(model, schedule(weight_decay=0.5), made.sampler)
    set_learning_rate(optimizer, 9, 1)
    before = model.embedding.detach().clone()
    batch = next(batches(made.histories, 1, torch.Generator().manual_seed(0)))
    train_step(model, tensors, made, optimizer, batch, 5.0)
    assert made.sampler is not None
    read = set(made.sampler.row_ids.tolist())
    moved = set(torch.nonzero((model.embedding != before).any(dim=1)).squeeze(1).tolist())
    assert moved == read and 0 < len(read) < 12


def test_a_small_fanout_samples_that_many_of_each_kind_and_keeps_their_sums() -> None:
    graph = toy_graph()
    tensors = GraphTensors(graph, CPU)
    emma = torch.tensor([4])  # three readers and two genres
    seen = set()
    for seed in range(20):
        part = sampler(tensors, fanout=1, seed=seed).sample(emma, emma, 1)
        (bags,) = part.hops
        for bag, kind in zip(bags, (True, False), strict=True):
            own = [e for e in range(len(graph.head)) if graph.head[e] == 4 and (graph.relation[e] % 2 == 0) == kind]
            assert len(bag.nodes) == 1
            assert bag.weights.sum().item() == pytest.approx(tensors.adjacency.weights[own].sum().item(), rel=1e-5)
        seen.add(tuple(part.nodes.tolist()))
    assert len(seen) == 6  # every reader with every genre


def test_samples_depend_on_the_generator_alone() -> None:
    rng = np.random.default_rng(0)
    graph = toy_graph(
        n_users=300,
        n_items=50,
        n_entities=0,
        relations=(),
        triples=tuple(np.array([], dtype=np.int64) for _ in range(3)),
        user_idx=rng.integers(0, 300, 4000),
        item_idx=rng.integers(0, 50, 4000),
    )
    tensors = GraphTensors(graph, CPU)
    drawn = []
    threads = torch.get_num_threads()
    for n in (1, 2, 2):
        torch.set_num_threads(n)
        part = sampler(tensors, fanout=3).sample(torch.arange(300, 350), torch.arange(3), 2)
        drawn.append([part.nodes, *(bag.nodes for bags in part.hops for bag in bags)])
        assert torch.get_num_threads() == n
    torch.set_num_threads(threads)
    for other in drawn[1:]:
        assert all(torch.equal(a, b) for a, b in zip(drawn[0], other, strict=True))
    other = sampler(tensors, fanout=3, seed=6).sample(torch.arange(300, 350), torch.arange(3), 2)
    assert not torch.equal(other.nodes, drawn[0][0])


def test_a_node_that_was_not_sampled_is_never_looked_up() -> None:
    rows = SampledRows(torch.eye(3), places(torch.tensor([7, 2, 4]), 9))
    assert torch.equal(rows[torch.tensor([2, 7])], torch.eye(3)[[1, 0]])
    with pytest.raises(IndexError):
        rows[torch.tensor([3])]


def test_softmax_over_all_items_is_refused() -> None:
    tensors = GraphTensors(toy_graph(), CPU)
    made = objective(tensors, loss="softmax", sampler=sampler(tensors))
    (batch,) = batches(made.histories, toy.N_ITEMS * 2, torch.Generator())
    with pytest.raises(ValueError, match="use sampled-softmax or bpr"):
        made(joint_model(toy_graph()), tensors, batch)
