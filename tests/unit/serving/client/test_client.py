"""The shipped client: which connection a call takes, and which calls it repeats."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import grpc
import pytest

from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.client import RecommenderClient
from tests.waiting import wait_until


class Service(recommender_pb2_grpc.RecommenderServiceServicer):
    """Answers as a test says; counts the calls of each connection."""

    def __init__(self) -> None:
        self.behaves: Callable[[grpc.ServicerContext], None] = lambda context: None
        self.calls: Counter[str] = Counter()

    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        self.calls[context.peer()] += 1
        self.behaves(context)
        return pb.RecommendResponse()

    def BatchRecommend(
        self, request: pb.BatchRecommendRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.BatchRecommendResponse]:
        self.calls[context.peer()] += 1
        yield pb.BatchRecommendResponse()
        self.behaves(context)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(8))
    recommender_pb2_grpc.add_RecommenderServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def in_call(client: RecommenderClient) -> Any:
    return threading.Thread(target=client.recommend, args=("u",), kwargs={"timeout_s": 20})


def in_batch(client: RecommenderClient) -> Any:
    return threading.Thread(target=lambda: list(client.batch_recommend(["u"], timeout_s=20)))


def in_raw_call(client: RecommenderClient) -> Any:
    call = client.raw_call("/reckg.v1.RecommenderService/Recommend")
    return threading.Thread(target=lambda: call(b"", 20).result())


@pytest.mark.parametrize("way", [in_call, in_batch, in_raw_call])
def test_a_call_takes_the_connection_with_the_fewest_calls_under_way(service: Service, address: str, way: Any) -> None:
    with closing(RecommenderClient(address, timeout_s=20, channels=2)) as client:
        for _ in range(4):
            client.recommend("u")
        assert sorted(service.calls.values()) == [2, 2]  # in turn where nothing is under way
        service.calls.clear()
        going_on = threading.Event()
        service.behaves = lambda context: going_on.wait(20)  # type: ignore[assignment, return-value]
        slow = way(client)
        slow.start()
        wait_until(lambda: service.calls.total() == 1)
        (busy,) = service.calls
        service.behaves = lambda context: None
        for _ in range(4):
            client.recommend("u")
        assert service.calls.pop(busy) == 1
        assert list(service.calls.values()) == [4]
        going_on.set()
        slow.join()
        for _ in range(4):
            client.recommend("u")
        assert sorted(service.calls.values()) == [2, 6] and service.calls[busy] == 2


def rejects(push_back: str, times: int) -> Callable[[grpc.ServicerContext], None]:
    left = [times]

    def behave(context: grpc.ServicerContext) -> None:
        if left[0]:
            left[0] -= 1
            context.set_trailing_metadata((("grpc-retry-pushback-ms", push_back),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls are in flight")

    return behave


def test_a_rejected_call_is_repeated_when_the_server_says(service: Service, address: str) -> None:
    service.behaves = rejects("10", 2)
    with closing(RecommenderClient(address, timeout_s=20)) as client:
        client.recommend("u")
    assert service.calls.total() == 3


def test_a_call_that_the_server_does_not_want_again_is_not_repeated(service: Service, address: str) -> None:
    service.behaves = rejects("-1", 1)
    with closing(RecommenderClient(address, timeout_s=20)) as client:
        with pytest.raises(grpc.RpcError, match="too many calls are in flight"):
            client.recommend("u")
        assert service.calls.total() == 1


def test_where_most_calls_are_rejected_none_is_repeated(service: Service, address: str) -> None:
    service.behaves = rejects("1", 1000)
    with closing(RecommenderClient(address, timeout_s=20, channels=1)) as client:
        for _ in range(100):
            with pytest.raises(grpc.RpcError, match="too many calls are in flight"):
                client.recommend("u")
        calls = service.calls.total()
        with pytest.raises(grpc.RpcError):
            client.recommend("u")
        assert service.calls.total() == calls + 1
