"""One step: two of them by hand, what the schedule sets, and what is kept of a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reckg.pipeline.stages.train
from reckg.config.run_config import parse_config
from reckg.errors import ArtifactError
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.training.batches import batches
from reckg.model.training.train import (
    collect_trained_state,
    load_trained_state,
    make_optimizer,
    set_learning_rate,
    train_step,
)
from tests.small_model import CPU, joint_model, objective, schedule, text_encoder, toy_graph


def hand_written_loss(
    embedding: torch.Tensor, head: list[int], tail: list[int], shares: dict[tuple[int, int], float], batch: Any
) -> torch.Tensor:
    """Two layers of sums, their mean, each example's user without the target, softmax over the items; plus L2."""
    weights = torch.zeros(12, 12)
    for h, t in zip(head, tail, strict=True):
        weights[h, t] = (shares[h, t] * shares[t, h]) ** 0.5
    known = torch.ones(12, 1)
    known[8] = 0  # ulysses, whom nobody took
    layers = [embedding * known]
    for _ in range(2):
        layers.append(weights @ layers[-1])
    items = ((layers[0] + layers[1] + layers[2]) / 3)[4:9]
    items = items / items.norm(dim=1, keepdim=True).clamp(min=1e-12)
    total = torch.zeros(())
    for user, item in zip(batch.user.tolist(), batch.item.tolist(), strict=True):
        target = 4 + item
        vector, left = layers[0][user], 1 - shares[user, target]
        for layer in layers[:2]:
            around = torch.zeros(8)
            for node in range(12):
                if node != target and left > 1e-6:
                    around = around + weights[user, node] / left**0.5 * layer[node]
            vector = vector + around
        scores = items @ (vector / vector.norm()) / 0.2
        total = total + torch.logsumexp(scores, 0) - scores[item]
    squares = embedding[batch.user].square().sum(1).mean() / 2 + embedding[4 + batch.item].square().sum(1).mean() / 2
    return total / len(batch.user) + 0.1 * squares


def test_two_steps_equal_two_hand_written_steps() -> None:
    """Everything from the graph to AdamW written out: gradients clipped by norm, moments, decoupled decay, warm-up."""
    graph, clip, decay, peak = toy_graph(), 0.3, 0.05, 0.02
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, l2_weight=0.1)
    plan = schedule(learning_rate=peak, weight_decay=decay, warmup_steps=3, clip_norm=clip)
    value = model.embedding.detach().clone()
    others = {name: p.detach().clone() for name, p in model.named_parameters() if name != "embedding"}
    optimizer = make_optimizer(model, plan)
    drawn = list(batches(made.histories, 5, torch.Generator().manual_seed(1)))
    assert [len(batch.user) for batch in drawn] == [5, 3]
    reported = []
    for step, batch in enumerate(drawn):
        set_learning_rate(optimizer, step, plan.warmup_steps)
        reported.append(train_step(model, tensors, made, optimizer, batch, clip))

    head, tail = graph.head.tolist(), graph.tail.tolist()
    shares = dict(zip(zip(head, tail, strict=True), graph.prior.tolist(), strict=True))
    first, second = torch.zeros_like(value), torch.zeros_like(value)
    for step, batch in enumerate(drawn):
        leaf = value.clone().requires_grad_()
        loss = hand_written_loss(leaf, head, tail, shares, batch)
        (gradient,) = torch.autograd.grad(loss, leaf)
        norm = gradient.norm().item()
        assert norm > clip  # the clipping is seen
        gradient = gradient * (clip / (norm + 1e-6))
        rate = peak * (step + 1) / 3
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = second / (1 - 0.999 ** (step + 1))
        value = value * (1 - rate * decay)
        value = value - rate * (first / (1 - 0.9 ** (step + 1))) / (corrected.sqrt() + 1e-8)
        total = reported[step]["softmax"] + 0.1 * reported[step]["l2"]
        assert total == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(model.embedding.detach(), value, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(p, others[name]) for name, p in model.named_parameters() if name != "embedding")


def test_gradients_do_not_pile_up_over_steps() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    (batch,) = batches(made.histories, 8, torch.Generator())
    norms = []
    for _ in range(2):
        train_step(model, tensors, made, optimizer, batch, 100.0)
        assert model.embedding.grad is not None
        norms.append(model.embedding.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_the_learning_rate_warms_up_to_each_groups_peak(encoder: Path, tmp_path: Path) -> None:
    model = joint_model(toy_graph(), text_encoder(encoder, tmp_path, "top-k"))
    assert model.text is not None
    optimizer = make_optimizer(model, schedule(learning_rate=0.1, text_learning_rate=0.004, weight_decay=0.3))
    graph_group, text_group = optimizer.param_groups
    assert {id(p) for p in text_group["params"]} == {id(p) for p in model.text.list_trained_parameters().values()}
    both = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(both) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert all(group["weight_decay"] == 0.3 for group in optimizer.param_groups)
    rates = []
    for step in range(6):
        set_learning_rate(optimizer, step, 4)
        rates.append((graph_group["lr"], text_group["lr"]))
    expected = [(0.1 * share, 0.004 * share) for share in (0.25, 0.5, 0.75, 1, 1, 1)]
    np.testing.assert_allclose(rates, expected)
    set_learning_rate(optimizer, 0, 0)
    assert graph_group["lr"] == 0.1


def test_a_trained_state_of_another_model_is_refused() -> None:
    model = joint_model(toy_graph())
    for other in (joint_model(toy_graph(), aggregator="gcn"), joint_model(toy_graph(), embedding_dim=16)):
        with pytest.raises(ArtifactError, match="does not fit"):
            load_trained_state(model, collect_trained_state(other))
        with pytest.raises(ArtifactError, match="does not fit"):
            load_trained_state(other, collect_trained_state(model))


@pytest.mark.parametrize(("given", "policy", "most", "threads"), [
    (0, None, 10**6, 1), (0, None, 0, 5), (3, None, 10**6, 3), (0, "frozen", 10**6, 1), (0, "lora", 10**6, 5),
])  # fmt: skip
def test_a_small_graph_is_trained_by_one_thread_unless_told_otherwise(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int, policy: str, most: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(5)))
    monkeypatch.setattr(reckg.pipeline.stages.train, "SMALL_GRAPH", most)
    graph = toy_graph()
    model = joint_model(graph, text_encoder(encoder, tmp_path, policy) if policy else None)
    config = parse_config({"run": {"threads": given}}, "test")
    assert reckg.pipeline.stages.train._step_threads(config, model, graph) == threads
