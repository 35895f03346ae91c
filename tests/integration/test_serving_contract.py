"""RecommenderService and CatalogService, method by method, over a server in this process and a store in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.ranking.diversity import Diversity
from reckg.ranking.features.extract import FEATURES
from reckg.ranking.sources.candidates import SOURCES, available_sources, source_top
from reckg.ranking.sources.user_scores import UserScores
from reckg.recommend.recommender import Recommender
from reckg.retrieval.filters import Filters
from reckg.v1 import catalog_pb2, catalog_pb2_grpc, item_pb2, recommender_pb2_grpc
from reckg.v1 import recommender_pb2 as pb
from serving.catalog.embedder import Embedder
from serving.catalog.snapshot import ServingState
from serving.settings import LimitSettings
from serving.store import StoredEvent
from serving.worker.server import RunningServer, start_server
from tests import small_world
from tests.memory_store import MemoryStore
from tests.small_world import ITEM_IDS, USER_IDS

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_world.bundle(small_world.world(tmp_path_factory.mktemp("world"), linear=True))


class Running:
    """A server, its store, and the stubs of a client."""

    def __init__(self, bundle: Bundle, **given: Any) -> None:
        self.store = MemoryStore()
        self.state = ServingState(self.store)
        limits = LimitSettings(max_request_bytes=4_000_000, **given)
        self.server: RunningServer = start_server(state=self.state, limits=limits)
        self.bundle = bundle
        self.state.serve(Recommender(bundle))
        self.channel = grpc.insecure_channel(self.server.address, options=[("grpc.enable_http_proxy", 0)])
        self.recommender = recommender_pb2_grpc.RecommenderServiceStub(self.channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        self.embedder = Embedder(bundle, self.store)

    def recommend(self, user_id: str = "", **fields: Any) -> pb.RecommendResponse:
        fields = {"request_id": "r"} | fields
        return self.recommender.Recommend(pb.RecommendRequest(user_id=user_id, **fields), timeout=20)

    def take(self) -> None:
        """What the embedder and the worker's thread do."""
        self.embedder.catch_up()
        self.state.refresh()

    def stop(self) -> None:
        self.channel.close()
        self.server.stop(0)


@pytest.fixture
def running(bundle: Bundle) -> Iterator[Running]:
    running = Running(bundle)
    yield running
    running.stop()


def failure(call: object, *arguments: object, **named: object) -> tuple[grpc.StatusCode, str]:
    assert callable(call)
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **named)
    return raised.value.code(), raised.value.details()


def pairs(items: Any) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in items]


def reasons(response: Any) -> list[str]:
    return [pb.DegradedReason.Name(each).removeprefix("DEGRADED_REASON_") for each in response.degraded_reasons]


def stages(response: Any) -> list[str]:
    return [pb.Stage.Name(each).removeprefix("STAGE_").lower() for each in response.stages]


def event(number: int, item_id: str, user_id: str = "u03", time: int = 1_700_000_000) -> StoredEvent:
    return StoredEvent(f"e{number}", user_id, item_id, time + number)


def test_events_context_and_recent_items_are_one_history(running: Running) -> None:
    offline = Recommender(running.bundle)
    assert pairs(running.recommend("u03").items) == pairs(offline.recommend("u03").items)
    held = int(running.bundle.history.indptr[3])
    known = ITEM_IDS[running.bundle.history.item_idx[held]]
    stored = int(running.bundle.history.timestamp[held])
    running.store.record_events([event(1, "i30"), event(2, "gone"), event(0, known, time=stored)])
    response = running.recommend(
        "u03",
        recent_item_ids=["i01", "lost"],
        context=pb.Context(item_ids=["i02", "nothing"], placement="cart"),
        include_seen=True,
        max_item_count=40,
    )
    expected = offline.recommend(
        "u03",
        40,
        False,
        recent_items=["i30", "i01", "lost"],
        recent_times=[1_700_000_001],
        context_items=["i02", "nothing"],
    )
    assert pairs(response.items) == pairs(expected.items) and "i02" not in dict(pairs(response.items))
    assert {"i30", "i01"} <= dict(pairs(response.items)).keys()
    assert list(response.unknown_recent_item_ids) == ["lost"]
    assert list(response.unknown_context_item_ids) == ["nothing"]
    assert reasons(response) == ["UNKNOWN_RECENT_ITEMS"]
    assert stages(response) == ["events", "fold_in", "retrieve", "features", "rerank"]
    assert not {"i30", "i01", "i02"} & dict(pairs(running.recommend("u03", recent_item_ids=["i01"]).items)).keys() - {
        "i02"
    }


def test_an_answer_tells_what_was_done_and_why_it_is_worse(running: Running, bundle: Bundle) -> None:
    assert (stages(running.recommend("nobody")), reasons(running.recommend("nobody"))) == (
        ["events", "popular"],
        ["COLD_USER"],
    )
    assert stages(running.recommend("u03")) == ["events", "retrieve", "features", "rerank"]
    assert stages(running.recommend(recent_item_ids=["i01"])) == ["fold_in", "retrieve", "features", "rerank"]
    mmr = pb.Diversity(strategy=pb.DIVERSITY_STRATEGY_MMR, weight=0.5)
    assert stages(running.recommend("u03", diversity=mmr))[-1] == "diversify"
    running.store.down = True
    response = running.recommend("u03")
    assert reasons(response) == ["NO_EVENTS"] and pairs(response.items) == pairs(
        Recommender(bundle).recommend("u03").items
    )
    running.state.refresh()
    assert reasons(running.recommend("nobody")) == ["COLD_USER", "NO_EVENTS", "STALE_CATALOG"]
    running.store.down = False
    running.state.refresh()
    assert reasons(running.recommend("u03")) == []


def test_too_little_time_skips_the_ranker(bundle: Bundle) -> None:
    running = Running(bundle, min_rerank_ms=60_000)
    response = running.recommend("u03")
    assert reasons(response) == ["NO_RERANK"] and stages(response) == ["events", "retrieve"]
    assert pairs(response.items) == pairs(Recommender(bundle).recommend("u03", rerank=False).items)
    running.stop()


def test_filters_and_diversity_are_the_library_s(running: Running, bundle: Bundle) -> None:
    offline = Recommender(bundle)
    where = [
        pb.AttributePredicate(column="genres", values=["x", "y"]),
        pb.AttributePredicate(column="price", range=pb.NumberRange(at_least=3, below=25)),
        pb.AttributePredicate(column="price", range=pb.NumberRange(above=4)),
    ]
    response = running.recommend("u03", filter=pb.ItemFilter(predicates=where, denied_item_ids=["i01"]))
    conditions = [("genres", ["x", "y"]), ("price", {">=": 3.0, "<": 25.0}), ("price", {">": 4.0})]
    expected = offline.recommend("u03", filters=Filters(deny=["i01"], where=conditions))
    assert pairs(response.items) == pairs(expected.items) and response.items
    few = running.recommend("u03", filter=pb.ItemFilter(allowed_items=pb.ItemIdList(item_ids=["i30", "zz"])))
    assert [item.item_id for item in few.items] == ["i30"]
    assert not running.recommend("u03", filter=pb.ItemFilter(allowed_items=pb.ItemIdList())).items
    mix = pb.Diversity(strategy=pb.DIVERSITY_STRATEGY_CALIBRATED, weight=0.7, column="genres")
    expected = offline.recommend("u03", diversity=Diversity("calibrated", 0.7, "genres"))
    assert pairs(running.recommend("u03", diversity=mix).items) == pairs(expected.items)
    for fields, message in (
        (
            {"filter": pb.ItemFilter(predicates=[pb.AttributePredicate(column="hue", values=["x"])])},
            "unknown column 'hue'",
        ),
        ({"filter": pb.ItemFilter(predicates=[pb.AttributePredicate(column="price", values=["x"])])}, "needs a number"),
        ({"diversity": pb.Diversity(strategy=3, column="hue")}, "the items have no column 'hue'"),
        ({"diversity": pb.Diversity(strategy=3, column="price")}, "give a categorical or a list column"),
        ({"diversity": pb.Diversity(strategy=4, provider_column="x", max_per_provider=1)}, "no column 'x'"),
    ):
        code, message_text = failure(running.recommend, "u03", **fields)
        assert code == INVALID and message in message_text


def test_features_and_sources_are_of_the_candidates_that_were_ranked(running: Running, bundle: Bundle) -> None:
    plain = running.recommend("u03", max_item_count=12)
    response = running.recommend("u03", max_item_count=12, include_feature_values=True, include_source_scores=True)
    assert pairs(response.items) == pairs(plain.items) and not plain.items[0].feature_values
    explained = Recommender(bundle).explain_features("u03", [item.item_id for item in response.items])
    user = np.array([3])
    scores = UserScores(bundle.features, bundle.history, user, bundle.user_vectors[user], bundle.item_vectors)
    assert bundle.ranker is not None
    seen = np.array([0, len(bundle.history.items(3))]), bundle.history.items(3)
    missing = set()
    for item in response.items:
        assert [value.name for value in item.feature_values] == list(FEATURES)
        for value in item.feature_values:
            expected = explained[item.item_id][value.name]
            assert (value.value if value.HasField("value") else None) == expected.value
            cause = pb.MissingCause.Name(value.missing_cause).removeprefix("MISSING_CAUSE_")
            assert cause.lower().replace("_", " ") == (expected.cause or "unspecified")
            missing.add(cause)
        assert item.source_scores
        names = [each.source for each in item.source_scores]
        assert names == [name for name in SOURCES if name in names]
        for each in item.source_scores:
            assert each.source in available_sources(bundle.features)
            found = source_top(each.source, scores, bundle.index, bundle.ranker.depths[each.source], seen)
            assert ITEM_IDS[found.item_idx[0][each.rank - 1]] == item.item_id
            assert found.score[0][each.rank - 1] == each.score
    assert len(missing) > 1
    popular = running.recommend("nobody", include_feature_values=True, include_source_scores=True)
    assert not popular.items[0].feature_values and not popular.items[0].source_scores


def test_the_same_request_has_the_same_answer(running: Running) -> None:
    running.store.record_events([event(1, "i30")])
    request = {"recent_item_ids": ["i01"], "include_source_scores": True, "context": pb.Context(item_ids=["i02"])}
    assert running.recommend("u03", **request) == running.recommend("u03", **request)
    assert len({running.recommend("u03", request_id="").request_id for _ in range(3)}) == 3
    assert running.recommend("u03", request_id="abc").request_id == "abc"


def test_a_batch_is_what_single_requests_are(running: Running) -> None:
    running.store.record_events([event(1, "i30"), event(2, "i31", "stranger")])
    users = [*USER_IDS, "stranger", "nobody", USER_IDS[3]]
    shared = {
        "filter": pb.ItemFilter(denied_item_ids=["i09"]),
        "diversity": pb.Diversity(strategy=pb.DIVERSITY_STRATEGY_MMR, weight=0.2),
        "max_item_count": 7,
        "request_id": "batch",
    }
    request = pb.BatchRecommendRequest(user_ids=users, **shared)  # type: ignore[arg-type]
    answers = list(running.recommender.BatchRecommend(request, timeout=60))
    assert [answer.user_id for answer in answers] == users
    for answer in answers:
        assert answer.recommendations == running.recommend(answer.user_id, **shared)
    for wrong, message in (
        (pb.BatchRecommendRequest(), "user_ids must not be empty"),
        (pb.BatchRecommendRequest(user_ids=["u"] * 10_001), "user_ids must be at most 10000, got 10001"),
        (pb.BatchRecommendRequest(user_ids=["u", ""]), r"user_ids[1] must not be empty"),
        (pb.BatchRecommendRequest(user_ids=["u"], max_item_count=501), "max_item_count must be 0..500, got 501"),
    ):
        assert failure(list, running.recommender.BatchRecommend(wrong, timeout=20)) == (INVALID, message)


def test_a_batch_works_no_further_ahead_than_is_read(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the connection's window holds is answered ahead, a few hundred kilobytes, and no more."""
    done: list[str] = []
    plain = running.state.current.recommender.recommend

    def counted(user_id: str, *arguments: Any, **named: Any) -> Any:
        done.append(user_id)
        answer = plain(user_id, *arguments, **named)
        return replace(answer, items=[replace(item, title="x" * 3000) for item in answer.items])  # 100 KB an answer

    monkeypatch.setattr(running.state.current.recommender, "recommend", counted)
    request = pb.BatchRecommendRequest(user_ids=USER_IDS[:-1] * 20, max_item_count=36, include_seen=True)
    stream = running.recommender.BatchRecommend(request, timeout=60)
    for _ in range(3):
        next(stream)
    before = -1
    while before != len(done):  # until it stands still
        before = len(done)
        time.sleep(0.3)
    assert 3 <= len(done) < 200 < len(request.user_ids)  # sockets and HTTP/2 hold some megabytes
    stream.cancel()
    time.sleep(0.3)
    assert len(done) < 200


def test_given_candidates_are_ranked(running: Running, bundle: Bundle) -> None:
    def ranked(user_id: str = "", **fields: Any) -> pb.RankItemsResponse:
        return running.recommender.RankItems(pb.RankItemsRequest(user_id=user_id, **fields), timeout=20)

    own = ITEM_IDS[bundle.history.items(3)[0]]
    candidates = ["i30", "gone", own, "i07", "i02"]
    response = ranked("u03", item_ids=candidates, include_feature_values=True, request_id="x")
    assert sorted(item.item_id for item in response.items) == sorted({"i30", own, "i07", "i02"})
    assert list(response.unknown_item_ids) == ["gone"] and response.request_id == "x"
    assert stages(response) == ["events", "features", "rerank"] and reasons(response) == []
    assert [value.name for value in response.items[0].feature_values] == list(FEATURES)
    shuffled = ranked("u03", item_ids=candidates[::-1])
    assert pairs(shuffled.items) == pairs(response.items)
    # All the candidates of a request, given by the caller, come in the order of the request.
    found = running.recommend("u03", max_item_count=12, include_feature_values=True)
    whole = [item.item_id for item in found.items if item.feature_values]
    features = Recommender(bundle).recommend("u03", 40, with_features=True).items
    given = [item.item_id for item in features if item.features]
    assert [i.item_id for i in ranked("u03", item_ids=given[::-1]).items][: len(whole)] == whole
    popular = ranked("nobody", item_ids=candidates)
    order = [item for item in bundle.features.popular.tolist() if ITEM_IDS[item] in candidates]
    assert [item.item_id for item in popular.items] == [ITEM_IDS[item] for item in order]
    assert popular.fallback == pb.FALLBACK_POPULAR and stages(popular) == ["events", "popular"]
    assert reasons(ranked("u03", item_ids=["i01"], recent_item_ids=["lost"])) == ["UNKNOWN_RECENT_ITEMS"]
    assert not ranked("u03", item_ids=["gone"]).items
    assert failure(ranked, "u03", item_ids=["i01"] * 2)[0] == INVALID
    assert failure(ranked, "", item_ids=["i01"]) == (INVALID, "user_id must not be empty")


def upsert(item_id: str, **columns: Any) -> item_pb2.Item:
    attributes = [
        item_pb2.ItemAttribute(name=name, numbers=[value])
        if isinstance(value, float)
        else item_pb2.ItemAttribute(name=name, values=[value] if isinstance(value, str) else value)
        for name, value in columns.items()
    ]
    return item_pb2.Item(item_id=item_id, attributes=attributes)


def test_the_catalogue_changes(running: Running) -> None:
    def get(item_id: str) -> pb.GetItemResponse:
        return running.recommender.GetItem(pb.GetItemRequest(item_id=item_id), timeout=20)

    def shown(**fields: Any) -> dict[str, float]:
        return dict(pairs(running.recommend("u03", max_item_count=100, include_seen=True, **fields).items))

    response = running.catalog.UpsertItems(
        catalog_pb2.UpsertItemsRequest(
            items=[
                upsert("n1", title="new", genres=["x", "odd"], price=4.0, colour="red"),
                upsert("i03", title="renamed", genres=["only"]),
            ]
        ),
        timeout=20,
    )
    assert response.catalog_revision == 1
    assert sorted(response.unknown_attributes) == ["colour", "genres=odd", "genres=only"]
    assert failure(get, "n1")[0] == grpc.StatusCode.NOT_FOUND and running.recommend("u03").catalog_revision == 0
    running.take()
    assert "n1" in shown() and running.recommend("u03").catalog_revision == 1
    found = get("n1")
    assert (found.title, found.available, found.added, found.catalog_revision) == ("new", True, True, 1)
    assert found.item == upsert("n1", title="new", price=4.0, genres=["x", "odd"])
    assert (get("i03").title, get("i03").added) == ("renamed", False)
    only = pb.ItemFilter(predicates=[pb.AttributePredicate(column="genres", values=["only", "odd"])])
    assert shown(filter=only).keys() == {"i03", "n1"}
    similar = running.recommender.SimilarItems(pb.SimilarItemsRequest(item_id="i03", filter=only), timeout=20)
    assert [item.item_id for item in similar.items] == ["n1"] and similar.catalog_revision == 1
    assert "n1" not in shown(context=pb.Context(item_ids=["n1"]))
    hide = catalog_pb2.SetAvailabilityRequest(item_ids=["n1", "i04", "nobody"], available=False)
    assert running.catalog.SetAvailability(hide, timeout=20).catalog_revision == 2
    remove = catalog_pb2.RemoveItemsRequest(item_ids=["i05", "i03"])
    assert running.catalog.RemoveItems(remove, timeout=20).catalog_revision == 3
    running.take()
    assert not {"n1", "i03", "i04", "i05"} & shown().keys() and len(shown()) == 37
    assert [get(item_id).available for item_id in ("n1", "i03", "i04", "i05", "i06")] == [False] * 4 + [True]
    similar = running.recommender.SimilarItems(pb.SimilarItemsRequest(item_id="i06", max_item_count=100), timeout=20)
    assert {"n1", "i03"}.isdisjoint(item.item_id for item in similar.items) and len(similar.items) == 36
    running.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[upsert("i05", title="back")]), timeout=20)
    hide.available = True
    running.catalog.SetAvailability(hide, timeout=20)
    running.catalog.RemoveItems(catalog_pb2.RemoveItemsRequest(item_ids=["n1"]), timeout=20)
    running.take()
    assert {"i04", "i05"} <= shown().keys() and not {"n1", "i03"} & shown().keys() and get("i05").title == "back"
    assert failure(get, "n1")[0] == grpc.StatusCode.NOT_FOUND
    again = ServingState(running.store)  # as after a restart
    again.serve(Recommender(running.bundle))
    assert again.current.recommender.recommend("u03", 50) == running.state.current.recommender.recommend("u03", 50)


def test_wrong_changes_are_refused_and_nothing_of_them_is_stored(running: Running, bundle: Bundle) -> None:
    upserts, removes = running.catalog.UpsertItems, running.catalog.RemoveItems
    for items, message in (
        ([], "items must be 1..500, got 0"),
        ([upsert(f"n{n}", title="x") for n in range(501)], "items must be 1..500, got 501"),
        ([upsert("n1", genres=["x"])] * 2, "items.item_id must not repeat, got items.item_id[1] twice: 'n1'"),
        ([upsert("n1", genres=["x"]), upsert("n2", price="dear")], "items[1].attributes['price'] must have one number"),
        ([upsert("n1", genres=["x"]), upsert("n2", colour="red")], "items[1] must have a text or an attribute value"),
    ):
        code, message_text = failure(upserts, catalog_pb2.UpsertItemsRequest(items=items), timeout=20)
        assert code == INVALID and message_text.startswith(message)
    assert failure(removes, catalog_pb2.RemoveItemsRequest(), timeout=20) == (INVALID, "item_ids must not be empty")
    assert running.store.revision == 0
    running.store.down = True
    code, message_text = failure(removes, catalog_pb2.RemoveItemsRequest(item_ids=["i01"]), timeout=20)
    assert code == grpc.StatusCode.UNAVAILABLE and message_text.startswith("the state store does not answer")
    alone = start_server()
    alone.ready(Recommender(bundle))
    with grpc.insecure_channel(alone.address) as channel:
        stub = catalog_pb2_grpc.CatalogServiceStub(channel)
        code, message_text = failure(stub.RemoveItems, catalog_pb2.RemoveItemsRequest(item_ids=["i01"]), timeout=20)
    alone.stop(0)
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "need a state store" in message_text


def test_limits_are_said_in_full(running: Running) -> None:
    many = {"context": pb.Context(item_ids=["i01"] * 100_000)}
    assert failure(running.recommend, "u03", **many) == (INVALID, "context.item_ids must be at most 100, got 100000")
    for k in (-1, 501, 2**31 - 1):
        assert failure(running.recommend, "u03", max_item_count=k) == (
            INVALID,
            f"max_item_count must be 0..500, got {k}",
        )
    assert failure(running.recommend, "u03", request_id="é")[0] == INVALID
    ranked = pb.RankItemsRequest(user_id="u03", item_ids=[f"i{n}" for n in range(501)])
    assert failure(running.recommender.RankItems, ranked, timeout=20) == (
        INVALID,
        "item_ids must be at most 500, got 501",
    )
    assert failure(running.recommender.GetItem, pb.GetItemRequest(), timeout=20) == (
        INVALID,
        "item_id must not be empty",
    )


def test_a_bundle_of_an_older_reckg_answers_without_events(bundle: Bundle) -> None:
    old = replace(bundle, inductive=None)
    running = Running(old)
    running.store.record_events([event(1, "i30")])
    assert reasons(running.recommend("u03")) == ["NO_EVENTS"] and reasons(running.recommend("u04")) == []
    changed = catalog_pb2.UpsertItemsRequest(items=[upsert("i01", title="x")])
    assert running.catalog.UpsertItems(changed, timeout=20).catalog_revision == 1
    changed = catalog_pb2.UpsertItemsRequest(items=[upsert("n1", title="x")])
    assert failure(running.catalog.UpsertItems, changed, timeout=20)[0] == grpc.StatusCode.FAILED_PRECONDITION
    running.stop()


def test_snapshots_are_swapped_under_requests(running: Running) -> None:
    """Changes go on while requests are answered: none fails, and each is of one revision."""
    stop = threading.Event()
    failures: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                response = running.recommend("u03", max_item_count=100, include_seen=True)
                there = {item.item_id for item in response.items}
                if ("n1" in there) != (response.catalog_revision % 2 == 1):
                    failures.append(f"revision {response.catalog_revision}: {'n1' in there}")
            except grpc.RpcError as error:
                failures.append(str(error.code()))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for _ in range(8):
        running.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[upsert("n1", genres=["x"])]), timeout=20)
        running.take()
        running.catalog.RemoveItems(catalog_pb2.RemoveItemsRequest(item_ids=["n1"]), timeout=20)
        running.take()
    stop.set()
    for thread in asking:
        thread.join()
    assert failures == []
