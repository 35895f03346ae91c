"""The estimate against processes that train, the plan that it leads to, and what there is to be had."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reckg.errors import ConfigError
from reckg.model.training.memory import (
    BATCH,
    GB,
    available_memory,
    choose_batch,
    choose_plan,
    estimate,
    estimate_nodes,
    held_memory,
)
from reckg.pipeline.training.plan import available_on
from tests.measured_memory import sizes

ROOT = Path(__file__).resolve().parents[4]
MILLION = replace(sizes(1_000_000), batch=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["full uniform sum", "sampled uniform sum", "full relation sum", "full uniform bi-interaction"]
)
@pytest.mark.parametrize(
    ("users", "at_most"),
    [(30_000, 1.8), pytest.param(90_000, 1.5, marks=pytest.mark.long)],  # the fixed part is generous
)
def test_the_estimate_is_near_what_a_process_grows_by(users: int, at_most: float, words: str) -> None:
    command = [sys.executable, "-m", "tests.measured_memory", str(users), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    estimated, grown = (int(word) for word in done.stdout.split())
    assert 0.9 < estimated / grown < at_most, f"{users}: estimated {estimated / GB:.2f}, grew {grown / GB:.2f} GB"


ON_CUDA = [  # MB that torch had of an H100 at most, in the same three steps and an embedding of all nodes
    (100_000, "full", {}, 523),
    (100_000, "full", {"attention": "relation"}, 651),
    (100_000, "full", {"attention": "transr"}, 474),
    (100_000, "full", {"dim": 128}, 739),
    (100_000, "full", {"layers": 1}, 355),
    (100_000, "full", {"aggregator": "gcn"}, 659),
    (100_000, "full", {"aggregator": "bi-interaction"}, 903),
    (100_000, "sampled", {"aggregator": "bi-interaction"}, 525),
    (300_000, "full", {}, 1390),
    (300_000, "full", {"layers": 3}, 1595),
    (300_000, "full", {"attention": "relation"}, 1952),
    (300_000, "full", {"attention": "transr"}, 1376),
    (300_000, "sampled", {}, 1036),
]


@pytest.mark.parametrize(("users", "propagation", "changed", "measured"), ON_CUDA)
def test_the_estimate_for_cuda_is_above_what_was_measured(
    users: int, propagation: str, changed: dict[str, Any], measured: int
) -> None:
    counts = replace(sizes(users, cuda=True), **changed)
    assert 1.1 < estimate(counts, propagation) / 1e6 / measured < 2


def test_freed_memory_is_kept_for_the_next_array() -> None:
    """In new processes: how many pages a second array of 64 MB faults in, after the first was freed."""
    program = (
        "import resource, numpy as np; from reckg.model.training.memory import keep_freed_memory; {}\n"
        "del_me = np.ones(1 << 23); del del_me; before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "again = np.ones(1 << 23); print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = []
    for call in ("", "keep_freed_memory()"):
        environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", program.format(call)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            env=environment,
        )
        faults.append(int(done.stdout))
    assert faults[0] > 10_000 and faults[1] < 100, faults


def plan(budget_gb: float, propagation: str = "auto", softmax: bool = False, held: int = 0, batch: int = 0) -> str:
    counts = replace(MILLION, batch=batch)
    chosen = choose_plan(counts, propagation=propagation, held=held, budget=int(budget_gb * GB), softmax=softmax)
    return str(chosen)


def test_the_whole_graph_is_chosen_where_it_fits_and_sampling_where_it_does_not() -> None:
    full, sampled = (estimate(replace(MILLION, batch=BATCH), way) / GB for way in ("full", "sampled"))
    assert sampled < full < 12
    taken = estimate(replace(MILLION, batch=78_848), "full") / GB
    assert plan(12) == f"full graph, batches of 78,848, estimated {taken:.1f} of 12.0 GB"
    assert plan(full + 0.01).startswith("full graph, batches of 4,096, ")  # the batch gives way first
    assert plan(full - 0.01).startswith("sampled neighbourhoods, batches of 4,096, ")
    assert plan(100, "sampled").startswith("sampled neighbourhoods")
    assert plan(full + 0.01, held=GB).startswith("sampled")  # what is taken already counts
    assert plan(20, batch=5000).startswith("full graph, batches of 5,000, ")


def test_a_graph_that_cannot_fit_is_refused_with_what_would() -> None:
    with pytest.raises(
        ConfigError, match=r"at least \d+\.\d GB \(sampled, batches of 4,096\) are needed, 1.0 GB may be"
    ) as told:
        plan(1)
    assert "model.embedding_dim 32 takes" in str(told.value) and "train.memory_gb" in str(told.value)
    with pytest.raises(ConfigError, match=r"train\.propagation 'sampled' takes"):
        plan(1, "full")
    with pytest.raises(ConfigError, match=r"train\.propagation 'sampled' and train\.loss 'sampled-softmax' takes"):
        plan(1, softmax=True)
    with pytest.raises(ConfigError, match="scores every item: set it to 'sampled-softmax'"):
        plan(100, "sampled", softmax=True)


def test_learned_relation_weights_want_the_whole_graph() -> None:
    learned = replace(MILLION, batch=0, attention="relation")
    settings: dict[str, Any] = {"held": 0, "softmax": False}
    with pytest.raises(ConfigError, match="trains on the whole graph alone: set it to 'uniform' or 'transr'"):
        choose_plan(learned, propagation="sampled", budget=100 * GB, **settings)
    with pytest.raises(ConfigError, match=r"\(full, .* 'sampled' and model\.attention 'uniform' takes"):
        choose_plan(learned, propagation="auto", budget=GB, **settings)
    assert choose_plan(learned, propagation="auto", budget=100 * GB, **settings).propagation == "full"


def test_small_data_keeps_batches_of_4096_and_large_data_has_about_128_steps() -> None:
    assert [choose_batch(n) for n in (10, 128 * 4096, 128 * 4096 + 1)] == [4096, 4096, 5120]
    assert 120 <= 10_000_000 / choose_batch(10_000_000) <= 128


def test_everything_that_is_more_takes_more() -> None:
    small = replace(MILLION, batch=BATCH)
    for way in ("full", "sampled"):
        base = estimate(small, way)
        for more in ({"dim": 128}, {"layers": 3}, {"batch": 40_960}, {"text_dim": 384}, {"edges": 10**8}):
            assert estimate(replace(small, **more), way) > base, more
    hops = estimate_nodes(small)
    assert len(hops) == 3 and hops == sorted(hops) and hops[-1] <= small.nodes


def test_the_available_memory_is_the_least_of_machine_and_control_group(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/box\n")
    assert available_memory(proc, cgroup) == 8000 * 1024
    (cgroup / "box").mkdir(parents=True)
    (cgroup / "box" / "memory.current").write_text("2000000\n")
    (cgroup / "box" / "memory.max").write_text("max\n")
    assert available_memory(proc, cgroup) == 8000 * 1024
    (cgroup / "box" / "memory.max").write_text("3000000\n")
    assert available_memory(proc, cgroup) == 1_000_000
    (cgroup / "box" / "memory.stat").write_text("anon 5\ninactive_file 700000\n")
    assert available_memory(proc, cgroup) == 1_700_000  # the kernel gives its file cache back
    old = cgroup / "memory" / "box"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("900000\n")
    (old / "memory.usage_in_bytes").write_text("100000\n")
    assert available_memory(proc, cgroup) == 800_000
    assert held_memory() > 1_000_000


def test_a_cuda_device_has_what_is_free_and_what_torch_keeps_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("memory_reserved", 700), ("memory_allocated", 300), ("mem_get_info", (1000, 5000))):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert available_on(torch.device("cuda")) == 1400
