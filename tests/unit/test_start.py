"""The spectral start: the leading eigenvectors of the graph, up to rotation, at the scale of a random start."""

from __future__ import annotations

import numpy as np
import torch

from reckg.model.graph_tensors import GraphTensors
from reckg.model.joint_model import JointModel
from reckg.model.start import start_from_spectrum
from tests.small_model import CPU, joint_model, toy_graph


def started(user_ids: bool, dim: int) -> tuple[JointModel, GraphTensors]:
    torch.manual_seed(0)
    graph = toy_graph()
    tensors = GraphTensors(graph, CPU)
    made = joint_model(graph, embedding_dim=dim, user_ids=user_ids)
    start_from_spectrum(made, tensors)
    return made, tensors


def dense(tensors: GraphTensors) -> np.ndarray:
    out = np.zeros((tensors.graph.n_nodes, tensors.graph.n_nodes))
    out[tensors.head.numpy(), tensors.tail.numpy()] = tensors.adjacency.weights.numpy()
    return out


def test_embeddings_are_near_the_leading_eigenvectors() -> None:
    made, tensors = started(user_ids=True, dim=4)
    values, vectors = np.linalg.eigh(dense(tensors))
    leading = vectors[:, -4:] * np.sqrt(values[-4:])
    found = made.embedding.detach().numpy()
    expected, similar = leading @ leading.T, found @ found.T
    assert np.corrcoef(expected.ravel(), similar.ravel())[0, 1] > 0.97


def test_the_scale_is_that_of_a_random_start_and_users_may_be_without() -> None:
    made, tensors = started(user_ids=False, dim=4)
    assert made.embedding.shape == (tensors.graph.n_nodes - made.n_users, 4)
    assert 0.07 < made.embedding[: made.n_items].std().item() < 0.13


def test_more_dimensions_than_nodes_leave_the_rest_to_chance() -> None:
    made, tensors = started(user_ids=True, dim=tensors_dim())
    assert made.embedding.isfinite().all()
    assert made.embedding[:, tensors.graph.n_nodes :].abs().max() < 0.1


def tensors_dim() -> int:
    return toy_graph().n_nodes + 4
