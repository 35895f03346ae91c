"""TransR's projections and the attention over them, against loops over a node's edges and DGL's edge softmax."""

from __future__ import annotations

import pytest
import torch

from reckg.model.joint.transr import TransR, attention
from reckg.model.sparse.dgl_compat import dgl
from tests.model_references import slow_attention, slow_transr_distance, slow_transr_logit

N_NODES, N_RELATIONS = 9, 3


def edges(seed: int = 0, n: int = 30) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(head, relation, tail) ordered by head; node 4 is no head."""
    generator = torch.Generator().manual_seed(seed)
    heads = torch.tensor([node for node in range(N_NODES) if node != 4])
    head = heads[torch.randint(len(heads), (n,), generator=generator)].sort().values
    relation = torch.randint(N_RELATIONS, (n,), generator=generator)
    return head, relation, torch.randint(N_NODES, (n,), generator=generator)


def small_transr(seed: int = 0) -> tuple[TransR, torch.Tensor]:
    torch.manual_seed(seed)
    return TransR(N_RELATIONS, embedding_dim=6, relation_dim=4), torch.randn(N_NODES, 6)


def test_distance_equals_the_formula() -> None:
    model, nodes = small_transr()
    head, relation, tail = edges()
    expected = [
        slow_transr_distance(
            nodes[h].tolist(), nodes[t].tolist(), model.relation[r].tolist(), model.projection[r].tolist()
        )
        for h, r, t in zip(head, relation, tail, strict=True)
    ]
    torch.testing.assert_close(
        model.distance(nodes, head, relation, tail), torch.tensor(expected), rtol=1e-4, atol=1e-5
    )


def test_distance_is_zero_where_the_relation_leads_from_head_to_tail() -> None:
    model, nodes = small_transr()
    with torch.no_grad():
        model.projection[1].copy_(torch.eye(6)[:, :4])
        model.relation[1].copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    nodes[1] = nodes[0] + torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0, 9.0])  # the projection does not see the last two
    one = torch.tensor([1])
    assert model.distance(nodes, torch.tensor([0]), one, torch.tensor([1])).item() == pytest.approx(0, abs=1e-9)
    assert model.distance(nodes, torch.tensor([1]), one, torch.tensor([0])).item() == pytest.approx(4 * 30, rel=1e-4)


@pytest.mark.parametrize("block", [1 << 18, 4])
def test_attention_logits_equal_the_formula_in_one_block_and_in_many(block: int) -> None:
    model, nodes = small_transr(1)
    head, relation, tail = edges(1)
    expected = [
        slow_transr_logit(
            nodes[h].tolist(), nodes[t].tolist(), model.relation[r].tolist(), model.projection[r].tolist()
        )
        for h, r, t in zip(head, relation, tail, strict=True)
    ]
    found = model.attention_logits(nodes, head, relation, tail, block=block)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert not found.requires_grad


def prior_by_head(head: torch.Tensor, seed: int) -> torch.Tensor:
    raw = torch.rand(len(head), generator=torch.Generator().manual_seed(seed)) + 0.1
    return raw / torch.zeros(N_NODES).index_add(0, head, raw)[head]


def test_attention_equals_a_loop_over_each_nodes_edges_and_sums_to_one() -> None:
    head, _, tail = edges(2)
    prior, logits = prior_by_head(head, 5), torch.randn(len(head)) * 2
    found = attention(dgl.graph((tail, head), num_nodes=N_NODES), prior, logits)
    slow = slow_attention(head.tolist(), prior.tolist(), logits.tolist())
    torch.testing.assert_close(found, torch.tensor(slow))
    total = torch.zeros(N_NODES).index_add(0, head, found)
    torch.testing.assert_close(total[head.unique()], torch.ones(len(head.unique())))
    assert total[4] == 0


def test_with_equal_priors_attention_is_dgls_edge_softmax_of_the_logits() -> None:
    head, _, tail = edges(3)
    graph, logits = dgl.graph((tail, head), num_nodes=N_NODES), torch.randn(len(head))
    uniform = 1 / torch.bincount(head)[head]
    expected = dgl.nn.functional.edge_softmax(graph, logits)
    torch.testing.assert_close(attention(graph, uniform, logits), expected)


def test_without_logits_and_with_equal_logits_attention_is_the_prior() -> None:
    head, _, tail = edges(4)
    graph, prior = dgl.graph((tail, head), num_nodes=N_NODES), prior_by_head(head, 6)
    torch.testing.assert_close(attention(graph, prior, None), prior)
    torch.testing.assert_close(attention(graph, prior, torch.full((len(head),), 3.0)), prior)


def test_an_edge_whose_prior_is_zero_stays_at_zero() -> None:
    head, tail = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 2, 3, 0])
    prior = torch.tensor([0.5, 0.0, 0.5, 1.0])
    found = attention(dgl.graph((tail, head), num_nodes=4), prior, torch.tensor([0.0, 50.0, 0.0, -3.0]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0, 0.5, 1.0]))
