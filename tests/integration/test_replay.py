"""Served requests replayed offline: the server's features and scores are those of batch and training, bit by bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.ranking.diversity import Diversity
from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.trees.labels import LabelSet, label_queries
from reckg.recommend import two_stage
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.golden import open_bundle, save_with_golden
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.recommender import Recommender
from reckg.recommend.requests import recommend_users
from reckg.recommend.wanted import Wanted
from reckg.retrieval.filters import Filters
from reckg.retrieval.scored_items import ScoredItems
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.catalog.snapshot import ServingState
from serving.client import RecommenderClient
from serving.store import StoredEvent
from serving.worker.server import start_server
from tests import small_world
from tests.memory_store import MemoryStore
from tests.small_bundle import DEPTHS
from tests.small_features import extract_features
from tests.small_world import ITEMS, USER_IDS, USERS

REQUESTS: list[dict[str, Any]] = [
    *({"user_id": user_id} for user_id in USER_IDS),
    {"recent_items": ["i07", "i02", "i11"]},
    {"user_id": "u03", "recent_items": ["i01", "gone", "i01"]},
    {"user_id": "nobody", "recent_items": ["i05"], "attributes": {"city": "Rome", "age": 24.0}},
    {"user_id": "u04", "attributes": {"city": ["Oslo"]}},
    {"attributes": {"city": "Rome"}},
    {"user_id": "nobody"},
]
EVENTS = [StoredEvent("e1", "u05", "i09", 1_700_000_500), StoredEvent("e2", "u05", "gone", 1_700_000_600)]
FULL: list[tuple[dict[str, Any], dict[str, Any]]] = [  # as the server is asked, and as the library is
    (
        {"user_id": "u05", "recent_item_ids": ["i01"], "context": pb.Context(item_ids=["i02"])},
        {"user_id": "u05", "recent_items": ["i09", "i01"], "recent_times": [1_700_000_500], "context_items": ["i02"]},
    ),
    ({"user_id": "u05"}, {"user_id": "u05", "recent_items": ["i09"], "recent_times": [1_700_000_500]}),
    (
        {
            "user_id": "u03",
            "filter": pb.ItemFilter(
                predicates=[pb.AttributePredicate(column="genres", values=["x", "y"])], denied_item_ids=["i04"]
            ),
            "diversity": pb.Diversity(strategy=pb.DIVERSITY_STRATEGY_MMR, weight=0.4),
        },
        {
            "user_id": "u03",
            "filters": Filters(deny=["i04"], where={"genres": ["x", "y"]}),
            "diversity": Diversity("mmr", 0.4),
        },
    ),
]
K = 33  # more than the candidates, so that the lists go on in retrieval order

Seen = list[tuple[UserScores, ScoredItems, np.ndarray]]


@pytest.fixture(scope="module")
def bundle_path(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = small_world.world(tmp_path_factory.mktemp("world"), encoder=encoder, linear=True)
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    save_with_golden(small_world.bundle(made), path, extra_folders={"text_encoder": made.folder / "text_encoder"})
    return path


@pytest.fixture(scope="module")
def offline(bundle_path: Path) -> Bundle:
    return open_bundle(bundle_path)


@pytest.fixture(scope="module")
def served(bundle_path: Path) -> Iterator[tuple[list[list[tuple[str, float]]], Seen]]:
    """The answer to every request over gRPC, and the features that the server computed on its way to it."""
    recorded: Seen = []

    def recording(scores: UserScores, candidates: ScoredItems) -> np.ndarray:
        features = candidate_features(scores, candidates)
        recorded.append((scores, candidates, features))
        return features

    running = start_server()
    with pytest.MonkeyPatch.context() as patch, RecommenderClient(running.address, timeout_s=20.0) as client:
        patch.setattr(two_stage, "candidate_features", recording)
        bundle = open_bundle(bundle_path)
        assert bundle.ranker is not None
        compiled = bundle.ranker.compile()  # the offline bundle's is not
        assert compiled == (importlib.util.find_spec("llvmlite") is not None)
        running.ready(Recommender(bundle))
        recorded.clear()
        answers = [client.recommend(k=K, **request).items for request in REQUESTS]
    running.stop(0)
    yield [[(item.item_id, item.score) for item in items] for items in answers], recorded


def test_events_context_and_filters_are_the_library_s_to_the_bit(bundle_path: Path, offline: Bundle) -> None:
    store = MemoryStore()
    store.record_events(EVENTS)
    running = start_server(state=ServingState(store))
    running.ready(Recommender(open_bundle(bundle_path)))
    with grpc.insecure_channel(running.address) as channel:
        stub = recommender_pb2_grpc.RecommenderServiceStub(channel)
        for asked, given in FULL:
            request = pb.RecommendRequest(**asked, max_item_count=K, include_feature_values=True)
            response = stub.Recommend(request, timeout=20)
            expected = Recommender(offline).recommend(**given, k=K, with_features=True)
            assert [(i.item_id, i.score) for i in response.items] == [(i.item_id, i.score) for i in expected.items]
            for item, other in zip(response.items, expected.items, strict=True):
                values = [value.value if value.HasField("value") else None for value in item.feature_values]
                assert values == [each.value for each in other.features.values()]
            seen = {"i09", "i01", "i02"} if asked["user_id"] == "u05" and "context" in asked else set()
            assert len(response.items) > 5 and not seen & {item.item_id for item in response.items}
    running.stop(0)


def as_answers(bundle: Bundle, found: ScoredItems) -> list[list[tuple[str, float]]]:
    ids = bundle.item_ids.ids
    return [
        [(ids[item], value) for item, value in zip(items.tolist(), score.tolist(), strict=True) if item >= 0]
        for items, score in zip(found.item_idx, found.score, strict=True)
    ]


def test_requests_in_one_batch_have_the_scores_that_were_served(
    served: tuple[list[list[tuple[str, float]]], Seen], offline: Bundle
) -> None:
    answers, _ = served
    requests = [UserRequest(**request) for request in REQUESTS]
    found = recommend_users(offline, requests, Wanted(K)).found
    assert found.score.dtype == np.float32
    assert as_answers(offline, found) == answers
    order = np.random.default_rng(0).permutation(len(requests))
    again = recommend_users(offline, [requests[row] for row in order], Wanted(K)).found
    assert as_answers(offline, again) == [answers[row] for row in order]
    assert as_answers(offline, recommend_batch(offline, np.arange(USERS), Wanted(K))) == answers[:USERS]
    assert {len(answer) for answer in answers} == {K - 1, K}  # one user has taken eight of the forty items


def test_the_served_features_are_those_of_batch_and_training(
    served: tuple[list[list[tuple[str, float]]], Seen], offline: Bundle
) -> None:
    _, recorded = served
    known = {int(scores.user_idx[0]): (found, features) for scores, found, features in recorded[:USERS]}
    assert len(recorded) > USERS and len(known) == USERS and all(scores.n == 1 for scores, _, _ in recorded)
    users = np.arange(USERS - 1)  # the last has no history
    everything = np.arange(len(users) + 1) * ITEMS, np.tile(np.arange(ITEMS), len(users))
    indptr, positions = offline.history.rows(users)
    seen = indptr, offline.history.item_idx[positions]
    labels = LabelSet(offline.features, offline.history, offline.index, offline.user_vectors, users, everything, seen)
    queries = label_queries([labels], DEPTHS)
    assert queries.user.tolist() == users.tolist()
    widest = queries.item_idx.shape[1]
    assert len({found.item_idx.shape[1] for found, _ in known.values()}) > 3
    for user in users.tolist():
        found, features = known[user]
        width = found.item_idx.shape[1]
        np.testing.assert_array_equal(queries.item_idx[user, :width], found.item_idx[0])
        assert (queries.item_idx[user, width:] == -1).all()
        assert np.array_equal(queries.features[user, :width], features[0], equal_nan=True)
        assert features.dtype == np.float32 and width <= widest
    score = np.where(queries.real, queries.features[:, :, 0], -np.inf).astype(np.float32)
    vectors = offline.user_vectors[users], offline.item_vectors
    batch = extract_features(offline.features, offline.history, users, ScoredItems(queries.item_idx, score), *vectors)
    assert np.array_equal(batch.reshape(queries.features.shape), queries.features, equal_nan=True)
