"""Columns told from content: what decides is found, what does not is left out, and the error is the left-out one."""

import numpy as np
import pytest

from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from reckg.model.linear import content
from reckg.model.linear.content import CONSTANT, Content, fit_content, item_edges

N_ITEMS, N_MAKERS, N_COLOURS = 90, 6, 5
NEW = np.arange(75, N_ITEMS)
TAUGHT = np.arange(75)


def graph_of(maker: np.ndarray, colour: np.ndarray) -> KnowledgeGraph:
    items = np.arange(N_ITEMS) + 1
    head = np.concatenate([items, items])
    tail = np.concatenate([maker, colour + N_MAKERS]) + 1 + N_ITEMS
    return build_knowledge_graph(
        n_users=1,
        n_items=N_ITEMS,
        n_entities=N_MAKERS + N_COLOURS,
        relations=("maker", "colour"),
        triples=(head, np.repeat([0, 1], N_ITEMS), tail),
        user_idx=np.zeros(1, dtype=np.int64),
        item_idx=np.zeros(1, dtype=np.int64),
        recency=np.ones(1),
        interaction_share=0.8,
    )


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def graph(random: np.random.Generator) -> KnowledgeGraph:
    return graph_of(random.integers(N_MAKERS, size=N_ITEMS), random.integers(N_COLOURS, size=N_ITEMS))


@pytest.fixture
def factor(graph: KnowledgeGraph, random: np.random.Generator) -> np.ndarray:
    """Columns that the maker decides, up to noise."""
    item, relation, tail = item_edges(graph)
    made = relation == 1
    of_maker = random.normal(size=(graph.n_nodes, 4))
    out = np.zeros((N_ITEMS, 4))
    out[item[made]] = of_maker[tail[made]]
    return out + 0.2 * random.normal(size=out.shape)


NO_TEXT = np.zeros((N_ITEMS, 0), dtype=np.float32)


def fitted(graph: KnowledgeGraph, text: np.ndarray, factor: np.ndarray) -> Content:
    found = fit_content(graph, text, factor, np.ones(factor.shape[1]), TAUGHT)
    assert found is not None
    return found


def test_what_decides_is_found(graph: KnowledgeGraph, factor: np.ndarray) -> None:
    found = fitted(graph, NO_TEXT, factor)
    assert found.weights["maker"] > 20 * found.weights["colour"]
    assert found.reliability > 0.9
    columns = found.columns(*item_edges(graph), NO_TEXT)[NEW]
    assert np.corrcoef(columns.ravel(), factor[NEW].ravel())[0, 1] > 0.9


def test_text_counts_where_it_says_more(graph: KnowledgeGraph, random: np.random.Generator) -> None:
    text = random.normal(size=(N_ITEMS, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    factor = text @ random.normal(size=(8, 4))
    found = fitted(graph, text, factor)
    assert found.weights["text"] > 20 * max(found.weights["maker"], found.weights["colour"])
    columns = found.columns(*item_edges(graph), text)[NEW]
    assert np.corrcoef(columns.ravel(), factor[NEW].ravel())[0, 1] > 0.9


def test_content_that_says_nothing_gives_the_mean_and_no_confidence(
    graph: KnowledgeGraph, random: np.random.Generator
) -> None:
    factor = 3 + random.normal(size=(N_ITEMS, 4))
    found = fitted(graph, NO_TEXT, factor)
    assert found.reliability < 0.2
    np.testing.assert_allclose(found.columns(*item_edges(graph), NO_TEXT)[NEW], 3, atol=0.5)


def test_error_is_that_of_items_left_out(graph: KnowledgeGraph, factor: np.ndarray) -> None:
    """Against regressions that are solved anew without each item."""
    edges = item_edges(graph)
    relation, tail, rarity = content._kinds_of_edges(edges, graph)
    features = content._features(relation, tail, rarity, edges, N_ITEMS)[TAUGHT]
    kernels = [(part @ part.T).toarray() for part in (features[:, relation == kind] for kind in np.unique(relation))]
    weights, reliability = content._leave_one_out_weights(kernels, factor[TAUGHT])
    kernel = CONSTANT + sum(weight * part for weight, part in zip(weights, kernels, strict=True))
    told, mean = np.empty((75, 4)), np.empty((75, 4))
    for item in TAUGHT:
        rest = np.delete(TAUGHT, item)
        dual = np.linalg.solve(kernel[np.ix_(rest, rest)] + np.eye(74), factor[rest])
        told[item], mean[item] = kernel[item, rest] @ dual, factor[rest].mean(axis=0)
    error, alone = np.square(told - factor[TAUGHT]).sum(), np.square(mean - factor[TAUGHT]).sum()
    assert reliability == pytest.approx(np.sqrt(1 - error / alone), abs=1e-6)


def test_an_item_of_which_nothing_is_known_has_zeros(graph: KnowledgeGraph, factor: np.ndarray) -> None:
    found = fitted(graph, NO_TEXT, factor)
    item, relation, tail = np.array([1, 2]), np.array([1, 1]), np.array([found.tail[0], 10**6])
    columns = found.columns(item, relation, tail, np.zeros((3, 0), dtype=np.float32))
    assert not columns[0].any()
    assert columns[1].any()
    assert not columns[2].any(), "an entity that the graph does not have"


def test_edges_that_are_given_twice_count_once(graph: KnowledgeGraph, factor: np.ndarray) -> None:
    found = fitted(graph, NO_TEXT, factor)
    item, relation, tail = item_edges(graph)
    once = found.columns(item, relation, tail, NO_TEXT)
    twice = found.columns(np.tile(item, 2), np.tile(relation, 2), np.tile(tail, 2), NO_TEXT)
    np.testing.assert_array_equal(once, twice)


def test_no_shared_content_is_none(factor: np.ndarray) -> None:
    graph = graph_of(np.zeros(N_ITEMS, dtype=np.int64), np.zeros(N_ITEMS, dtype=np.int64))
    assert fit_content(graph, NO_TEXT, factor, np.ones(4), TAUGHT) is None, "what all items have tells none apart"
    assert fit_content(graph, NO_TEXT, factor, np.ones(4), TAUGHT[:0]) is None
