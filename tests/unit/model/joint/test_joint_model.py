"""What enters a node, what it comes out as, and over which graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from tests import toy
from tests.model_references import slow_transr_logit
from tests.small_model import CPU, combine_layers, histories, joint_model, text_encoder, toy_graph

ULYSSES = 8  # the node of the cold item


def test_embeddings_are_unit_vectors_of_every_node_in_order() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    found = model.embeddings(tensors)
    assert (found.users.shape, found.items.shape, found.entities.shape) == ((4, 8), (5, 8), (3, 8))
    together = np.concatenate([found.users, found.items, found.entities])
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    nodes = model.node_input()
    weights = torch.zeros(12, 12).index_put((tensors.head, tensors.tail), tensors.adjacency.weights)
    expected = (nodes + weights @ nodes + weights @ weights @ nodes) / 3
    torch.testing.assert_close(torch.from_numpy(together), torch.nn.functional.normalize(expected, dim=1))


@pytest.mark.parametrize(("combine", "columns"), [("mean", 8), ("last", 8), ("concat", 24)])
def test_width_of_the_embeddings(combine: str, columns: int) -> None:
    graph = toy_graph()
    assert joint_model(graph, combine=combine).embeddings(GraphTensors(graph, CPU)).items.shape == (5, columns)


def test_a_node_without_interactions_has_no_id_part() -> None:
    graph = toy_graph()
    nodes = joint_model(graph).node_input()
    assert not nodes[ULYSSES].any()
    warm = [n for n in range(12) if n != ULYSSES]
    assert nodes[warm].any(dim=1).all()  # entities have theirs, though they have no interaction


def test_users_without_ids_are_what_their_neighbourhood_says() -> None:
    graph = toy_graph()
    model = joint_model(graph, user_ids=False)
    assert not model.node_input()[:4].any() and model.node_input()[4].any()
    assert model.embedding.shape == (8, 8)  # five items and three genres


def test_a_cold_items_vector_comes_from_its_genre_and_not_from_its_untrained_id() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)
    before = model.embeddings(tensors).items
    with torch.no_grad():
        model.embedding[ULYSSES] = 100.0
    np.testing.assert_array_equal(model.embeddings(tensors).items, before)
    with torch.no_grad():
        model.embedding[9] = 100.0  # classic
    assert np.abs(model.embeddings(tensors).items[4] - before[4]).max() > 0.1


def test_adding_an_interaction_changes_the_users_vector() -> None:
    """Dee takes solaris: her vector moves towards it; a far user of one layer does not see it."""
    graph = toy_graph()
    model = joint_model(graph, layers=1)
    before = model.embeddings(GraphTensors(graph, CPU))
    more = toy_graph(user_idx=np.append(toy.USER_IDX, 3), item_idx=np.append(toy.ITEM_IDX, 2))
    after = model.embeddings(GraphTensors(more, CPU))
    assert np.abs(after.users[3] - before.users[3]).max() > 0.01
    assert np.abs(after.items[2] - before.items[2]).max() > 0.01
    np.testing.assert_array_equal(after.users[0], before.users[0])
    np.testing.assert_array_equal(after.items[1], before.items[1])


def test_a_user_the_model_never_saw_is_embedded_from_the_history_alone() -> None:
    rest = toy.USER_IDX != 3
    graph = toy_graph(user_idx=toy.USER_IDX[rest], item_idx=toy.ITEM_IDX[rest])
    model = joint_model(graph)
    assert not model.embeddings(GraphTensors(graph, CPU)).users[3].any()
    later = GraphTensors(toy_graph(), CPU)
    before = model.embeddings(later).users[3]
    assert np.linalg.norm(before) == pytest.approx(1, rel=1e-5)
    with torch.no_grad():
        model.embedding[3] = 100.0
    np.testing.assert_array_equal(model.embeddings(later).users[3], before)


def test_text_enters_the_items_only_through_its_gate(encoder: Path, tmp_path: Path) -> None:
    graph = toy_graph()
    model = joint_model(graph, text_encoder(encoder, tmp_path))
    assert model.text is not None
    plain, with_text = model.embedding * model.known, model.node_input()
    difference = with_text - plain
    assert not difference[:4].any() and not difference[9:].any()
    vectors = model.text.vectors
    gate = 1 / (1 + torch.exp(-(vectors @ model.text_gate.weight.T + model.text_gate.bias)))
    torch.testing.assert_close(difference[4:9], gate * (vectors @ model.text_projection.weight.T))
    assert difference[ULYSSES].any() and not difference[7].any()  # a cold item has its text; heidi's text is empty
    with torch.no_grad():
        model.text_gate.bias.fill_(-1e4)
    torch.testing.assert_close(model.node_input(), plain)


def test_in_training_ids_are_dropped_where_something_else_describes_the_node(encoder: Path, tmp_path: Path) -> None:
    # Without triples heidi (item 3) has neither text nor attributes: she keeps her ID.
    none = tuple(np.array([], dtype=np.int64) for _ in range(3))
    graph = toy_graph(relations=(), triples=none)
    model = joint_model(graph, text_encoder(encoder, tmp_path), id_dropout=0.5)
    assert model.text is not None
    with torch.no_grad():
        model.text_projection.weight.zero_()  # what is left of an input is its ID part
    kept = torch.stack([model.node_input().any(dim=1) for _ in range(200)]).float().mean(0)
    assert kept[7] == 1 and kept[ULYSSES] == 0 and (kept[9:] == 1).all()
    describable = [0, 1, 2, 3, 4, 5, 6]
    torch.testing.assert_close(kept[describable], torch.full((7,), 0.5), atol=0.15, rtol=0)
    assert model.eval().node_input()[describable].any(dim=1).all()


def test_an_attribute_is_enough_to_be_describable() -> None:
    model = joint_model(toy_graph(), id_dropout=0.9)
    expected = [True] * 4 + [True] * 5 + [False] * 3
    assert model.describable.squeeze(1).tolist() == expected


def test_uniform_attention_leaves_the_priors_and_transr_sets_the_formulas() -> None:
    graph = toy_graph()
    tensors = GraphTensors(graph, CPU)
    before = tensors.adjacency.weights.clone()
    joint_model(graph).update_attention(tensors)
    assert torch.equal(tensors.adjacency.weights, before)

    model = joint_model(graph, attention="transr", id_dropout=0.9)
    model.update_attention(tensors)  # ID dropout has no say in it
    nodes = (model.embedding * model.known).tolist()
    relation, projection = model.transr.relation.tolist(), model.transr.projection.tolist()
    edges = zip(tensors.head.tolist(), tensors.relation.tolist(), tensors.tail.tolist(), strict=True)
    expected = [slow_transr_logit(nodes[h], nodes[t], relation[r], projection[r]) for h, r, t in edges]
    assert tensors.logits is not None and not tensors.logits.requires_grad
    torch.testing.assert_close(tensors.logits, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(tensors.adjacency.weights, before) and model.training


def test_embeddings_leave_the_model_as_it_was_and_are_without_dropout() -> None:
    graph = toy_graph()
    model, tensors = joint_model(graph, dropout=0.5, id_dropout=0.5), GraphTensors(graph, CPU)
    state = torch.get_rng_state()
    first, second = model.embeddings(tensors), model.embeddings(tensors)
    np.testing.assert_array_equal(first.users, second.users)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not model.eval().training and model.embeddings(tensors) is not None and not model.training


def test_a_user_read_out_without_a_target_is_the_user_in_a_graph_that_lacks_it() -> None:
    """One layer, so that no other node has seen the target either: ann without emma."""
    graph = toy_graph()
    model, tensors = joint_model(graph, layers=1), GraphTensors(graph, CPU)
    layers = model(tensors)
    found = model.user_readout(layers, torch.tensor([0]), histories(tensors).neighbourhoods(torch.tensor([0])))
    kept = np.arange(8) != 0
    without = toy_graph(user_idx=toy.USER_IDX[kept], item_idx=toy.ITEM_IDX[kept])
    expected = combine_layers(model, model(GraphTensors(without, CPU)))[0]
    torch.testing.assert_close(found[0], expected)
    assert not torch.allclose(expected, combine_layers(model, layers)[0])


def test_relation_logits_tell_head_from_tail() -> None:
    model = joint_model(toy_graph())
    nodes, head, tail = torch.randn(12, 8), torch.tensor([0, 4]), torch.tensor([4, 0])
    logits = model.relation_logits(nodes, head, tail)
    assert logits.shape == (2, 4) and not torch.allclose(logits[0], logits[1])
    h, t = nodes[0], nodes[4]
    expected = model.relation_product.weight @ (h * t) + model.relation_product.bias
    torch.testing.assert_close(logits[0], expected + model.relation_difference.weight @ (h - t))


def test_batch_items_are_encoded_anew_with_gradients_and_the_others_are_as_refreshed(
    encoder: Path, tmp_path: Path
) -> None:
    model = joint_model(toy_graph(), text_encoder(encoder, tmp_path, "top-k")).eval()
    assert model.text is not None
    true = model.text.vectors.clone()
    model.text.vectors.add_(1.0)
    found = model.text_nodes(torch.tensor([4, 0]))
    torch.testing.assert_close(found[[0, 4]], model.project_text(true[[0, 4]]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[[1, 2]], model.project_text(true[[1, 2]] + 1.0))
    reached = [
        torch.autograd.grad(found[row].sum(), list(model.text.list_trained_parameters().values()), retain_graph=True)
        for row in (0, 4)
    ]
    assert all(any(gradient.any() for gradient in gradients) for gradients in reached)
    gradients = torch.autograd.grad(found[[1, 2]].sum(), list(model.text.list_trained_parameters().values()))
    assert not any(gradient.any() for gradient in gradients)


def test_the_same_seed_gives_the_same_model(encoder: Path, tmp_path: Path) -> None:
    def made(seed: int) -> JointModel:
        return joint_model(toy_graph(), text_encoder(encoder, tmp_path), seed=seed)

    first, again, other = made(1).state_dict(), made(1).state_dict(), made(2).state_dict()
    own = [name for name in first if not name.startswith("text.")]
    assert all(torch.equal(first[name], again[name]) for name in own)
    assert not torch.equal(first["embedding"], other["embedding"])


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="'gat'"):
        joint_model(toy_graph(), attention="gat")
