"""What holds for every graph: nodes' numbers have no say, attention is a share, negatives are negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from reckg.graph.recency import recency_weights
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.training.batches import SeenItems
from tests.model_references import slow_attention, slow_propagate
from tests.small_model import CPU, joint_model

QUICK = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class World:
    """Sizes, interactions and triples; nodes of triples are (kind, index) flattened to node numbers."""

    n_users: int
    n_items: int
    n_entities: int
    n_relations: int
    user: np.ndarray
    item: np.ndarray
    head: np.ndarray
    relation: np.ndarray
    tail: np.ndarray
    share: float

    @property
    def n_nodes(self) -> int:
        return self.n_users + self.n_items + self.n_entities

    def graph(self, **changed: Any) -> KnowledgeGraph:
        arguments: dict[str, Any] = {
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_entities": self.n_entities,
            "relations": tuple(f"r{n}" for n in range(self.n_relations)),
            "triples": (self.head, self.relation, self.tail),
            "user_idx": self.user,
            "item_idx": self.item,
            "recency": recency_weights(self.user, 3.0),
            "interaction_share": self.share,
        }
        return build_knowledge_graph(**(arguments | changed))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    n_users, n_items, n_entities = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(0, 4))
    n_relations = draw(st.integers(1, 3))
    pairs = draw(
        st.lists(
            st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), min_size=1, max_size=15, unique=True
        )
    )
    node = st.integers(0, n_users + n_items + n_entities - 1)
    triples = draw(st.lists(st.tuples(node, st.integers(0, n_relations - 1), node), max_size=12))
    user, item = np.array(pairs, dtype=np.int64).T
    head, relation, tail = np.array(triples, dtype=np.int64).reshape(-1, 3).T
    share = draw(st.sampled_from([0.3, 0.8, 1.0]))
    return World(n_users, n_items, n_entities, n_relations, user, item, head, relation, tail, share)


@given(worlds())
@QUICK
def test_priors_are_shares_and_inverses_are_mutual(world: World) -> None:
    graph = world.graph()
    total = np.bincount(graph.head, weights=graph.prior, minlength=graph.n_nodes)
    np.testing.assert_allclose(total[np.unique(graph.head)], 1, rtol=1e-5)
    assert (graph.prior >= 0).all()
    inverse = graph.inverse_edge()
    np.testing.assert_array_equal(inverse[inverse], np.arange(len(graph.head)))
    np.testing.assert_array_equal(graph.head[inverse], graph.tail)
    expected = (graph.relation + graph.n_relations) % (2 * graph.n_relations)
    np.testing.assert_array_equal(graph.relation[inverse], expected)


@given(worlds(), st.integers(0, 1000))
@QUICK
def test_attention_and_propagation_equal_the_loops(world: World, seed: int) -> None:
    graph = world.graph()
    tensors, generator = GraphTensors(graph, CPU), torch.Generator().manual_seed(seed)
    logits = torch.randn(len(graph.head), generator=generator)
    tensors.set_attention(logits)
    shares = slow_attention(graph.head.tolist(), graph.prior.tolist(), logits.tolist())
    torch.testing.assert_close(tensors.shares, torch.tensor(shares), rtol=1e-4, atol=1e-6)
    weights = [(shares[e] * shares[i]) ** 0.5 for e, i in enumerate(graph.inverse_edge().tolist())]
    nodes = torch.randn(graph.n_nodes, 3, generator=generator)
    model = joint_model(graph, layers=1, embedding_dim=3)
    expected = slow_propagate(nodes.tolist(), graph.head.tolist(), graph.tail.tolist(), weights)
    found = model.propagation(nodes, tensors.adjacency).sums[0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def relabelled(world: World, seed: int) -> tuple[World, np.ndarray]:
    """The same world with users, items and entities renumbered each among themselves; new[node] is its new number."""
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(n) for n in (world.n_users, world.n_items, world.n_entities)]
    new = np.concatenate([parts[0], world.n_users + parts[1], world.n_users + world.n_items + parts[2]]).astype(
        np.int64
    )
    moved = World(
        world.n_users,
        world.n_items,
        world.n_entities,
        world.n_relations,
        parts[0][world.user],
        parts[1][world.item],
        new[world.head],
        world.relation,
        new[world.tail],
        world.share,
    )
    return moved, new


def with_embedding(graph: KnowledgeGraph, rows: torch.Tensor, **changed: Any) -> JointModel:
    model = joint_model(graph, **changed)
    with torch.no_grad():
        model.embedding.copy_(rows)
    return model


@given(
    worlds(),
    st.integers(0, 1000),
    st.sampled_from(["sum", "gcn", "bi-interaction"]),
    st.sampled_from(["uniform", "transr"]),
)
@QUICK
def test_relabelling_the_nodes_permutes_the_scores(world: World, seed: int, aggregator: str, attention: str) -> None:
    moved, new = relabelled(world, seed)
    rows = torch.randn(world.n_nodes, 8, generator=torch.Generator().manual_seed(seed))
    scores = []
    for one, embedding in ((world, rows), (moved, rows[np.argsort(new)])):
        graph = one.graph()
        model = with_embedding(graph, embedding, aggregator=aggregator, attention=attention)
        tensors = GraphTensors(graph, CPU)
        model.update_attention(tensors)
        found = model.embeddings(tensors)
        scores.append(found.users @ found.items.T)
    users, items = new[: world.n_users], new[world.n_users : world.n_users + world.n_items] - world.n_users
    np.testing.assert_allclose(scores[1][np.ix_(users, items)], scores[0], atol=2e-4)


@given(worlds(), st.integers(0, 1000))
@QUICK
def test_a_node_without_interactions_is_the_same_whatever_its_id(world: World, seed: int) -> None:
    graph = world.graph()
    rows = torch.randn(world.n_nodes, 8, generator=torch.Generator().manual_seed(seed))
    cold = ~graph.has_interaction
    cold[world.n_users + world.n_items :] = False
    changed = rows.clone()
    changed[torch.from_numpy(cold)] += 100.0
    tensors = GraphTensors(graph, CPU)
    first, second = (with_embedding(graph, r).embeddings(tensors) for r in (rows, changed))
    np.testing.assert_array_equal(first.users, second.users)
    np.testing.assert_array_equal(first.items, second.items)


@given(worlds(), st.integers(0, 1000), st.data())
@QUICK
def test_a_new_interaction_changes_the_users_vector(world: World, seed: int, data: st.DataObject) -> None:
    user = data.draw(st.integers(0, world.n_users - 1))
    taken = set(world.item[world.user == user].tolist())
    warm = sorted(set(world.item.tolist()) - taken)
    if not warm:
        return
    item = data.draw(st.sampled_from(warm))
    rows = torch.randn(world.n_nodes, 8, generator=torch.Generator().manual_seed(seed))
    graph = world.graph()
    longer_user, longer_item = np.append(world.user, user), np.append(world.item, item)
    more = world.graph(user_idx=longer_user, item_idx=longer_item, recency=recency_weights(longer_user, 3.0))
    model = with_embedding(graph, rows)
    before, after = (model.embeddings(GraphTensors(g, CPU)).users[user] for g in (graph, more))
    assert np.abs(before - after).max() > 1e-4


@given(worlds(), st.integers(0, 1000))
@QUICK
def test_negatives_are_never_training_items(world: World, seed: int) -> None:
    seen = SeenItems(torch.from_numpy(world.user), torch.from_numpy(world.item), world.n_users, world.n_items)
    pairs = set(zip(world.user.tolist(), world.item.tolist(), strict=True))
    free = [u for u in range(world.n_users) if any((u, i) not in pairs for i in range(world.n_items))]
    users = torch.tensor(free * 5, dtype=torch.int64)
    drawn = seen.sample_negatives(users, torch.Generator().manual_seed(seed))
    assert all(
        (u, i) not in pairs and 0 <= i < world.n_items for u, i in zip(users.tolist(), drawn.tolist(), strict=True)
    )
