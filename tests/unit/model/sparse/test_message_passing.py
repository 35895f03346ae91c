"""The sparse product, forward and backward, against a dense product, nested loops and DGL's own kernel."""

from __future__ import annotations

import warnings

import pytest
import torch

from reckg.model.sparse.dgl_compat import dgl
from reckg.model.sparse.message_passing import Adjacency, propagate
from reckg.model.sparse.sparse_rows import SparseRows
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


@pytest.mark.parametrize("stored", [None, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 5, N_NODES])
def test_the_first_rows_alone_are_those_of_the_whole(rows: int, stored: torch.dtype | None) -> None:
    row, col, weight = random_graph()
    adjacency = Adjacency(row, col, N_NODES, stored=stored)  # float64: as on a device that has no embedding bag
    adjacency.set_weights(weight)
    nodes, upstream = torch.randn(N_NODES, 5, requires_grad=True), torch.randn(rows, 5)
    out = propagate(nodes, adjacency, rows)
    assert out.shape == (rows, 5)
    torch.testing.assert_close(out, dense(row, col, weight)[:rows] @ nodes)
    (gradient,) = torch.autograd.grad(out, nodes, upstream)
    torch.testing.assert_close(gradient, dense(row, col, weight)[:rows].T @ upstream)


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
            _ = Adjacency(torch.tensor([0, 1]), torch.tensor([1, 0]), 2).matrix.csr
        finally:
            torch.set_warn_always(False)
    assert not [str(warning.message) for warning in heard]


def symmetric_graph() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row, col, weight, inverse_edge): random_graph with each edge's inverse listed, of the same weight."""
    row, col, weight = random_graph(5)
    row, order = torch.cat([row, col]).sort(stable=True)
    col = torch.cat([col, random_graph(5)[0]])[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(2 * N_EDGES)
    inverse_edge = place[(order + N_EDGES) % (2 * N_EDGES)]
    return row, col, torch.cat([weight, weight])[order], inverse_edge


def test_a_symmetric_matrix_is_its_own_transpose() -> None:
    row, col, weight, inverse_edge = symmetric_graph()
    adjacency = Adjacency(row, col, N_NODES, inverse_edge=inverse_edge)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 4, requires_grad=True)
    upstream = torch.randn(N_NODES, 4)
    (gradient,) = torch.autograd.grad(propagate(nodes, adjacency), nodes, upstream)
    torch.testing.assert_close(gradient, dense(row, col, weight).T @ upstream)
    assert adjacency.transpose is adjacency.matrix


def test_a_matrix_that_only_claims_to_be_symmetric_is_refused() -> None:
    row, col, weight, inverse_edge = symmetric_graph()
    with pytest.raises(ValueError, match="inverse_edge must lead from every edge"):
        Adjacency(row, col, N_NODES, inverse_edge=inverse_edge.roll(1))
    adjacency = Adjacency(row, col, N_NODES, inverse_edge=inverse_edge)
    weight[3] += 1
    with pytest.raises(ValueError, match="an edge and its inverse must have the same weight"):
        adjacency.set_weights(weight)


def test_bad_edges_and_weights_are_refused() -> None:
    row, col, weight = random_graph()
    with pytest.raises(ValueError, match="ordered by row"):
        Adjacency(row.flip(0), col, N_NODES)
    with pytest.raises(ValueError, match=r"weights must be \(40,\), one for every edge, got \(39,\)"):
        Adjacency(row, col, N_NODES).set_weights(weight[1:])
    many = torch.zeros(1, dtype=torch.int64).expand(2**31)
    with pytest.raises(ValueError, match="at most 2\\*\\*31 - 1 edges, got 2147483648"):
        Adjacency(many, many, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_storage_returns_float32_near_the_exact_product(dtype: torch.dtype) -> None:
    row, col, weight = random_graph()
    adjacency = Adjacency(row, col, N_NODES, stored=dtype)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 64, requires_grad=True)
    out = propagate(nodes, adjacency)
    (gradient,) = torch.autograd.grad(out, nodes, torch.ones_like(out))
    for found, exact in (
        (out, dense(row, col, weight) @ nodes),
        (gradient, dense(row, col, weight).T @ torch.ones_like(out)),
    ):
        error = ((found - exact).norm() / exact.norm()).item()
        assert found.dtype == torch.float32 and 0 < error < 4 * torch.finfo(dtype).eps
    assert adjacency.weights is weight


def test_the_bits_depend_neither_on_the_run_nor_on_the_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    row, col = (torch.randint(2_000, (60_000,), generator=generator) for _ in range(2))
    adjacency = Adjacency(row.sort().values, col, 2_000)
    adjacency.set_weights(torch.rand(60_000, generator=generator))
    nodes = torch.randn(2_000, 24, generator=generator, requires_grad=True)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 2, 3):
            torch.set_num_threads(number)
            out = propagate(nodes, adjacency)
            found.append((out.detach(), torch.autograd.grad(out, nodes, out.detach())[0]))
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert torch.equal(again[0], found[0][0]) and torch.equal(again[1], found[0][1])


def test_weights_that_change_after_the_forward_pass_do_not_change_its_gradient() -> None:
    row, col, weight = random_graph()
    adjacency = Adjacency(row, col, N_NODES)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 4, requires_grad=True)
    out = propagate(nodes, adjacency)
    adjacency.set_weights(2 * weight)
    (gradient,) = torch.autograd.grad(out, nodes, torch.ones_like(out))
    torch.testing.assert_close(gradient, dense(row, col, weight).T @ torch.ones_like(out))


def test_the_embedding_bag_and_the_csr_product_are_the_same_matrix() -> None:
    row, col, weight = random_graph()
    adjacency = Adjacency(row, col, N_NODES)
    adjacency.set_weights(weight)
    nodes = torch.randn(N_NODES, 7)
    for matrix in (adjacency.matrix, adjacency.transpose):
        assert isinstance(matrix, SparseRows)
        torch.testing.assert_close(matrix.times(nodes), matrix.csr @ nodes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("stored", [None, torch.bfloat16])
def test_cuda_computes_what_the_cpu_computes(stored: torch.dtype | None) -> None:
    row, col, weight = random_graph()
    nodes = torch.randn(N_NODES, 8)
    found = []
    for device in ("cpu", "cuda"):
        adjacency = Adjacency(row.to(device), col.to(device), N_NODES, stored=stored)
        adjacency.set_weights(weight.to(device))
        vectors = nodes.to(device).requires_grad_()
        out = propagate(vectors, adjacency)
        found.append((out.cpu(), torch.autograd.grad(out.sum(), vectors)[0].cpu()))
    tolerance = {} if stored is None else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found[0], found[1], **tolerance)
