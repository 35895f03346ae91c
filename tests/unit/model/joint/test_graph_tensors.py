"""Edge weights from both ends' attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from tests import toy
from tests.model_references import slow_attention
from tests.small_model import CPU, toy_graph

NO_TRIPLES = tuple(np.array([], dtype=np.int64) for _ in range(3))


def dense_weights(tensors: GraphTensors) -> torch.Tensor:
    n = tensors.graph.n_nodes
    return torch.zeros(n, n).index_put((tensors.head, tensors.tail), tensors.adjacency.weights, accumulate=True)


def test_uniform_attention_over_interactions_alone_is_lightgcns_normalisation() -> None:
    weights = dense_weights(GraphTensors(toy_graph(relations=(), triples=NO_TRIPLES), CPU))
    expected = torch.zeros(12, 12)
    for user, item in zip(toy.USER_IDX.tolist(), toy.ITEM_IDX.tolist(), strict=True):
        weight = 1 / np.sqrt(toy.USER_DEGREE[user] * toy.POPULARITY[item])
        expected[user, 4 + item] = expected[4 + item, user] = weight
    torch.testing.assert_close(weights, expected)


def test_a_node_whose_priors_are_uniform_has_that_weight_to_its_attributes_too() -> None:
    """Heidi has one interaction and one genre: at a share of one half both count alike, as in a plain graph."""
    weights = dense_weights(GraphTensors(toy_graph(interaction_share=0.5), CPU))
    assert weights[7, 9].item() == pytest.approx(1 / np.sqrt(2 * 3))  # degree of heidi, degree of classic
    assert weights[7, 0].item() == pytest.approx(1 / np.sqrt(2 * 2))  # degree of heidi, degree of ann
    assert weights[8, 9].item() == pytest.approx(1 / np.sqrt(1 * 3))


def test_weights_are_the_geometric_mean_of_the_attention_at_both_ends() -> None:
    tensors = GraphTensors(toy_graph(recency=np.linspace(0.2, 1, 8)), CPU)
    logits = torch.randn(len(tensors.head), generator=torch.Generator().manual_seed(0))
    tensors.set_attention(logits)
    shares = slow_attention(tensors.head.tolist(), tensors.prior.tolist(), logits.tolist())
    torch.testing.assert_close(tensors.shares, torch.tensor(shares))
    by_edge = {
        (h, r, t): share
        for h, r, t, share in zip(
            tensors.head.tolist(), tensors.relation.tolist(), tensors.tail.tolist(), shares, strict=True
        )
    }
    expected = [np.sqrt(share * by_edge[(t, (r + 2) % 4, h)]) for (h, r, t), share in by_edge.items()]
    torch.testing.assert_close(tensors.adjacency.weights, torch.tensor(expected).float())


def test_the_matrix_is_symmetric_and_its_spectrum_is_bounded_by_one() -> None:
    tensors = GraphTensors(toy_graph(recency=np.linspace(0.2, 1, 8), interaction_share=0.6), CPU)
    tensors.set_attention(3 * torch.randn(len(tensors.head), generator=torch.Generator().manual_seed(1)))
    weights = dense_weights(tensors)
    torch.testing.assert_close(weights, weights.T)
    assert torch.linalg.eigvalsh(weights).abs().max().item() <= 1 + 1e-5


def test_attention_can_be_taken_back() -> None:
    tensors = GraphTensors(toy_graph(), CPU)
    before = tensors.adjacency.weights.clone()
    tensors.set_attention(torch.randn(len(tensors.head)))
    assert not torch.allclose(tensors.adjacency.weights, before)
    tensors.set_attention(None)
    assert torch.equal(tensors.adjacency.weights, before) and torch.equal(tensors.shares, tensors.prior)
