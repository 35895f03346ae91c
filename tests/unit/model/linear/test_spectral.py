"""The linear part: EASE's scores at full rank, histories of another state, unit vectors, shares, new items."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reckg.errors import ArtifactError
from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from reckg.model.embeddings import Embeddings
from reckg.model.linear.content import NewItems, equalize_lengths, item_edges
from reckg.model.linear.spectral import Spectral, choose_shares, fit_spectral, load_spectral

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
    fitted = fit_spectral(graph, 5)
    assert fitted.joined(embeddings, graph) is embeddings, "not yet weighed"
    spectral = replace(fitted, ratio=0.7, longest=2.0)
    joined = spectral.joined(embeddings, graph)
    assert joined.items.shape == (N_ITEMS, 4 + 5 + 1)
    for rows in (joined.users, joined.items):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    total = embeddings.users @ embeddings.items.T + 0.7 * spectral.users(graph) @ spectral.target.T
    scale = (joined.users @ joined.items.T) / total
    np.testing.assert_allclose(scale, np.broadcast_to(scale[:, :1], scale.shape), rtol=1e-3)


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
    _, share, new_share, score = choose_shares(fitted, embeddings, graph, lambda _: np.full(4, 0.5))
    assert (share, new_share, score) == (0.15, 0.8, 0.5)
    linear = fitted.users(graph) @ fitted.target.T

    def agreement(found: Embeddings) -> np.ndarray:
        return np.full(4, np.corrcoef((found.users @ found.items.T).ravel(), linear.ravel())[0, 1])

    chosen, share, _, _ = choose_shares(fitted, embeddings, graph, agreement)
    assert share == 0.9, "the grid grows while the best is at its end"
    assert chosen.ratio > 0


def test_nothing_to_fit(embeddings: Embeddings) -> None:
    spectral = fit_spectral(graph_of(np.ones((N_USERS, N_ITEMS), dtype=bool)), 0)
    assert spectral.target.shape == (N_ITEMS, 0)
    graph = graph_of(np.ones((N_USERS, N_ITEMS), dtype=bool))
    assert choose_shares(spectral, embeddings, graph, lambda _: np.full(4, 0.1))[1] == 0.0


def with_new_items(taken: np.ndarray, new: int = 3) -> tuple[KnowledgeGraph, np.ndarray]:
    """A graph in which the last items have no interaction; each item has a maker, and a text vector."""
    taken = taken.copy()
    taken[:, -new:] = False
    users, items = np.nonzero(taken)
    makers = np.arange(N_ITEMS) % 3 + N_USERS + N_ITEMS
    graph = build_knowledge_graph(
        n_users=N_USERS,
        n_items=N_ITEMS,
        n_entities=3,
        relations=("maker",),
        triples=(np.arange(N_ITEMS) + N_USERS, np.zeros(N_ITEMS, dtype=np.int64), makers),
        user_idx=users,
        item_idx=items,
        recency=np.ones(len(users)),
        interaction_share=0.8,
    )
    return graph, np.random.default_rng(2).normal(size=(N_ITEMS, 6)).astype(np.float32)


def test_new_items_stand_among_the_others(taken: np.ndarray, embeddings: Embeddings) -> None:
    graph, text = with_new_items(taken)
    fitted = fit_spectral(graph, 5, text)
    assert fitted.known.tolist() == [True] * 9 + [False] * 3
    assert fitted.target[-3:].any(axis=1).all(), "told from their content"
    weighted, *_ = choose_shares(fitted, embeddings, graph, lambda _: np.full(4, 0.5))
    assert weighted.content is not None
    assert weighted.new is not None
    users = np.concatenate([embeddings.users, weighted.users(graph)], axis=1)
    others = users @ np.concatenate([embeddings.items, weighted.ratio * weighted.target], axis=1)[:9].T
    others = np.where(taken[:, :9], np.nan, others)
    placed = weighted.new.place(embeddings.items[:9], weighted.target[:9])  # known ones stand in for so few
    new = np.pad(users, ((0, 0), (0, 1)), constant_values=1) @ placed.T
    assert new.mean() == pytest.approx(np.nanmean(others), rel=1e-3)
    spread = np.sqrt(weighted.content.reliability) * np.nanstd(others, axis=1).mean()
    assert new.std(axis=1).mean() == pytest.approx(spread, rel=1e-3)
    joined = weighted.joined(embeddings, graph)
    scores = joined.users @ joined.items.T
    assert joined.users.shape == (N_USERS, 4 + 5 + 2)
    expected = np.pad(users, ((0, 0), (0, 1)), constant_values=1) @ weighted.beside(embeddings.items).T
    scale = scores / expected  # one for each user, so that the order is that of the sums
    np.testing.assert_allclose(scale, np.broadcast_to(scale[:, :1], scale.shape), rtol=1e-3)


@pytest.mark.parametrize("untouched", [1, 2, 3])
def test_a_few_untouched_items_change_nothing_for_the_others(
    taken: np.ndarray, embeddings: Embeddings, untouched: int
) -> None:
    """With a single one its own spread is 0, and once was divided by."""
    taken = taken.copy()
    taken[:, -untouched:] = False
    graph, text = with_new_items(taken, new=untouched)
    spectral, *_ = choose_shares(fit_spectral(graph, 5, text), embeddings, graph, lambda _: np.full(4, 0.5))
    joined = spectral.joined(embeddings, graph)
    known, new = joined.items[:-untouched], joined.items[-untouched:]
    assert np.abs(known[:, -1]).min() < 0.5, "the longest vector is one of the known items"
    assert np.linalg.matrix_rank(known) >= 5
    first = (joined.users @ joined.items.T).argmax(axis=1)
    assert (first >= N_ITEMS - untouched).mean() < 0.4 and np.isfinite(new).all()


@pytest.mark.parametrize("earned", [0.0, 0.02, 1.0])
def test_new_items_get_no_more_of_the_first_places_than_they_earn(earned: float) -> None:
    rng = np.random.default_rng(5)
    n_known, n_new = 30, 60
    parts = [rng.normal(size=(n, 4)).astype(np.float32) for n in (N_USERS, n_known + n_new, 0)]
    users, items, entities = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts)
    taken = np.zeros((N_USERS, n_known + n_new), dtype=bool)
    taken[:, :n_known] = rng.random((N_USERS, n_known)) < 0.2
    user, item = np.nonzero(taken)
    none = np.empty(0, dtype=np.int64)
    graph = build_knowledge_graph(
        n_users=N_USERS,
        n_items=n_known + n_new,
        n_entities=0,
        relations=(),
        triples=(none, none, none),
        user_idx=user,
        item_idx=item,
        recency=np.ones(len(user)),
        interaction_share=0.8,
    )
    text = rng.normal(size=(n_known + n_new, 6)).astype(np.float32)
    fitted, embeddings = fit_spectral(graph, 5, text), Embeddings(users, items, entities)
    spectral, *_ = choose_shares(fitted, embeddings, graph, lambda _: np.full(4, 0.5), earned=earned / n_new)
    joined = spectral.joined(embeddings, graph)
    scores = joined.users @ joined.items.T
    scores[taken] = -np.inf
    exposure = (np.argsort(-scores, axis=1)[:, :10] >= n_known).mean()
    assert exposure <= earned + 1e-9
    if earned == 0.02:
        assert exposure > 0.005, "not less than they earn either"


def test_an_item_that_comes_later_is_placed_as_if_it_had_been_there(taken: np.ndarray, embeddings: Embeddings) -> None:
    graph, text = with_new_items(taken)
    weighted, *_ = choose_shares(fit_spectral(graph, 5, text), embeddings, graph, lambda _: np.full(4, 0.5))
    assert weighted.content is not None
    item, relation, tail = item_edges(graph)
    last = item == N_ITEMS - 1
    columns = weighted.content.columns(item[last] * 0, relation[last], tail[last], text[-1:])
    joined = weighted.joined(embeddings, graph)
    assert weighted.new is not None
    placed = equalize_lengths(weighted.new.place(embeddings.items[-1:], columns), weighted.longest)
    np.testing.assert_allclose(placed, joined.items[-1:], atol=1e-6)


def test_validation_among_new_items_chooses_their_share(taken: np.ndarray, embeddings: Embeddings) -> None:
    graph, text = with_new_items(taken)
    fitted = fit_spectral(graph, 5, text)
    own = (embeddings.users @ embeddings.items[-3:].T).ravel()

    def agreement(found: Embeddings) -> np.ndarray:
        return np.full(4, np.corrcoef((found.users @ found.items[-3:].T).ravel(), own)[0, 1])

    _, share, new_share, _ = choose_shares(fitted, embeddings, graph, agreement, new_items=True)
    assert (share, new_share) == (0.15, 0.0)


def test_saved_and_refused(taken: np.ndarray, tmp_path: Path, embeddings: Embeddings) -> None:
    graph, text = with_new_items(taken)
    spectral, *_ = choose_shares(fit_spectral(graph, 5, text), embeddings, graph, lambda _: np.full(4, 0.5))
    path = tmp_path / "spectral.safetensors"
    spectral.save(path)
    found = load_spectral(path)
    assert isinstance(found.new, NewItems)
    assert found.content is not None
    assert spectral.content is not None
    assert found.content.weights == spectral.content.weights
    for before, after in zip(
        vars(spectral.joined(embeddings, graph)).values(), vars(found.joined(embeddings, graph)).values(), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    plain = Spectral(spectral.source, spectral.target, spectral.known, ratio=0.25)
    plain.save(path)
    assert (load_spectral(path).ratio, load_spectral(path).new, load_spectral(path).content) == (0.25, None, None)
    path.write_bytes(b"broken")
    with pytest.raises(ArtifactError, match=r"spectral.safetensors cannot be read .*Run 'reckg train' again"):
        load_spectral(path)
