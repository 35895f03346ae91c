"""The step's total and its parts; and for every loss, attention, aggregator and text policy, what a step changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reckg.config.run_config import ModelConfig, TextConfig, TrainConfig
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Groups
from reckg.model.joint.joint_model import JointModel
from reckg.model.text.encoder import TextEncoder
from reckg.model.training import objective as module
from reckg.model.training.batches import TrainBatch, batches, corrupt_tails, sample_items
from reckg.model.training.objective import Objective
from reckg.model.training.train import make_optimizer, set_learning_rate, train_step
from tests import model_references as slow
from tests.small_model import CPU, combine_layers, histories, joint_model, objective, schedule, text_encoder, toy_graph


def whole_batch(made: Objective, sizes: Sequence[int] = ()) -> TrainBatch:
    """All examples in the order of the histories; in groups of these sizes, or each by itself."""
    rows = made.histories.examples()
    n = torch.tensor(sizes or [1] * len(rows))
    groups = Groups(torch.repeat_interleave(torch.arange(len(n)), n), n.cumsum(0) - n, int(n.max()))
    return TrainBatch(rows, made.histories.user[rows], made.histories.item[rows], groups)


def unit_vectors(
    model: JointModel, tensors: GraphTensors, made: Objective, sizes: Sequence[int] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """(users of the groups without their targets, all items), normalised, with plain torch."""
    batch, layers = whole_batch(made, sizes), model(tensors)
    around = made.histories.neighbourhoods(batch.row, batch.groups)
    users = model.user_readout(layers, batch.user[batch.groups.first], around)
    items = combine_layers(model, layers)[4:9]
    return F.normalize(users, dim=1), F.normalize(items, dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# Values.
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_softmax_is_the_cross_entropy_of_the_target_among_all_items(ordered: bool) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, histories=histories(tensors, ordered=ordered, half_life=1.0))
    total, parts = made(model, tensors, whole_batch(made))
    users, items = unit_vectors(model, tensors, made)
    expected = slow.slow_softmax_loss((users @ items.T / 0.2).tolist(), whole_batch(made).item.tolist())
    assert parts == {"softmax": pytest.approx(expected, rel=1e-4)} and total.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("corrected", [True, False])
def test_sampled_softmax_uses_its_samples_and_masks_the_target(corrected: bool) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, loss="sampled-softmax", popularity_correction=corrected)
    total, _ = made(model, tensors, whole_batch(made))
    users, items = unit_vectors(model, tensors, made)
    sampled, log_count = sample_items(made.popularity, 16, torch.Generator().manual_seed(7))
    target = whole_batch(made).item
    expected = slow.slow_sampled_softmax_loss(
        ((users * items[target]).sum(1) / 0.2).tolist(),
        (users @ items[sampled].T / 0.2).tolist(),
        [[item == one for one in sampled.tolist()] for item in target.tolist()],
        log_count.tolist() if corrected else [0.0] * 16,
    )
    assert total.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stack", [1, 2, 8])  # blocks at once
@pytest.mark.parametrize("at_once", [1 << 23, 40])  # of 8 x 16 scores: kept, or made anew for the gradient
def test_a_few_examples_share_their_samples(monkeypatch: pytest.MonkeyPatch, at_once: int, stack: int) -> None:
    """Eight examples by three: samples of three groups are drawn, and each group is scored against its own."""
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    monkeypatch.setattr(module, "SHARING", 3)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", at_once)
    monkeypatch.setitem(module.BLOCKS_AT_ONCE, "cpu", stack)
    made = objective(tensors, loss="sampled-softmax")
    total, _ = made(model, tensors, whole_batch(made))
    users, items = unit_vectors(model, tensors, made)
    drawn, _ = sample_items(made.popularity, 3 * 16, torch.Generator().manual_seed(7))
    target, alone = whole_batch(made).item, []
    for i in range(8):
        sampled = drawn[16 * (i // 3) : 16 * (i // 3 + 1)]
        score, others = (users[i] @ items[target[i]]) / 0.2, users[i] @ items[sampled].T / 0.2
        others = (others - (made.popularity[sampled] * 16).log())[sampled != target[i]]
        alone.append(torch.cat([score.unsqueeze(0), others]).logsumexp(0) - score)
    expected = torch.stack(alone).mean()
    torch.testing.assert_close(total, expected)
    (ours,) = torch.autograd.grad(total, model.embedding)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, model.embedding)[0])


def test_samples_that_few_examples_share_make_a_steps_gradient_less_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on average, over draws: with samples of one's own, the noise of the examples' gradients averages out."""
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, loss="sampled-softmax", negatives=2)
    batch = whole_batch(made)
    users, items = (vectors.detach().requires_grad_() for vectors in unit_vectors(model, tensors, made))
    noise, mean = {}, {}
    for sharing in (1, 8):
        monkeypatch.setattr(module, "SHARING", sharing)
        draws = []
        for _ in range(300):
            loss = made._recommendation(users, items, batch, made._draw(model, tensors, batch))
            draws.append(torch.autograd.grad(loss, items)[0])
        noise[sharing], mean[sharing] = torch.stack(draws).var(0).sum(), torch.stack(draws).mean(0)
    assert noise[1] < 0.4 * noise[8]
    assert (mean[1] - mean[8]).square().sum() < 3 * (noise[1] + noise[8]) / 300


def test_bpr_compares_with_items_that_the_user_never_took() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, loss="bpr")
    total, _ = made(model, tensors, whole_batch(made))
    users, items = unit_vectors(model, tensors, made)
    batch = whole_batch(made)
    negative = made.seen.sample_negatives(batch.user, torch.Generator().manual_seed(7))
    assert not made.seen.contains(batch.user, negative).any()
    better, worse = ((users * items[chosen]).sum(1) / 0.2 for chosen in (batch.item, negative))
    assert total.item() == pytest.approx(slow.slow_pair_loss(better.tolist(), worse.tolist()), rel=1e-4)


SIZES = (2, 1, 2, 1, 1, 1)  # groups of the toy world's 2, 3, 2 and 1 interactions
OF = [0, 0, 1, 2, 2, 3, 4, 5]


def test_the_targets_of_a_group_share_a_user_in_the_softmax() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors)
    total, _ = made(model, tensors, whole_batch(made, SIZES))
    users, items = unit_vectors(model, tensors, made, SIZES)
    assert len(users) == 6
    expected = slow.slow_softmax_loss((users[OF] @ items.T / 0.2).tolist(), whole_batch(made).item.tolist())
    assert total.item() == pytest.approx(expected, rel=1e-4)
    alone, _ = made(model, tensors, whole_batch(made))
    assert abs(alone.item() - expected) > 1e-3


@pytest.mark.parametrize("at_once", [1 << 23, 40])
def test_the_targets_of_a_group_meet_each_other_and_the_samples_that_are_none_of_them(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCORES_AT_ONCE", at_once)
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, loss="sampled-softmax")
    total, _ = made(model, tensors, whole_batch(made, SIZES))
    users, items = unit_vectors(model, tensors, made, SIZES)
    sampled, log_count = sample_items(made.popularity, 16, torch.Generator().manual_seed(7))
    target, scores, expected = whole_batch(made).item.tolist(), (users @ items.T / 0.2).tolist(), 0.0
    for row, group in enumerate(OF):
        own = [item for item, of in zip(target, OF, strict=True) if of == group]
        others = [
            scores[group][item] - log
            for item, log in zip(sampled.tolist(), log_count.tolist(), strict=True)
            if item not in own
        ]
        expected += slow.log_sum_exp([scores[group][item] for item in own] + others) - scores[group][target[row]]
    assert total.item() == pytest.approx(expected / 8, rel=1e-4)
    total.backward()
    assert model.embedding.grad is not None and model.embedding.grad.isfinite().all()


def test_bpr_pairs_every_target_of_a_group_with_an_item_of_its_own() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, loss="bpr")
    total, _ = made(model, tensors, whole_batch(made, SIZES))
    users, items = unit_vectors(model, tensors, made, SIZES)
    batch = whole_batch(made)
    negative = made.seen.sample_negatives(batch.user, torch.Generator().manual_seed(7))
    better, worse = ((users[OF] * items[chosen]).sum(1) / 0.2 for chosen in (batch.item, negative))
    assert total.item() == pytest.approx(slow.slow_pair_loss(better.tolist(), worse.tolist()), rel=1e-4)


@pytest.mark.parametrize("kg_loss", ["transr", "relation"])
def test_the_knowledge_graph_losses_see_the_inputs_of_random_edges(kg_loss: str) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, kg_loss=kg_loss, kg_weight=0.25)
    total, parts = made(model, tensors, whole_batch(made))
    generator, nodes = torch.Generator().manual_seed(7), model.node_input()
    edges = torch.randint(len(tensors.head), (8,), generator=generator)
    head, relation, tail = tensors.head[edges], tensors.relation[edges], tensors.tail[edges]
    if kg_loss == "relation":
        logits = model.relation_logits(nodes, head, tail)
        expected = slow.slow_softmax_loss(logits.tolist(), relation.tolist())
    else:
        corrupt = corrupt_tails(tail, 4, 12, generator)
        true, false = (model.transr.distance(nodes, head, relation, end) for end in (tail, corrupt))
        expected = slow.slow_pair_loss((-true).tolist(), (-false).tolist())
    assert parts[f"kg_{kg_loss}"] == pytest.approx(expected, rel=1e-4)
    assert total.item() == pytest.approx(parts["softmax"] + 0.25 * expected, rel=1e-4)


def test_l2_is_over_the_embeddings_of_the_batch() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, l2_weight=0.5)
    total, parts = made(model, tensors, whole_batch(made))
    batch = whole_batch(made)
    expected = slow.slow_l2_loss(model.embedding[batch.user].tolist(), model.embedding[4 + batch.item].tolist())
    assert parts["l2"] == pytest.approx(expected, rel=1e-4)
    assert total.item() == pytest.approx(parts["softmax"] + 0.5 * expected, rel=1e-4)


@pytest.mark.parametrize("combine", ["mean", "concat"])
def test_text_alignment_pairs_an_items_text_with_its_node(encoder: Path, tmp_path: Path, combine: str) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph, text_encoder(encoder, tmp_path), combine=combine), GraphTensors(graph, CPU)
    assert model.text is not None
    made = objective(tensors, text_weight=0.5)
    total, parts = made(model, tensors, whole_batch(made))
    items = [0, 1, 2]  # those of the batch that have text; ulysses is in none
    text = model.text_nodes()[items]
    nodes = F.normalize(combine_layers(model, model(tensors)), dim=1)[4:9][items][:, :8]
    expected = slow.slow_text_alignment_loss(text.tolist(), nodes.tolist(), 0.2)
    assert parts["text"] == pytest.approx(expected, rel=1e-3)
    assert total.item() == pytest.approx(parts["softmax"] + 0.5 * expected, rel=1e-3)


def test_a_step_encodes_texts_of_so_many_tokens_once(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph, text_encoder(encoder, tmp_path, "top-k")), GraphTensors(graph, CPU)
    assert model.text is not None
    lengths = model.text.tokens.lengths
    asked: list[list[int]] = []
    encode = TextEncoder.encode

    def recording(self: TextEncoder, rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return encode(self, rows)

    monkeypatch.setattr(TextEncoder, "encode", recording)
    budget = int(lengths[0] + lengths[1])
    made = objective(tensors, text_batch_tokens=budget, text_weight=0.5)
    for _ in range(12):
        made(model, tensors, whole_batch(made))
    assert len(asked) == 12  # once a step, for the graph and for the alignment
    assert all(len(set(rows)) == len(rows) and lengths[rows].sum() <= budget for rows in asked)
    assert {row for rows in asked for row in rows} == {0, 1, 2}  # solaris has no text, ulysses is in no batch
    assert max(len(rows) for rows in asked) == 2


def test_a_text_longer_than_the_budget_is_encoded_alone_and_whole(encoder: Path, tmp_path: Path) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph, text_encoder(encoder, tmp_path, "top-k")), GraphTensors(graph, CPU)
    made = objective(tensors, text_batch_tokens=1)
    chosen = [made._text_items(model, whole_batch(made)) for _ in range(9)]
    assert all(items is not None and len(items) == 1 for items in chosen)
    assert {int(items) for items in chosen if items is not None} == {0, 1, 2}


def test_unknown_losses_are_refused() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    for changed in ({"loss": "hinge"}, {"kg_loss": "transe"}):
        made = objective(tensors, **changed)
        with pytest.raises(ValueError, match=next(iter(changed.values()))):
            made(model, tensors, whole_batch(made))


# ---------------------------------------------------------------------------------------------------------------------
# What a step changes.
# ---------------------------------------------------------------------------------------------------------------------


def changed_by_a_step(model: JointModel, graph_tensors: GraphTensors, **fields: Any) -> set[str]:
    """Names of the parameters that one step with a large learning rate changed; no weight decay."""
    made = objective(graph_tensors, **fields)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, schedule(weight_decay=0.0))
    set_learning_rate(optimizer, 0, 0)
    model.train()
    parts = train_step(model, graph_tensors, made, optimizer, whole_batch(made), 5.0)
    assert all(np.isfinite(value) for value in parts.values())
    assert all(torch.isfinite(p).all() for p in model.parameters())
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    "loss", [name for name in get_args(TrainConfig.model_fields["loss"].annotation) if name != "auto"]
)
def test_every_recommendation_loss_changes_the_embeddings_alone(loss: str, ordered: bool) -> None:
    graph = toy_graph()
    tensors = GraphTensors(graph, CPU)
    told = histories(tensors, ordered=ordered, half_life=1.0)
    assert changed_by_a_step(joint_model(graph), tensors, loss=loss, histories=told) == {"embedding"}


@pytest.mark.parametrize(
    ("kg_loss", "more"),
    [
        ("none", set()),
        ("transr", {"transr.relation", "transr.projection"}),
        ("relation", {"relation_product.weight", "relation_product.bias", "relation_difference.weight"}),
    ],
)
def test_every_knowledge_graph_loss_changes_its_own_parameters(kg_loss: str, more: set[str]) -> None:
    graph = toy_graph()
    found = changed_by_a_step(joint_model(graph), GraphTensors(graph, CPU), kg_loss=kg_loss)
    assert found == {"embedding"} | more


def test_these_are_all_the_knowledge_graph_losses() -> None:
    assert set(get_args(TrainConfig.model_fields["kg_loss"].annotation)) == {"none", "transr", "relation"}


@pytest.mark.parametrize("combine", get_args(ModelConfig.model_fields["combine"].annotation))
@pytest.mark.parametrize("aggregator", get_args(ModelConfig.model_fields["aggregator"].annotation))
def test_every_aggregator_trains_in_every_layer(aggregator: str, combine: str) -> None:
    graph = toy_graph()
    model = joint_model(graph, aggregator=aggregator, combine=combine, dropout=0.1, id_dropout=0.1)
    found = changed_by_a_step(model, GraphTensors(graph, CPU))
    assert found == {"embedding"} | {f"propagation.{name}" for name, _ in model.propagation.named_parameters()}


@pytest.mark.parametrize("attention", get_args(ModelConfig.model_fields["attention"].annotation))
def test_every_attention_runs_a_step(attention: str) -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph, attention=attention), GraphTensors(graph, CPU)
    model.update_attention(tensors)
    for ordered in (False, True):
        told = histories(tensors, ordered=ordered, half_life=1.0)
        learned = {"relation_logit"} if attention == "relation" else set()
        assert changed_by_a_step(model, tensors, histories=told) == {"embedding"} | learned


@pytest.mark.parametrize("text_weight", [0.0, 0.1])
@pytest.mark.parametrize("policy", get_args(TextConfig.model_fields["policy"].annotation))
def test_every_text_policy_changes_its_part_of_the_encoder(
    encoder: Path, tmp_path: Path, policy: str, text_weight: float
) -> None:
    graph = toy_graph()
    model = joint_model(graph, text_encoder(encoder, tmp_path, policy, trainable_layers=2))
    found = changed_by_a_step(model, GraphTensors(graph, CPU), text_weight=text_weight)
    own = {name for name in found if name.startswith("text.")}
    assert found - own == {"embedding", "text_projection.weight", "text_gate.weight", "text_gate.bias"}
    upper = ("layer.1.", "layer.2.")
    if policy == "frozen":
        assert not own
    elif policy == "top-k":
        assert own and all(any(layer in name for layer in upper) for name in own)
    elif policy == "lora":
        assert own and all("lora_" in name and any(layer in name for layer in upper) for name in own)
    else:
        assert any("word_embeddings" in name for name in own) and any("layer.0." in name for name in own)


def test_a_step_leaves_rows_alone_that_have_no_say() -> None:
    """The cold item's ID is masked: a step must not move it, or it would be noise that no interaction trained."""
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    before = model.embedding.detach().clone()
    changed_by_a_step(model, tensors)
    moved = (model.embedding != before).any(dim=1)
    assert not moved[8] and moved[:8].all() and moved[9:].all()


def test_the_target_is_not_looked_up_in_its_own_graph() -> None:
    """The users' side of every example is built without the target: it cannot be told from other items by its edge."""
    graph = toy_graph(relations=(), triples=tuple(np.array([], dtype=np.int64) for _ in range(3)))
    model, tensors = joint_model(graph, layers=1, combine="last", user_ids=False), GraphTensors(graph, CPU)
    with torch.no_grad():
        model.embedding.copy_(torch.eye(8))  # an item's vector is its own axis; users have none
    made = objective(tensors)
    layers, batch = model(tensors), whole_batch(made)
    users = model.user_readout(layers, batch.user, made.histories.neighbourhoods(batch.row))
    assert users[torch.arange(8), batch.item].abs().max() < 1e-6
    assert (users[:7].norm(dim=1) > 0.1).all() and users[7].norm() < 1e-6  # dee has nothing but her target


def test_repeated_steps_lower_the_loss() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    made = objective(tensors, kg_loss="relation", l2_weight=0.01)
    optimizer = make_optimizer(model, schedule(weight_decay=0.0))
    losses = []
    for step in range(40):
        set_learning_rate(optimizer, step, 3)
        for batch in batches(made.histories, 8, made.generator):
            losses.append(train_step(model, tensors, made, optimizer, batch, 5.0))
    for part in ("softmax", "kg_relation"):
        assert np.mean([row[part] for row in losses[-5:]]) < 0.8 * losses[0][part]
