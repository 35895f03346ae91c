"""A training step pays for what it trains alone: the layers that run in it, and their tokens, as torch profiles it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from reckg.graph.knowledge_graph import build_knowledge_graph
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.text.encoder import TextEncoder, _encoder_layers
from reckg.model.training.batches import batches
from reckg.model.training.train import make_optimizer, train_step
from tests.small_model import CPU, LETTERS, histories, joint_model, objective, schedule, text_encoder, toy_graph

pytestmark = pytest.mark.usefixtures("no_network")


def profiled_step(
    made: TextEncoder, monkeypatch: pytest.MonkeyPatch, **fields: Any
) -> tuple[dict[str, int], list[int]]:
    """Calls of each encoder layer and of the embeddings in one training step, and the padded tokens of each call."""
    tokens: list[int] = []
    for number, layer in enumerate(_encoder_layers(made.model)):
        monkeypatch.setattr(layer, "forward", recording(layer.forward, f"layer {number}", tokens))
    embeddings = next(part for name, part in made.model.named_modules() if name.endswith("embeddings"))
    monkeypatch.setattr(embeddings, "forward", recording(embeddings.forward, "embeddings", None))
    model, tensors = joint_model(toy_graph(), made), GraphTensors(toy_graph(), CPU)
    told = objective(tensors, **fields)
    batch = next(batches(told.histories, 100, told.generator))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        train_step(model.train(), tensors, told, make_optimizer(model, schedule()), batch, 5.0)
    counts = {e.key: e.count for e in found.key_averages() if e.key.startswith(("layer ", "embeddings"))}
    return counts, tokens


def recording(forward: Any, name: str, tokens: list[int] | None) -> Any:
    def recorded(*arguments: Any, **named: Any) -> Any:
        with record_function(name):
            if tokens is not None:
                tokens.append(arguments[0].shape[0] * arguments[0].shape[1])
            return forward(*arguments, **named)

    return recorded


@pytest.mark.parametrize("policy", ["top-k", "lora"])
def test_a_step_runs_the_trained_layers_alone_on_the_batchs_tokens_alone(
    encoder: Path, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = text_encoder(encoder, tmp_path, policy, trainable_layers=1)
    budget = int(made.tokens.lengths[[0, 1]].sum())
    counts, tokens = profiled_step(made, monkeypatch, text_batch_tokens=budget)
    assert set(counts) == {"layer 2"} and counts["layer 2"] == len(tokens)
    assert 0 < sum(tokens) <= 1.5 * budget < made.tokens.lengths.sum()


def test_a_step_with_the_frozen_encoder_runs_none_of_it(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, tokens = profiled_step(text_encoder(encoder, tmp_path), monkeypatch, text_weight=0.1)
    assert counts == {} and tokens == []


def test_the_profile_sees_every_layer_where_all_of_them_train(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, _ = profiled_step(text_encoder(encoder, tmp_path, "full"), monkeypatch)
    assert set(counts) == {"embeddings", "layer 0", "layer 1", "layer 2"}


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_texts_of_the_derived_number_of_tokens_take_about_the_work_of_the_rest_of_a_step(
    encoder: Path, tmp_path: Path, loss: str
) -> None:
    users, items, each = 60, 90, 5
    item = np.stack([(np.arange(each) * 7 + user) % items for user in range(users)])
    interactions = (np.repeat(np.arange(users), each), item.ravel())
    graph = build_knowledge_graph(
        n_users=users, n_items=items, n_entities=0, relations=["interact"], triples=(np.zeros(0, dtype=np.int64),) * 3,
        user_idx=interactions[0], item_idx=interactions[1], recency=np.ones(users * each), interaction_share=0.8,
    )  # fmt: skip
    texts = [" ".join(LETTERS[i % 26] for i in range(2 + row % 9)) for row in range(items)]
    work = {}
    for policy in ("frozen", "top-k", "lora"):
        tensors = GraphTensors(graph, CPU)
        told = histories(tensors, item.tolist(), ordered=True)
        popularity = torch.full((items,), 1 / items)
        made = objective(tensors, loss=loss, histories=told, negatives=256, text_batch_tokens=0, popularity=popularity)
        model = joint_model(graph, text_encoder(encoder, tmp_path, policy, texts=texts), embedding_dim=32).train()
        batch = next(batches(told, 1000, made.generator))
        with FlopCounterMode(display=False) as counted:
            train_step(model, tensors, made, make_optimizer(model, schedule()), batch, 5.0)
        work[policy] = counted.get_total_flops() / 2 + 2 * 2 * len(tensors.head) * 32  # the sparse products besides
    assert 1.3 < work["top-k"] / work["frozen"] < 2.05  # attention between tokens is not counted
    assert 1.2 < work["lora"] / work["frozen"] < 2.05
