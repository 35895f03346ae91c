"""The graph's edges, inverses and prior shares, on the toy world and on worlds of a few edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reckg.errors import DataError
from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from tests import toy
from tests.small_model import toy_graph

NO_TRIPLES = tuple(np.array([], dtype=np.int64) for _ in range(3))


def edges(graph: KnowledgeGraph) -> dict[tuple[int, int, int], float]:
    rows = zip(graph.head.tolist(), graph.relation.tolist(), graph.tail.tolist(), strict=True)
    return dict(zip(rows, graph.prior.tolist(), strict=True))


def test_nodes_are_users_then_items_then_entities() -> None:
    graph = toy_graph()
    assert (graph.n_users, graph.n_items, graph.n_entities, graph.n_nodes) == (4, 5, 3, 12)
    assert graph.relations == ("interact", "genres") and graph.n_relations == 2
    found = set(edges(graph))
    for user, item in zip(toy.USER_IDX.tolist(), toy.ITEM_IDX.tolist(), strict=True):
        assert (user, 0, toy.N_USERS + item) in found
    for head, tail in zip(toy.TRIPLE_HEAD.tolist(), toy.TRIPLE_TAIL.tolist(), strict=True):
        assert (head, 1, tail) in found
    assert len(graph.head) == len(found) == 2 * (8 + 6)


def test_every_edge_has_its_inverse_and_edges_are_ordered_by_head() -> None:
    graph = toy_graph()
    for head, relation, tail in edges(graph):
        assert (tail, (relation + 2) % 4, head) in edges(graph)
    assert (np.diff(graph.head) >= 0).all()
    for part in (graph.head, graph.relation, graph.tail):
        assert part.dtype == np.int64
    assert graph.prior.dtype == np.float32


def test_inverse_edge_finds_the_same_fact_from_the_other_side() -> None:
    graph = toy_graph()
    inverse = graph.inverse_edge()
    np.testing.assert_array_equal(inverse[inverse], np.arange(len(graph.head)))
    np.testing.assert_array_equal(graph.head[inverse], graph.tail)
    np.testing.assert_array_equal(graph.tail[inverse], graph.head)
    np.testing.assert_array_equal((graph.relation[inverse] - graph.relation) % 4, 2)


def test_inverse_edge_with_repeated_triples_and_a_triple_of_a_node_with_itself() -> None:
    graph = toy_graph(triples=(np.array([5, 5, 9, 4]), np.zeros(4, int), np.array([11, 11, 9, 5])))
    inverse = graph.inverse_edge()
    np.testing.assert_array_equal(inverse[inverse], np.arange(len(graph.head)))
    np.testing.assert_array_equal(graph.head[inverse], graph.tail)
    np.testing.assert_array_equal((graph.relation[inverse] - graph.relation) % 4, 2)


def test_the_priors_of_a_head_sum_to_one() -> None:
    graph = toy_graph(recency=np.linspace(0.1, 1, 8), interaction_share=0.3)
    total = np.bincount(graph.head, weights=graph.prior, minlength=graph.n_nodes)
    np.testing.assert_allclose(total, 1, rtol=1e-6)  # every node of the toy world has an edge


def test_priors_by_hand() -> None:
    prior = edges(toy_graph(interaction_share=0.8))
    assert prior[(3, 0, 4)] == pytest.approx(1)  # dee has one interaction and nothing else
    assert prior[(1, 0, 5)] == pytest.approx(1 / 3)  # bob has three
    assert prior[(4, 2, 0)] == pytest.approx(0.8 / 3)  # emma: ann, bob and dee share 0.8 ...
    assert prior[(4, 1, 10)] == pytest.approx(0.2 / 2)  # ... her two genres 0.2
    assert prior[(8, 1, 9)] == pytest.approx(1)  # ulysses has no interaction: all is on his genre
    assert prior[(9, 3, 8)] == pytest.approx(1 / 3)  # classic: emma, heidi, ulysses


def test_recency_weighs_a_users_history_but_not_an_items_audience() -> None:
    #            ann-emma bob-dune ann-heidi bob-solaris cyd-dune bob-emma cyd-solaris dee-emma
    prior = edges(toy_graph(recency=np.array([1.0, 0.25, 3.0, 0.5, 1.0, 1.0, 1.0, 1.0])))
    assert prior[(0, 0, 4)] == pytest.approx(1 / 4) and prior[(0, 0, 7)] == pytest.approx(3 / 4)
    assert prior[(1, 0, 5)] == pytest.approx(0.25 / 1.75)
    for user in (0, 1, 3):
        assert prior[(4, 2, user)] == pytest.approx(0.8 / 3)


def test_repeated_interactions_are_one_edge_that_counts_as_often_as_it_was_seen() -> None:
    graph = toy_graph(user_idx=np.array([0, 0, 0, 1]), item_idx=np.array([2, 2, 3, 2]))
    prior = edges(graph)
    assert len(prior) == 2 * (3 + 6)
    assert prior[(0, 0, 6)] == pytest.approx(2 / 3) and prior[(0, 0, 7)] == pytest.approx(1 / 3)
    assert prior[(6, 2, 0)] == pytest.approx(0.8 * 2 / 3) and prior[(6, 2, 1)] == pytest.approx(0.8 / 3)


def test_interaction_share_one_leaves_attributes_to_nodes_without_interactions() -> None:
    prior = edges(toy_graph(interaction_share=1.0))
    assert prior[(4, 1, 10)] == 0 and prior[(4, 2, 0)] == pytest.approx(1 / 3)
    assert prior[(8, 1, 9)] == pytest.approx(1)


def test_has_interaction_tells_the_cold_item_and_the_entities() -> None:
    expected = [True] * 4 + [True, True, True, True, False] + [False] * 3
    assert toy_graph().has_interaction.tolist() == expected


def test_a_graph_without_triples_and_one_without_interactions() -> None:
    plain = toy_graph(relations=(), triples=NO_TRIPLES)
    assert plain.n_relations == 1 and len(plain.head) == 16
    none = np.array([], dtype=np.int64)
    attributes = toy_graph(user_idx=none, item_idx=none)
    assert len(attributes.head) == 12 and not attributes.has_interaction.any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user_idx": np.array([4]), "item_idx": np.array([0])}, "4"),
        ({"user_idx": np.array([-1]), "item_idx": np.array([0])}, "-1"),
        ({"user_idx": np.array([0]), "item_idx": np.array([5])}, "5"),
        ({"user_idx": np.array([1]), "item_idx": np.array([-1])}, "-1"),
        ({"triples": (np.array([12]), np.array([0]), np.array([9]))}, "12"),
        ({"triples": (np.array([-1]), np.array([0]), np.array([9]))}, "-1"),
        ({"triples": (np.array([4]), np.array([0]), np.array([12]))}, "12"),
        ({"triples": (np.array([4]), np.array([1]), np.array([9]))}, "relation"),
        ({"recency": np.array([1.0] * 7 + [0.0])}, "1 of 8"),
        ({"recency": np.array([1.0] * 6 + [np.inf, np.nan])}, "2 of 8"),
    ],
)
def test_what_is_out_of_range_is_refused_with_its_value(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        toy_graph(**changed)


def test_the_order_of_the_input_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(8)
    turned = np.array([3, 1, 0, 5, 4, 2])
    triples = tuple(part[turned] for part in (toy.TRIPLE_HEAD, toy.TRIPLE_RELATION, toy.TRIPLE_TAIL))
    found = toy_graph(user_idx=toy.USER_IDX[order], item_idx=toy.ITEM_IDX[order], triples=triples)
    assert edges(found) == edges(toy_graph())


def test_build_takes_integer_arrays_of_any_width() -> None:
    narrow = build_knowledge_graph(
        n_users=4,
        n_items=5,
        n_entities=3,
        relations=("genres",),
        triples=(
            toy.TRIPLE_HEAD.astype(np.int32),
            toy.TRIPLE_RELATION.astype(np.int8),
            toy.TRIPLE_TAIL.astype(np.uint32),
        ),
        user_idx=toy.USER_IDX.astype(np.int32),
        item_idx=toy.ITEM_IDX.astype(np.uint16),
        recency=np.ones(8),
        interaction_share=0.8,
    )
    assert edges(narrow) == edges(toy_graph())
