"""Training on CUDA: it ends where training on the CPU does, goes on after a kill, and stays within its estimate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.training.memory import GB
from reckg.model.training.train import collect_trained_state, train
from tests.measured_memory import ROOT
from tests.small_model import CPU, histories, joint_model, objective, schedule, text_encoder, toy_graph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.usefixtures("no_network"),
]
CUDA = torch.device("cuda")


class Killed(Exception):
    """Stands for the end of the process."""


def run(device: torch.device, folder: Path, *, killed_in: int = 0, encoder: Path | None = None, **told: Any) -> Any:
    """What training for four epochs from the seed on, or on from the folder's checkpoint, leaves of the model."""
    policy, attention, aggregator = told["policy"], told["attention"], told["aggregator"]
    graph, generator, scores = toy_graph(), torch.Generator().manual_seed(7), []
    text = None if encoder is None else text_encoder(encoder, folder.parent / "cache", policy, device=device)
    model = joint_model(graph, text, seed=3, attention=attention, aggregator=aggregator).to(device)
    tensors = GraphTensors(graph, device)

    def validate(found: Any) -> float:
        scores.append(float(found.items.sum()))
        if len(scores) == killed_in:
            raise Killed
        return float(len(scores))

    made = objective(
        tensors,
        histories=histories(tensors, ordered=told["ordered"], half_life=1.0),
        loss=told["loss"],
        kg_loss=told["kg_loss"],
        text_weight=0.1 if text else 0.0,
        l2_weight=0.1,
        generator=generator,
        sampler=NeighbourSampler(tensors, told["fanout"], generator) if told["fanout"] else None,
    )
    plan = schedule(batch_size=4, learning_rate=0.01, text_learning_rate=1e-3, average_decay=0.9, targets=3)
    train(model, tensors, made, plan, folder=folder, validate=validate, key="k")
    return {name: tensor.detach().cpu() for name, tensor in collect_trained_state(model).items()}


PLAIN: dict[str, Any] = {
    "policy": "frozen",
    "attention": "uniform",
    "aggregator": "sum",
    "ordered": False,
    "loss": "softmax",
    "kg_loss": "none",
    "fanout": 0,
}
RUNS = [
    {},
    {"ordered": True},
    {"attention": "transr", "kg_loss": "transr", "aggregator": "bi-interaction"},
    {"attention": "relation", "kg_loss": "relation", "aggregator": "gcn", "ordered": True},
    {"loss": "sampled-softmax"},
    {"loss": "bpr", "kg_loss": "transr"},
    {"loss": "sampled-softmax", "fanout": 1, "kg_loss": "transr", "ordered": True},
    {"loss": "bpr", "fanout": 9},
]
POLICIES = ["frozen", "top-k", "lora", "full"]


def named(changed: dict[str, Any]) -> str:
    return " ".join(str(value) for value in changed.values()) or "plain"


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """But for what changes no output: a bias of attention's keys, and the logits of a node's only relation. Their
    gradients are rounding alone, which AdamW makes steps of full length of."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        other = second[name]
        if name == "relation_logit":  # users have interactions alone, genres one inverse relation
            tensor, other = tensor[1:3], other[1:3]
        if not name.endswith(".key.bias"):
            torch.testing.assert_close(other, tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changed", RUNS, ids=named)
def test_four_epochs_on_cuda_end_where_they_do_on_the_cpu(changed: dict[str, Any], tmp_path: Path) -> None:
    assert_close(*(run(device, tmp_path / device.type, **PLAIN | changed) for device in (CPU, CUDA)))


@pytest.mark.parametrize("changed", [{}, {"loss": "sampled-softmax", "fanout": 2, "ordered": True}], ids=named)
@pytest.mark.parametrize("policy", POLICIES)
def test_with_text_too(policy: str, changed: dict[str, Any], encoder: Path, tmp_path: Path) -> None:
    told = PLAIN | {"policy": policy} | changed
    assert_close(*(run(device, tmp_path / device.type, encoder=encoder, **told) for device in (CPU, CUDA)))


@pytest.mark.parametrize("changed", [RUNS[2], RUNS[6]], ids=named)
def test_a_killed_run_goes_on(changed: dict[str, Any], tmp_path: Path) -> None:
    told = PLAIN | changed
    whole = run(CUDA, tmp_path / "whole", **told)
    with pytest.raises(Killed):
        run(CUDA, tmp_path / "killed", killed_in=3, **told)
    torch.manual_seed(99)  # the state of the new process is another one
    assert_close(whole, run(CUDA, tmp_path / "killed", **told))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["full uniform sum", "sampled uniform sum", "full relation sum", "full uniform bi-interaction"]
)
def test_the_estimate_is_near_what_is_taken_of_the_device(words: str) -> None:
    command = [sys.executable, "-m", "tests.measured_memory", "100000", *words.split(), "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    estimated, taken = (int(word) for word in done.stdout.split())
    assert 1 < estimated / taken < 2.2, f"estimated {estimated / GB:.2f}, took {taken / GB:.2f} GB"
