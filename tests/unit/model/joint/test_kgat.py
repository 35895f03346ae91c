"""Aggregators and layers against one node at a time."""

from __future__ import annotations

import pytest
import torch

from reckg.model.joint.kgat import Aggregator, Propagation
from reckg.model.sparse.message_passing import Adjacency, propagate
from tests.model_references import slow_aggregate, slow_propagate

HEAD, TAIL = torch.tensor([0, 0, 1, 2, 2, 2, 4]), torch.tensor([1, 2, 0, 0, 3, 4, 2])
WEIGHT = torch.tensor([0.5, 0.5, 1.0, 0.2, 0.3, 0.5, 1.0])
KINDS = ("sum", "gcn", "bi-interaction")
COMBINATIONS = ("mean", "concat", "last")


def adjacency() -> Adjacency:
    out = Adjacency(HEAD, TAIL, 5)
    out.set_weights(WEIGHT)
    return out


def parts(aggregator: Aggregator, name: str) -> tuple[list[list[float]], list[float]]:
    linear = getattr(aggregator, name, None)
    return ([], []) if linear is None else (linear.weight.tolist(), linear.bias.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_aggregator_equals_its_formula_node_by_node(kind: str) -> None:
    torch.manual_seed(1)
    aggregator, nodes, around = Aggregator(kind, 4), torch.randn(6, 4), torch.randn(6, 4)
    expected = [
        slow_aggregate(kind, n, a, parts(aggregator, "joined"), parts(aggregator, "product"))
        for n, a in zip(nodes.tolist(), around.tolist(), strict=True)
    ]
    torch.testing.assert_close(aggregator(nodes, around), torch.tensor(expected))


def slow_layers(model: Propagation, nodes: torch.Tensor) -> list[torch.Tensor]:
    """The nodes as given and after each layer, node by node."""
    layers = [nodes.tolist()]
    for aggregator in model.aggregators:
        assert isinstance(aggregator, Aggregator)
        around = slow_propagate(layers[-1], HEAD.tolist(), TAIL.tolist(), WEIGHT.tolist())
        joined, product = parts(aggregator, "joined"), parts(aggregator, "product")
        kind = aggregator.kind
        layers.append([slow_aggregate(kind, n, a, joined, product) for n, a in zip(layers[-1], around, strict=True)])
    return [torch.tensor(layer) for layer in layers]


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_layers_equal_nested_loops(kind: str, combine: str) -> None:
    torch.manual_seed(2)
    model = Propagation(layers=2, dim=3, aggregator=kind, combine=combine, dropout=0.5).eval()
    nodes = torch.randn(5, 3)
    outputs = slow_layers(model, nodes)
    found = model(nodes, adjacency())
    assert (len(found.nodes), len(found.sums)) == (3, 2)
    for one, expected in zip(found.nodes, outputs, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)
    joined = {
        "mean": (outputs[0] + outputs[1] + outputs[2]) / 3,
        "concat": torch.cat(outputs, dim=1),
        "last": outputs[2],
    }[combine]
    torch.testing.assert_close(model.combine_layers(found.nodes), joined, rtol=1e-4, atol=1e-6)
    around = torch.tensor(slow_propagate(outputs[1].tolist(), HEAD.tolist(), TAIL.tolist(), WEIGHT.tolist()))
    torch.testing.assert_close(found.sums[1], around, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_reading_out_a_node_with_its_own_neighbourhood_gives_what_propagation_gave(kind: str, combine: str) -> None:
    torch.manual_seed(4)
    model = Propagation(layers=3, dim=3, aggregator=kind, combine=combine, dropout=0.0)
    nodes, picked = torch.randn(5, 3), torch.tensor([2, 0, 2])
    layers = model(nodes, adjacency())
    found = model.read_out(nodes[picked], [sums[picked] for sums in layers.sums])
    torch.testing.assert_close(found, model.combine_layers(layers.nodes)[picked])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_every_layer_gets_a_gradient(kind: str) -> None:
    torch.manual_seed(3)
    model = Propagation(layers=3, dim=3, aggregator=kind, combine="last", dropout=0.0)
    nodes = torch.randn(5, 3, requires_grad=True)
    (model.combine_layers(model(nodes, adjacency()).nodes) * torch.randn(5, 3)).sum().backward()
    assert nodes.grad is not None and nodes.grad.any()
    assert len(list(model.parameters())) == {"sum": 0, "gcn": 6, "bi-interaction": 12}[kind]
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.any()


def test_dropout_acts_in_training_and_keeps_the_mean() -> None:
    model, nodes = Propagation(layers=1, dim=2000, aggregator="sum", combine="last", dropout=0.25), torch.ones(5, 2000)
    torch.manual_seed(0)
    dropped = model(nodes, adjacency()).nodes[1]
    plain = propagate(nodes, adjacency())
    assert (dropped[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(dropped[0][dropped[0] != 0], (plain[0] / 0.75)[dropped[0] != 0])
    torch.testing.assert_close(model.eval()(nodes, adjacency()).nodes[1], plain)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'lstm'"):
        Aggregator("lstm", 4)
    with pytest.raises(ValueError, match="'max'"):
        Propagation(layers=1, dim=4, aggregator="sum", combine="max", dropout=0.0)
