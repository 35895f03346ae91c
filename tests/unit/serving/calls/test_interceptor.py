"""The interceptor, called as gRPC calls it: the lane of a method, and calls that are rejected early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from serving.access.tokens import create_token
from serving.calls.call import CALL, Call
from serving.calls.connections import server_options
from serving.calls.interceptor import MOST_REQUESTS, Interceptor
from serving.settings import LimitSettings, ServerSettings

SERVICE = "/reckg.v1.RecommenderService/"


class Details(NamedTuple):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def unary(details: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(lambda request, context: request, bytes, bytes)


def stream(details: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request]), bytes, bytes)


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def interceptor(ended: list[tuple[Call, grpc.StatusCode]] | None = None, **settings: Any) -> Interceptor:
    parsed = ServerSettings(**({"bundle": Path()} | settings))
    calls = [] if ended is None else ended
    return Interceptor(parsed, observe=lambda call, code: calls.append((call, code)), clock=Clock())


@pytest.mark.parametrize(
    ("method", "find", "lane"),
    [
        (SERVICE + "Recommend", unary, "request"),
        (SERVICE + "BatchRecommend", stream, "stream"),
        ("/reckg.v1.EventService/RecordEvents", unary, "request"),
        ("/reckg.v1.AdminService/LoadBundle", unary, "admin"),
        ("/grpc.health.v1.Health/Check", unary, "other"),
        ("/grpc.health.v1.Health/Watch", stream, "other"),
    ],
)
def test_every_kind_of_method_has_its_lane(method: str, find: Callable[[Any], Any], lane: str) -> None:
    door = interceptor()
    handler = door.intercept_service(find, Details(method))  # type: ignore[arg-type]
    assert handler is not None
    assert handler.request_streaming and handler.response_streaming == (find is stream)
    assert {each.name: each.in_flight for each in door.lanes if each.in_flight} == {lane: 1}
    behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
    pools = [each.pool for each in door.lanes if each.name == lane]
    assert [behaviour.experimental_thread_pool] == pools
    assert door.intercept_service(lambda details: None, Details(method)) is handler  # type: ignore[arg-type,return-value]


def test_an_unknown_method_is_left_to_grpc_and_remembered_nowhere() -> None:
    door = interceptor()
    assert door.intercept_service(lambda details: None, Details("/a/b")) is None  # type: ignore[arg-type]
    assert door._handlers == {}


def test_who_is_turned_away_takes_no_place_and_is_told_of(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    token = create_token(tokens, "shop", ["recommend"])
    ended: list[tuple[Call, grpc.StatusCode]] = []
    door = interceptor(ended, auth={"tokens": tokens}, limits={"requests_per_s": 2})

    def come(*metadata: tuple[str, str]) -> str | None:
        door.intercept_service(unary, Details(SERVICE + "Recommend", metadata))  # type: ignore[arg-type]
        return CALL.get().principal

    right = ("authorization", f"Bearer {token}")
    assert [come(), come(right), come(right), come(right)] == [None, "shop", "shop", "shop"]
    assert [(call.refused, code) for call, code in ended] == [
        ("unauthenticated", grpc.StatusCode.UNAUTHENTICATED),
        ("rate", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ]
    assert door.requests.in_flight == 2


def test_a_full_queue_is_told_of_and_other_lanes_stay_open() -> None:
    ended: list[tuple[Call, grpc.StatusCode]] = []
    door = interceptor(ended, threads=1, limits={"max_queue_ms": 12})
    for _ in range(10):
        door.intercept_service(unary, Details(SERVICE + "Recommend"))  # type: ignore[arg-type]
    assert door.requests.in_flight == 3  # one is worked on; two wait 5 ms each, before any was measured
    assert [call.refused for call, _ in ended] == ["queue"] * 7
    door.intercept_service(unary, Details("/grpc.health.v1.Health/Check"))  # type: ignore[arg-type]
    assert door.others.in_flight == 1


def test_places_are_bounded_whatever_the_wait() -> None:
    door = interceptor(limits={"max_queue_ms": 1e9, "max_streams": 3})
    for _ in range(MOST_REQUESTS + 5):
        door.intercept_service(unary, Details(SERVICE + "Recommend"))  # type: ignore[arg-type]
        door.intercept_service(stream, Details(SERVICE + "BatchRecommend"))  # type: ignore[arg-type]
    assert (door.requests.in_flight, door.streams.in_flight) == (MOST_REQUESTS, 3)


def test_the_largest_message_of_any_method_passes_grpcs_own_limit() -> None:
    options = dict(server_options(LimitSettings(max_request_bytes=5000, max_write_bytes=2000)))
    assert options["grpc.max_receive_message_length"] == 5000
    assert options["grpc.max_connection_age_ms"] == 300_000
