"""The linear part: EASE's scores at full rank, histories of another state, unit vectors, the share that is chosen."""

from pathlib import Path

import numpy as np
import pytest

from reckg.errors import ArtifactError
from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from reckg.model.joint_model import Embeddings
from reckg.model.spectral import Spectral, fit_spectral, load_spectral, weighed

N_USERS, N_ITEMS = 40, 12


def graph_of(taken: np.ndarray) -> KnowledgeGraph:
    users, items = np.nonzero(taken)
    none = np.empty(0, dtype=np.int64)
    return build_knowledge_graph(
        n_users=N_USERS,
        n_items=N_ITEMS,
        n_entities=0,
        relations=(),
        triples=(none, none, none),
        user_idx=users,
        item_idx=items,
        recency=np.ones(len(users)),
        interaction_share=0.8,
    )


@pytest.fixture
def taken() -> np.ndarray:
    taken = np.random.default_rng(0).random((N_USERS, N_ITEMS)) < np.linspace(0.2, 0.7, N_ITEMS)
    taken[:, 0] |= ~taken.any(axis=1)
    return taken


@pytest.fixture
def embeddings() -> Embeddings:
    random = np.random.default_rng(1)
    parts = [random.normal(size=(n, 4)).astype(np.float32) for n in (N_USERS, N_ITEMS, 0)]
    users, items, entities = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts)
    return Embeddings(users, items, entities)


def test_scores_of_unseen_items_are_those_of_ease(taken: np.ndarray) -> None:
    """Against the closed form of EASE with the inverse of the matrix, where all but the last dimension is kept."""
    spectral = fit_spectral(graph_of(taken), N_ITEMS - 1)
    matrix = taken.astype(float)
    values = np.sort(np.linalg.svd(matrix, compute_uv=False))[1:]
    inverse = np.linalg.inv(matrix.T @ matrix + np.median(values**2) * np.eye(N_ITEMS))
    ease = -inverse / np.diag(inverse)
    np.fill_diagonal(ease, 0.0)
    expected, found = matrix @ ease, spectral.users(graph_of(taken)) @ spectral.target.T
    for user in range(N_USERS):
        unseen = ~taken[user]
        if unseen.sum() > 2:
            assert np.corrcoef(expected[user, unseen], found[user, unseen])[0, 1] > 0.95


def test_joined_vectors_are_unit_and_order_by_the_sum(taken: np.ndarray, embeddings: Embeddings) -> None:
    graph = graph_of(taken)
    spectral = Spectral(*(getattr(fit_spectral(graph, 5), name) for name in ("source", "target")), ratio=0.7)
    joined = spectral.joined(embeddings, graph)
    assert joined.items.shape == (N_ITEMS, 4 + 5 + 1)
    for rows in (joined.users, joined.items):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    total = embeddings.users @ embeddings.items.T + 0.7 * spectral.users(graph) @ spectral.target.T
    scale = (joined.users @ joined.items.T) / total
    np.testing.assert_allclose(scale, np.broadcast_to(scale[:, :1], scale.shape), rtol=1e-3)
    assert Spectral(spectral.source, spectral.target).joined(embeddings, graph) is embeddings


def test_users_follow_the_graph_they_are_asked_of(taken: np.ndarray) -> None:
    spectral = fit_spectral(graph_of(taken), 5)
    later = taken.copy()
    later[3] = False
    later[3, 7] = True
    later[4] = False
    users = spectral.users(graph_of(later))
    np.testing.assert_allclose(users[3], spectral.source[7] / np.linalg.norm(spectral.source[7]), atol=1e-6)
    assert not users[4].any()


def test_validation_must_clearly_prefer_another_share(taken: np.ndarray, embeddings: Embeddings) -> None:
    graph = graph_of(taken)
    fitted = fit_spectral(graph, 5)
    _, share, score = weighed(fitted, embeddings, graph, lambda _: 0.5)
    assert (share, score) == (0.15, 0.5)
    linear = fitted.users(graph) @ fitted.target.T

    def agreement(found: Embeddings) -> float:
        return float(np.corrcoef((found.users @ found.items.T).ravel(), linear.ravel())[0, 1])

    chosen, share, _ = weighed(fitted, embeddings, graph, agreement)
    assert share == 0.4
    assert chosen.ratio > 0


def test_nothing_to_fit(embeddings: Embeddings) -> None:
    spectral = fit_spectral(graph_of(np.ones((N_USERS, N_ITEMS), dtype=bool)), 0)
    assert spectral.target.shape == (N_ITEMS, 0)
    graph = graph_of(np.ones((N_USERS, N_ITEMS), dtype=bool))
    assert weighed(spectral, embeddings, graph, lambda _: 0.1)[1] == 0.0


def test_saved_and_refused(taken: np.ndarray, tmp_path: Path) -> None:
    spectral = fit_spectral(graph_of(taken), 5)
    path = tmp_path / "spectral.safetensors"
    Spectral(spectral.source, spectral.target, 0.25).save(path)
    found = load_spectral(path)
    assert found.ratio == 0.25
    np.testing.assert_array_equal(found.target, spectral.target)
    path.write_bytes(b"broken")
    with pytest.raises(ArtifactError, match=r"spectral.safetensors cannot be read .*Run 'reckg train' again"):
        load_spectral(path)
