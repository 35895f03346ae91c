"""Label queries: whose lists a ranker learns from, and that they are those that would be served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reckg.ranking.features import extract as features_module
from reckg.ranking.features.extract import FEATURES
from reckg.ranking.sources.candidates import available_sources
from reckg.ranking.trees.labels import LabelSet, _grades, depths_for, label_queries
from reckg.retrieval.index import build_index
from reckg.retrieval.scored_items import ScoredItems
from tests.small_features import extract_features, random_world

DEPTHS = {"vectors": 6, "cooccurrence": 5, "popular": 4}


def label_set(seed: int = 0, users: np.ndarray | None = None) -> LabelSet:
    """Two labels of each user, every third of whom takes only what they have already."""
    tables, history, _, vectors, item_vectors = random_world(seed)
    users = np.arange(0, 29, 2) if users is None else users
    rng = np.random.default_rng(seed + 1)
    rows = [
        history.items(user)[:2] if user % 3 == 0 else np.setdiff1d(rng.permutation(50)[:30], history.items(user))[:2]
        for user in users
    ]
    relevant = np.cumsum([0, *map(len, rows)]), np.concatenate(rows)
    taken = [history.items(user) for user in users]
    excluded = np.cumsum([0, *map(len, taken)]), np.concatenate(taken)
    return LabelSet(tables, history, build_index(item_vectors), vectors, users, relevant, excluded)


def test_only_users_with_a_relevant_candidate_have_features_and_the_others_are_counted() -> None:
    labels = label_set()
    queries = label_queries([labels], DEPTHS)
    assert 0 < len(queries.user) < len(labels.users) and queries.without == len(labels.users) - len(queries.user)
    assert not {user for user in queries.user.tolist() if user % 3 == 0}, "the history is no candidate"
    assert queries.hits.any(axis=1).all() and queries.features.dtype == np.float32
    for row, user in enumerate(queries.user):
        place = labels.users.tolist().index(user)
        wanted = labels.relevant[1][labels.relevant[0][place] : labels.relevant[0][place + 1]]
        assert queries.relevant[1][queries.relevant[0][row] : queries.relevant[0][row + 1]].tolist() == wanted.tolist()
        assert np.array_equal(queries.hits[row], np.isin(queries.item_idx[row], wanted))
        assert not set(queries.item_idx[row].tolist()) & set(labels.history.items(user).tolist())
    assert np.array_equal(np.isnan(queries.features).all(axis=2), ~queries.real)


def test_what_a_user_is_known_to_have_taken_is_in_no_list() -> None:
    labels = label_set()
    before = label_queries([labels], DEPTHS)
    user, first = int(before.user[0]), int(before.item_idx[0][~before.hits[0]][0])
    place = labels.users.tolist().index(user)
    rows = [labels.excluded[1][a:b] for a, b in zip(labels.excluded[0], labels.excluded[0][1:], strict=False)]
    rows[place] = np.append(rows[place], first)
    more = replace(labels, excluded=(np.cumsum([0, *map(len, rows)]), np.concatenate(rows)))
    after = label_queries([more], DEPTHS)
    assert first not in after.item_idx[after.user == user]
    assert first in before.item_idx[0]


def test_the_features_are_those_that_the_extractor_gives() -> None:
    labels = label_set()
    queries = label_queries([labels], DEPTHS)
    scores = np.where(queries.real, queries.features[:, :, 0], -np.inf).astype(np.float32)
    candidates = ScoredItems(queries.item_idx, scores)
    vectors = labels.vectors[queries.user], labels.index.vectors()
    again = extract_features(labels.tables, labels.history, queries.user, candidates, *vectors)
    assert np.array_equal(again.reshape(queries.features.shape), queries.features, equal_nan=True)


def test_blocks_change_nothing_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = label_set()
    whole = label_queries([labels], DEPTHS)
    monkeypatch.setattr(features_module, "CELLS_AT_ONCE", 3000)
    told: list[int] = []
    parts = label_queries([labels], DEPTHS, told.append)
    assert len(told) > 2 and sum(told) == len(labels.users)
    width = whole.item_idx.shape[1]
    assert np.array_equal(parts.item_idx, whole.item_idx) and np.array_equal(parts.user, whole.user)
    assert np.array_equal(parts.features, whole.features, equal_nan=True) and parts.item_idx.shape[1] == width


def test_sets_of_different_widths_join() -> None:
    first, second = label_set(0), label_set(7, np.arange(1, 10))
    narrow = label_queries([second], {"vectors": 3})
    wide = label_queries([first], DEPTHS)
    assert narrow.item_idx.shape[1] < wide.item_idx.shape[1]
    apart = [label_queries([each], DEPTHS) for each in (first, second)]
    joined = label_queries([first, second], DEPTHS)
    n, c = len(apart[0].user), max(part.item_idx.shape[1] for part in apart)
    assert joined.item_idx.shape == (n + len(apart[1].user), c)
    assert joined.features.shape == (*joined.item_idx.shape, len(FEATURES))
    assert joined.without == apart[0].without + apart[1].without
    start = 0
    for part in apart:
        rows, width = slice(start, start + len(part.user)), part.item_idx.shape[1]
        assert np.array_equal(joined.user[rows], part.user)
        assert np.array_equal(joined.item_idx[rows, :width], part.item_idx)
        assert np.array_equal(joined.features[rows, :width], part.features, equal_nan=True)
        assert np.array_equal(joined.hits[rows, :width], part.hits)
        assert (joined.item_idx[rows, width:] == -1).all() and np.isnan(joined.features[rows, width:]).all()
        assert not joined.hits[rows, width:].any()
        start += len(part.user)
    assert np.array_equal(joined.relevant[1], np.concatenate([part.relevant[1] for part in apart]))
    assert np.array_equal(np.diff(joined.relevant[0]), np.concatenate([np.diff(p.relevant[0]) for p in apart]))


def test_depths_are_chosen_over_the_sources_that_there_are() -> None:
    labels = label_set(3, np.arange(29))
    chosen = depths_for(labels, 10, seed=0)
    depths, recall = chosen.depths, chosen.recall
    assert set(depths) <= set(available_sources(labels.tables)) and depths["vectors"] >= 1
    queries = label_queries([labels], depths)
    found = int(queries.hits.sum()) / len(labels.relevant[1])
    assert recall["union"] == round(found, 4) and recall["union"] >= recall["vectors alone"] > 0
    assert depths_for(labels, 10, seed=0) == chosen


def test_hits_are_graded_by_the_weight_of_their_label() -> None:
    labels = LabelSet.__new__(LabelSet)
    rows = np.array([0, 2, 3]), np.array([1, 4, 4])
    vars(labels).update(relevant=rows, weight=np.array([0.2, 2.6, 9.0]))
    item_idx, hits = np.array([[4, 1, 0], [4, 2, -1]]), np.array([[True, True, False], [True, False, False]])
    assert _grades(labels, np.array([0, 1]), item_idx, hits).tolist() == [[3, 1, 0], [4, 0, 0]]  # type: ignore[union-attr]
    vars(labels).update(weight=None)
    assert _grades(labels, np.array([0, 1]), item_idx, hits) is None
