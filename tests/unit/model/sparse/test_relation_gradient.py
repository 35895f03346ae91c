"""Learned relation weights: their gradients against dense products and differences, in propagation and read-out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Histories
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.sparse.message_passing import Adjacency, propagate
from reckg.model.training.batches import TrainBatch, batches
from reckg.pipeline.stages.train import _relation_weights
from tests import toy
from tests.model_references import slow_attention, slow_propagate
from tests.small_model import CPU, histories, joint_model, objective, toy_graph

LIKES = {
    "relations": ("genres", "likes"),
    "triples": (
        np.concatenate([toy.TRIPLE_HEAD, [0, 0, 3]]),
        np.concatenate([toy.TRIPLE_RELATION, [1, 1, 1]]),
        np.concatenate([toy.TRIPLE_TAIL, [10, 11, 9]]),
    ),
}
N_RELATIONS = 6  # interact, genres and likes, and their inverses


def tensors_of(double: bool = False, **changed: Any) -> GraphTensors:
    tensors = GraphTensors(toy_graph(**(LIKES | changed)), CPU)
    if double:
        tensors.prior = tensors.prior.double()
    return tensors


def numbers(dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(N_RELATIONS, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return drawn.requires_grad_()


def dense_product(tensors: GraphTensors, relations: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """The formula with matrices and torch's own gradients."""
    n = tensors.graph.n_nodes

    def matrix(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(n, n, dtype=values.dtype).index_put((tensors.head, tensors.tail), values, accumulate=True)

    scores = tensors.prior * relations[tensors.relation].exp()
    shares = scores / matrix(scores).sum(1)[tensors.head]
    return matrix((shares * shares[tensors.inverse_edge]).sqrt()) @ nodes


def layers_of(tensors: GraphTensors, nodes: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
    tensors.set_relations(relations)
    once = propagate(nodes, tensors.adjacency)
    return once + 2 * propagate(once.tanh(), tensors.adjacency)


def test_propagation_and_its_gradients_equal_the_dense_formula() -> None:
    tensors, relations = tensors_of(double=True), numbers()
    nodes = torch.randn(tensors.graph.n_nodes, 3, dtype=torch.float64, requires_grad=True)
    found = layers_of(tensors, nodes, relations)
    once = dense_product(tensors, relations, nodes)
    expected = once + 2 * dense_product(tensors, relations, once.tanh())
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    ours = torch.autograd.grad(found, (nodes, relations), upstream)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (nodes, relations), upstream))
    assert ours[1].abs().min() > 1e-3


@pytest.mark.parametrize("rows", [9, 4, 0])
def test_the_first_rows_alone_have_the_same_gradients(rows: int) -> None:
    tensors, relations = tensors_of(double=True), numbers()
    nodes = torch.randn(tensors.graph.n_nodes, 3, dtype=torch.float64, requires_grad=True)
    tensors.set_relations(relations)
    found, expected = propagate(nodes, tensors.adjacency, rows), dense_product(tensors, relations, nodes)[:rows]
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    ours = torch.autograd.grad(found, (nodes, relations), upstream)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (nodes, relations), upstream))


def test_gradcheck_in_float64() -> None:
    tensors = tensors_of(double=True)
    nodes = torch.randn(tensors.graph.n_nodes, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, r: layers_of(tensors, x, r), (nodes, numbers()))


def test_float32_takes_the_fast_kernel_to_the_same_gradients() -> None:
    exact, fast = tensors_of(double=True), tensors_of()
    nodes = torch.randn(exact.graph.n_nodes, 4, generator=torch.Generator().manual_seed(1))
    grads = []
    for tensors, dtype in ((exact, torch.float64), (fast, torch.float32)):
        relations = numbers().detach().to(dtype).requires_grad_()
        grads.append(torch.autograd.grad(layers_of(tensors, nodes.to(dtype), relations).square().sum(), relations)[0])
    torch.testing.assert_close(grads[1], grads[0].float(), rtol=1e-4, atol=1e-5)


def test_shares_and_weights_are_those_of_attention_with_these_logits() -> None:
    tensors, relations = tensors_of(recency=np.linspace(0.2, 1, 8)), numbers(torch.float32)
    tensors.set_relations(relations)
    shares, weights = tensors.shares, tensors.adjacency.weights
    logits = relations[tensors.relation].tolist()
    slow = slow_attention(tensors.head.tolist(), tensors.prior.tolist(), logits)
    torch.testing.assert_close(shares, torch.tensor(slow))
    nodes = torch.randn(tensors.graph.n_nodes, 3)
    expected = slow_propagate(nodes.tolist(), tensors.head.tolist(), tensors.tail.tolist(), weights.tolist())
    torch.testing.assert_close(propagate(nodes, tensors.adjacency), torch.tensor(expected))
    tensors.set_attention(relations.detach()[tensors.relation])
    torch.testing.assert_close(tensors.shares, shares)
    torch.testing.assert_close(tensors.adjacency.weights, weights)
    assert tensors.adjacency.factors is None


def test_numbers_that_are_all_zero_or_all_alike_leave_the_priors() -> None:
    tensors = tensors_of()
    before = tensors.adjacency.weights
    for value in (0.0, 7.0, -300.0):
        tensors.set_relations(torch.full((N_RELATIONS,), value))
        torch.testing.assert_close(tensors.shares, tensors.prior)
        torch.testing.assert_close(tensors.adjacency.weights, before)


def test_with_interactions_alone_nothing_is_learned_and_the_weights_stay_uniform() -> None:
    none = tuple(np.array([], dtype=np.int64) for _ in range(3))
    tensors = tensors_of(double=True, relations=(), triples=none)
    before = tensors.adjacency.weights.double()
    relations = torch.tensor([2.0, -3.0], dtype=torch.float64, requires_grad=True)
    tensors.set_relations(relations)
    torch.testing.assert_close(tensors.adjacency.weights.float(), before.float())
    nodes = torch.randn(tensors.graph.n_nodes, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(layers_of(tensors, nodes, relations).square().sum(), relations)
    assert found.abs().max() < 1e-12


def test_numbers_far_apart_stay_finite_with_their_gradients() -> None:
    """One relation has all of the attention, and the others' shares underflow to zero."""
    tensors = tensors_of()
    relations = torch.tensor([0.0, 300.0, 0.0, 0.0, -300.0, 0.0], requires_grad=True)
    told = {ordered: _histories(tensors, ordered) for ordered in (False, True)}
    for ordered in told:
        model = joint_model(tensors.graph, attention="relation")
        with torch.no_grad():
            model.relation_logit.copy_(relations)
        model.update_attention(tensors)
        total, _ = objective(tensors, histories=told[ordered])(model, tensors, _batch(told[ordered]))
        total.backward()
        assert model.relation_logit.grad is not None and model.relation_logit.grad.isfinite().all()
        assert model.embedding.grad is not None and model.embedding.grad.isfinite().all()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_a_steps_gradient_is_the_slope_of_its_loss(ordered: bool, loss: str) -> None:
    tensors = tensors_of()
    told = _histories(tensors, ordered)
    model = joint_model(tensors.graph, attention="relation")
    start = numbers(torch.float32, seed=4).detach() / 2

    def loss_at(relations: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            model.relation_logit.copy_(relations)
        model.update_attention(tensors)
        made = objective(tensors, histories=told, loss=loss, generator=torch.Generator().manual_seed(7))
        return made(model, tensors, _batch(told))[0]

    loss_at(start).backward()
    assert model.relation_logit.grad is not None
    found, step = model.relation_logit.grad.clone(), 0.01
    slopes = []
    for axis in torch.eye(N_RELATIONS) * step:
        slopes.append((loss_at(start + axis).item() - loss_at(start - axis).item()) / (2 * step))
    torch.testing.assert_close(found, torch.tensor(slopes), atol=2e-4, rtol=1e-2)
    assert found.abs().max() > 2e-3


def test_training_tells_what_it_learned_of_each_relation() -> None:
    """Ann and dee, who like genres, have a fifth of their attention on these; at a factor of 4, half: .2 x 4 / 1.6."""
    tensors = tensors_of()
    model = joint_model(tensors.graph, attention="relation")
    with torch.no_grad():
        model.relation_logit[2] = np.log(4)
    model.update_attention(tensors)
    told = _relation_weights(model, tensors)["relation_weights"]
    assert list(told) == ["interact", "genres", "likes", "interact-1", "genres-1", "likes-1"]
    assert told["likes"] == pytest.approx({"factor": 4, "share": 0.5, "share_before": 0.2})
    assert told["interact"]["share_before"] == pytest.approx((0.8 + 1 + 1 + 0.8) / 4)
    assert told["genres"]["share"] == told["genres"]["share_before"]
    assert _relation_weights(joint_model(tensors.graph), tensors) == {}


def test_a_matrix_that_is_not_symmetric_has_no_factors() -> None:
    tensors = tensors_of()
    tensors.set_relations(numbers(torch.float32))
    plain = Adjacency(tensors.head, tensors.tail, tensors.graph.n_nodes)
    with pytest.raises(ValueError, match="for a symmetric matrix alone: give inverse_edge"):
        plain.set_weights(tensors.adjacency.weights.detach(), tensors.adjacency.factors)


def test_sampled_neighbourhoods_are_refused() -> None:
    tensors = tensors_of()
    model = joint_model(tensors.graph, attention="relation")
    sampler = NeighbourSampler(tensors, 2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="attention 'relation' trains on the whole graph alone"):
        sampler.forward(model, torch.tensor([4]), torch.tensor([0]), None)


def _histories(tensors: GraphTensors, ordered: bool) -> Histories:
    return histories(tensors, ordered=ordered, half_life=1.5 if ordered else 0.0)


def _batch(told: Histories) -> TrainBatch:
    return next(batches(told, 100, torch.Generator().manual_seed(0)))
