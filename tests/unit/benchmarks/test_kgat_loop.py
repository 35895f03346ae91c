"""The rival of the training benchmark is KGAT: attention, propagation and losses are its formulas, and it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import Linear

from reckg.graph.knowledge_graph import KnowledgeGraph
from tests import toy
from tests.benchmarks.kgat_loop import AUTHORS, DIM, RECBOLE, Kgat, KgatLoop, regularisation
from tests.model_references import (
    dot,
    leaky,
    slow_attention,
    slow_pair_loss,
    slow_propagate,
    slow_transr_distance,
    slow_transr_logit,
    unit,
)
from tests.small_model import toy_graph

SETTINGS = replace(RECBOLE, batch_size=3, triple_batch_size=4, learning_rate=0.01)


@pytest.fixture
def graph() -> KnowledgeGraph:
    return toy_graph()


def loop(graph: KnowledgeGraph, seed: int = 0, **changed: object) -> KgatLoop:
    return KgatLoop(graph, toy.USER_IDX, toy.ITEM_IDX, replace(SETTINGS, **changed), seed)


def model(graph: KnowledgeGraph, layers: tuple[int, ...]) -> Kgat:
    torch.manual_seed(1)
    return Kgat(graph, layers)


def test_attention_is_transr_by_head(graph: KnowledgeGraph) -> None:
    made = model(graph, (DIM,))
    nodes, relations = made.nodes.weight.tolist(), made.relations.weight.tolist()
    projections = made.projections.weight.view(-1, DIM, DIM).tolist()
    logits = [
        slow_transr_logit(nodes[h], nodes[t], relations[r], projections[r])
        for h, r, t in zip(graph.head, graph.relation, graph.tail, strict=True)
    ]
    expected = slow_attention(graph.head.tolist(), [1.0] * len(logits), logits)
    assert max(expected) - min(expected) > 0.1
    np.testing.assert_allclose(made.attention[:, 0], expected, rtol=1e-4)
    sums = np.bincount(graph.head, weights=made.attention[:, 0].numpy(), minlength=graph.n_nodes)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)  # every node of the toy world has an edge


def test_propagation_is_bi_interaction(graph: KnowledgeGraph) -> None:
    made = model(graph, (8, 4))
    nodes: list[list[float]] = made.nodes.weight.tolist()
    expected = [list(node) for node in nodes]
    attention = made.attention[:, 0].tolist()
    for joined, product in zip(made.joined, made.product, strict=True):
        sums = slow_propagate(nodes, graph.head.tolist(), graph.tail.tolist(), attention)
        nodes = [
            [
                one + other
                for one, other in zip(
                    _dense(joined, [a + b for a, b in zip(node, near, strict=True)]),
                    _dense(product, [a * b for a, b in zip(node, near, strict=True)]),
                    strict=True,
                )
            ]
            for node, near in zip(nodes, sums, strict=True)
        ]
        for row, node in zip(expected, nodes, strict=True):
            row += unit(node)
    users, items = made.vectors()
    assert users.shape == (toy.N_USERS, DIM + 8 + 4) and items.shape == (toy.N_ITEMS, DIM + 8 + 4)
    np.testing.assert_allclose(np.vstack([users, items]), expected[: len(users) + len(items)], rtol=1e-3, atol=1e-5)


def _dense(layer: Linear, vector: list[float]) -> list[float]:
    weights, biases = layer.weight.tolist(), layer.bias.tolist()
    return [leaky(dot(row, vector) + bias) for row, bias in zip(weights, biases, strict=True)]


def test_losses(graph: KnowledgeGraph) -> None:
    made = model(graph, (DIM,)).eval()
    user, item, negative = torch.tensor([0, 1]), torch.tensor([3, 0]), torch.tensor([2, 4])
    users, items = (torch.from_numpy(part) for part in made.vectors())
    made.eval()
    better, worse = ((users[user] * items[other]).sum(1).tolist() for other in (item, negative))
    expected = slow_pair_loss(better, worse) + 1e-5 * regularisation(users[user], items[item], items[negative]).item()
    assert made.recommendation_loss(user, item, negative).item() == pytest.approx(expected, rel=1e-5)

    head, relation, tail, other = (torch.tensor(x) for x in ([4, 9], [1, 3], [10, 4], [5, 8]))
    nodes, relations = made.nodes.weight.tolist(), made.relations.weight.tolist()
    projections = made.projections.weight.view(-1, DIM, DIM).tolist()
    near, far = (
        [
            -slow_transr_distance(nodes[h], nodes[t], relations[r], projections[r])
            for h, r, t in zip(head.tolist(), relation.tolist(), tails.tolist(), strict=True)
        ]
        for tails in (tail, other)
    )
    loss = made.knowledge_loss(head, relation, tail, other).item()
    assert loss == pytest.approx(slow_pair_loss(near, far), rel=1e-3)


def test_regularisation_is_the_sum_of_norms_by_row() -> None:
    assert regularisation(torch.tensor([[3.0], [4.0]]), torch.zeros(2, 1)).item() == 2.5


def test_an_epoch_has_every_interaction_once_and_no_training_item_as_a_negative(graph: KnowledgeGraph) -> None:
    taken = set(zip(toy.USER_IDX.tolist(), toy.ITEM_IDX.tolist(), strict=True))
    made = loop(graph)
    for _ in range(20):
        batches = list(made.interaction_batches())
        assert [len(user) for user, _, _ in batches] == [3, 3, 2]
        user, item, negative = (torch.cat(part).tolist() for part in zip(*batches, strict=True))
        assert sorted(zip(user, item, strict=True)) == sorted(taken)
        assert not taken & set(zip(user, negative, strict=True))


@pytest.mark.parametrize("with_interactions", [False, True])
def test_an_epoch_has_every_triple_once_and_no_true_one_as_a_negative(
    graph: KnowledgeGraph, with_interactions: bool
) -> None:
    all_facts = list(zip(graph.head.tolist(), graph.relation.tolist(), graph.tail.tolist(), strict=True))
    facts = [fact for fact in all_facts if with_interactions or fact[1] not in (0, 2)]
    assert len(facts) == (28 if with_interactions else 12)
    made = loop(graph, interactions_are_triples=with_interactions)
    for _ in range(20):
        head, relation, tail, other = (torch.cat(p).tolist() for p in zip(*made.triple_batches(), strict=True))
        assert sorted(zip(head, relation, tail, strict=True)) == sorted(facts)
        assert not {(h, t) for h, _, t in facts} & set(zip(head, other, strict=True))


@pytest.mark.parametrize("layers", [RECBOLE.layers, AUTHORS.layers])
def test_it_learns(graph: KnowledgeGraph, layers: tuple[int, ...]) -> None:
    made = loop(graph, layers=layers)
    before = made.model.attention.clone()
    first = made.epoch()
    for _ in range(20):
        last = made.epoch()
    assert last["bpr"] < 0.5 * first["bpr"] and last["transr"] < 0.5 * first["transr"]
    assert min(last[part] for part in ("interactions", "triples", "attention")) > 0
    users, items = made.model.vectors()
    scores = users @ items.T
    for user, taken in enumerate(toy.HISTORY_ITEMS):
        assert set(np.argsort(-scores[user])[: len(taken)]) == set(taken)
    assert (made.model.attention - before).abs().max() > 0.01
    sums = np.bincount(graph.head, weights=made.model.attention[:, 0].numpy(), minlength=graph.n_nodes)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_the_seed_decides_and_the_global_random_state_is_left_alone(graph: KnowledgeGraph) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    made, again, other = (loop(graph, seed) for seed in (0, 0, 1))
    for each in (made, again, other):
        each.epoch()
        torch.rand(3)
        each.epoch()
    torch.manual_seed(5)
    loop(graph).epoch()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(made.model.vectors()[0], again.model.vectors()[0])
    assert not np.array_equal(made.model.vectors()[0], other.model.vectors()[0])
