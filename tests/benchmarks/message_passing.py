"""One propagation, forward and backward: reckg's kernel beside DGL's, torch's CSR product and the copy bandwidth.

python -m tests.benchmarks.message_passing [--small] [--device cuda] [--out FILE]
Freed memory is kept for the next arrays, as the stage train has it.
The figures are explained in docs/measurements/propagation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reckg.model.sparse.dgl_compat import dgl
from reckg.model.sparse.message_passing import Adjacency, propagate
from reckg.model.training.memory import keep_freed_memory
from tests.benchmarks import measure

DIM = 64

Pass = tuple[torch.Tensor, torch.Tensor]  # the sums (n_nodes, DIM), and the gradient of the nodes


@dataclass(frozen=True)
class Size:
    """A graph to draw; its figures end in ``suffix``."""

    suffix: str
    n_nodes: int
    n_edges: int
    rounds: int
    power_law: bool = False


FULL = (
    Size("", 100_000, 3_000_000, rounds=15),
    Size("_power_law", 1_000_000, 30_000_000, rounds=5, power_law=True),
    Size("_5k_nodes", 5_000, 170_000, rounds=50),
    Size("_35k_nodes", 35_000, 400_000, rounds=50),
)
SMALL = (Size("", 500, 5_000, rounds=3), Size("_power_law", 1_000, 20_000, rounds=3, power_law=True))


@dataclass(frozen=True)
class Problem:
    """A graph, ordered by row and not symmetric, with weights, vectors and an upstream gradient (n_nodes, DIM)."""

    row: torch.Tensor
    col: torch.Tensor
    weight: torch.Tensor
    nodes: torch.Tensor
    upstream: torch.Tensor


def draw(size: Size, seed: int, device: str) -> Problem:
    """Edges whose ends are drawn alone: alike, or node number r of a random order in proportion to r ** -0.75."""
    generator = torch.Generator().manual_seed(seed)
    n = size.n_nodes

    def ends() -> torch.Tensor:
        if not size.power_law:
            return torch.randint(n, (size.n_edges,), generator=generator)
        share = torch.arange(1, n + 1, dtype=torch.float64).pow(-0.75).cumsum(0)
        at = torch.rand(size.n_edges, generator=generator, dtype=torch.float64) * share[-1]
        return order[torch.searchsorted(share, at)]

    order = torch.randperm(n, generator=generator)
    row, col = ends().sort().values, ends()
    degree = torch.bincount(row, minlength=n).clamp(min=1) * 1.0, torch.bincount(col, minlength=n).clamp(min=1) * 1.0
    weight = (0.5 + torch.rand(size.n_edges, generator=generator)) / (degree[0][row] * degree[1][col]).sqrt()
    nodes, upstream = (torch.randn(n, DIM, generator=generator) for _ in range(2))
    on = [tensor.to(device) for tensor in (row, col, weight, nodes, upstream)]
    return Problem(on[0], on[1], on[2], on[3].requires_grad_(), on[4])


def contenders(problem: Problem) -> dict[str, Callable[[], Pass]]:
    """Each runs forward and backward once: ours in float32 and bfloat16, torch, torch with both matrices kept, DGL."""
    n, nodes, upstream = len(problem.nodes), problem.nodes, problem.upstream

    def with_gradient(product: Callable[[], torch.Tensor]) -> Callable[[], Pass]:
        def run() -> Pass:
            out = product()
            return out.detach(), torch.autograd.grad(out, nodes, upstream)[0]

        return run

    ours = Adjacency(problem.row, problem.col, n)
    narrow = Adjacency(problem.row, problem.col, n, stored=torch.bfloat16)
    for adjacency in (ours, narrow):
        adjacency.set_weights(problem.weight)
    matrix, transpose = ours.matrix.csr, ours.transpose.csr
    found = {
        "ours": with_gradient(lambda: propagate(nodes, ours)),
        "ours_bf16": with_gradient(lambda: propagate(nodes, narrow)),
        "torch": with_gradient(lambda: torch.sparse.mm(matrix, nodes)),
        "torch_kept": lambda: (matrix @ nodes.detach(), transpose @ upstream),
    }
    if nodes.device.type == "cpu":  # the DGL that pip installs has no CUDA
        graph = dgl.graph((problem.col.int(), problem.row.int()), num_nodes=n)
        graph.create_formats_()
        column = problem.weight.unsqueeze(1)
        found["dgl"] = with_gradient(lambda: dgl.ops.u_mul_e_sum(graph, nodes, column))
    return found


def errors(results: dict[str, Pass]) -> dict[str, float]:
    """By contender, how far it is from ours: the norm of the difference over the norm, the worse of both directions."""
    return {
        name: max(((got - own).norm() / own.norm()).item() for got, own in zip(result, results["ours"], strict=True))
        for name, result in results.items()
        if name != "ours"
    }


def check_equal(found: dict[str, float]) -> None:
    """Raises AssertionError where a contender's error says that it computed something else."""
    for name, error in found.items():
        allowed = 1e-2 if name == "ours_bf16" else 1e-5
        assert error <= allowed, f"{name} differs from ours by {error:.2g} of the norm, allowed is {allowed:.0e}"


def copying(n_floats: int, device: str) -> Callable[[], object]:
    """A copy of that many float32: as many bytes are read as are written."""
    source, target = torch.ones(n_floats, device=device), torch.ones(n_floats, device=device)
    return lambda: target.copy_(source)


def measure_size(size: Size, *, seed: int, device: str, copied: int) -> dict[str, float]:
    """The figures of one graph, without its suffix. copied: float32 numbers copied to find the bandwidth."""
    runs = contenders(draw(size, seed, device))
    error = errors({name: run() for name, run in runs.items()})
    check_equal(error)
    seconds = measure.interleaved({**runs, "copy": copying(copied, device)}, size.rounds, device=device)
    median = measure.medians(seconds)
    bandwidth = 2 * 4 * copied / median["copy"]
    gathered = 2 * size.n_edges * DIM / bandwidth  # rows forward and backward, times seconds per byte
    figures = {f"speedup_vs_{name}": measure.speedup(seconds, "ours", name) for name in runs if "ours" not in name}
    figures |= {
        "bandwidth_share": 4 * gathered / median["ours"],
        "bandwidth_share_bf16": 2 * gathered / median["ours_bf16"],
        "speedup_bf16": measure.speedup(seconds, "ours_bf16", "ours"),
        "error_bf16": error["ours_bf16"],
        "copy_gb_per_s": bandwidth / 1e9,
    }
    return figures | {f"ms_{name}": 1000 * median[name] for name in runs}


def main(arguments: list[str] | None = None) -> measure.Result:
    parser = measure.parser("Forward and backward of one propagation.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    if given.beside:
        return measure.beside("message_passing", given, arguments)
    keep_freed_memory()
    sizes, copied = (SMALL, 2**16) if given.small else (FULL, 2**26)
    figures = {}
    for size in sizes:
        found = measure_size(size, seed=given.seed, device=given.device, copied=copied)
        print(f"\n{size.n_nodes:,} nodes, {size.n_edges:,} edges{', power law' * size.power_law}, {DIM} dimensions")
        for name, value in found.items():
            print(f"  {name:22} {value:10.4g}")
        figures |= {name + size.suffix: value for name, value in found.items()}
    settings = {"device": given.device, "small": given.small, "dim": DIM, "graphs": [vars(size) for size in sizes]}
    return measure.finish(
        "message_passing",
        figures,
        settings,
        packages=["dgl", "numpy", "torch"],
        seed=given.seed,
        out=given.out,
        device=given.device,
    )


if __name__ == "__main__":
    main()
