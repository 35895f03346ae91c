"""The sparse product, forward and backward, against a dense product, nested loops and DGL's own kernel."""

from __future__ import annotations

import warnings

import pytest
import torch

from reckg.model.dgl_compat import dgl
from reckg.model.message_passing import Adjacency, propagate
from tests.model_references import slow_propagate

N_NODES, N_EDGES = 12, 40


def random_graph(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row, col, weight) ordered by row; nodes 0, 6 and 11 receive nothing, 3 and 11 send nothing, pairs may repeat."""
    generator = torch.Generator().manual_seed(seed)
    receivers = torch.tensor([n for n in range(N_NODES) if n not in (0, 6, 11)])
    senders = torch.tensor([n for n in range(N_NODES) if n not in (3, 11)])
    row = receivers[torch.randint(len(receivers), (N_EDGES,), generator=generator)].sort().values
    col = senders[torch.randint(len(senders), (N_EDGES,), generator=generator)]
    return row, col, torch.rand(N_EDGES, generator=generator, dtype=dtype) - 0.3


def dense(row: torch.Tensor, col: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros(N_NODES, N_NODES, dtype=weight.dtype).index_put((row, col), weight, accumulate=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_forward_and_backward_equal_the_dense_product_and_dgl(seed: int) -> None:
    row, col, weight = random_graph(seed)
    adjacency = Adjacency(row, col, N_NODES)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 5, requires_grad=True)
    upstream = torch.randn(N_NODES, 5)

    out = propagate(nodes, adjacency)
    (gradient,) = torch.autograd.grad(out, nodes, upstream)

    expected = dense(row, col, weight) @ nodes
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradient, dense(row, col, weight).T @ upstream)

    graph = dgl.graph((col, row), num_nodes=N_NODES)
    graph.ndata["h"], graph.edata["w"] = nodes, weight.unsqueeze(1)
    graph.update_all(dgl.function.u_mul_e("h", "w", "m"), dgl.function.sum("m", "out"))
    torch.testing.assert_close(out, graph.ndata["out"])
    (dgl_gradient,) = torch.autograd.grad(graph.ndata["out"], nodes, upstream)
    torch.testing.assert_close(gradient, dgl_gradient)


def test_forward_equals_nested_loops() -> None:
    row, col, weight = random_graph(3)
    adjacency = Adjacency(row, col, N_NODES)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 3)
    slow = slow_propagate(nodes.tolist(), row.tolist(), col.tolist(), weight.tolist())
    torch.testing.assert_close(propagate(nodes, adjacency), torch.tensor(slow))


def test_a_node_without_edges_gets_zero_and_gives_no_gradient() -> None:
    row, col, _ = random_graph()
    nodes = torch.randn(N_NODES, 4, requires_grad=True)
    out = propagate(nodes, Adjacency(row, col, N_NODES))
    out.sum().backward()
    assert nodes.grad is not None
    for lonely in (0, 6, 11):
        assert not out[lonely].any()
    for silent in (3, 11):
        assert not nodes.grad[silent].any()
    assert out[1].any() and nodes.grad[1].any()


def test_gradcheck_in_float64() -> None:
    row, col, weight = random_graph(4, torch.float64)
    adjacency = Adjacency(row, col, N_NODES)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(x, adjacency), (nodes,))


def test_new_weights_replace_the_old_in_both_directions() -> None:
    row, col, weight = random_graph()
    adjacency = Adjacency(row, col, N_NODES)
    nodes = torch.randn(N_NODES, 4, requires_grad=True)
    torch.testing.assert_close(propagate(nodes, adjacency), dense(row, col, torch.ones(N_EDGES)) @ nodes)
    adjacency.set_weights(weight)
    out = propagate(nodes, adjacency)
    (gradient,) = torch.autograd.grad(out, nodes, torch.ones_like(out))
    torch.testing.assert_close(out, dense(row, col, weight) @ nodes)
    torch.testing.assert_close(gradient, dense(row, col, weight).T @ torch.ones_like(out))


def test_an_upstream_gradient_that_is_not_contiguous() -> None:
    row, col, weight = random_graph()
    adjacency = Adjacency(row, col, N_NODES)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 4, requires_grad=True)
    upstream = torch.randn(4, N_NODES).T
    (gradient,) = torch.autograd.grad(propagate(nodes, adjacency), nodes, upstream)
    torch.testing.assert_close(gradient, dense(row, col, weight).T @ upstream)


def test_a_graph_without_edges() -> None:
    none = torch.tensor([], dtype=torch.int64)
    nodes = torch.randn(3, 2, requires_grad=True)
    out = propagate(nodes, Adjacency(none, none, 3))
    out.sum().backward()
    assert not out.any() and nodes.grad is not None and not nodes.grad.any()


def test_torch_is_not_heard_about_its_beta_format() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.set_warn_always(True)
        try:
            Adjacency(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
        finally:
            torch.set_warn_always(False)
    assert not [str(warning.message) for warning in heard]
