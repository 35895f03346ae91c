"""Damaged messages to every method, values at their limits, and bytes that are no HTTP/2: refused and survived."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from reckg.recommend.recommender import Recommender
from reckg.v1 import recommender_pb2 as pb
from serving.catalog.snapshot import ServingState
from serving.processes.channel import CallError
from serving.settings import ServerSettings, StoreSettings
from serving.store.open_store import open_store
from serving.worker.server import RunningServer, start_server
from tests import small_world
from tests.entered_server import RECOMMEND

CODES = grpc.StatusCode
ALLOWED = {
    CODES.OK,
    CODES.INVALID_ARGUMENT,
    CODES.NOT_FOUND,
    CODES.RESOURCE_EXHAUSTED,
    CODES.FAILED_PRECONDITION,
    CODES.DEADLINE_EXCEEDED,
    CODES.UNAVAILABLE,
    CODES.ABORTED,
    CODES.UNIMPLEMENTED,  # Health.List, which grpc_health does not serve
}
MESSAGES = 3000
LONG_MESSAGES = 100_000
TEXTS = ("", "u01", "i01", "i02", "i38", "nothing", "\x00", "é" * 40, "x" * 300, "\U0001f600")
NAMES = ("title", "price", "genres", "city", "age", "x", "Rome")  # columns and values of the world's tables
DOUBLES = (0.0, -1.0, 0.5, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324)
INTEGERS = (0, 1, -1, 10, 500, 501, 2**31 - 1, -(2**31))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Iterator[RunningServer]:
    """Every service, as a worker has them; the supervisor that AdminService asks knows nothing."""

    def ask(*arguments: Any, **named: Any) -> dict[str, Any]:
        raise CallError("FAILED_PRECONDITION", "a single bundle is served")

    folder = tmp_path_factory.mktemp("fuzz")
    store = open_store(StoreSettings(path=folder / "state.db"), folder)
    settings = ServerSettings(bundle=folder, port=0, reflection=True, limits={"max_queue_ms": 10_000})  # type: ignore[arg-type]
    running = start_server(settings, state=ServingState(store), call_supervisor=ask)
    world = small_world.world(folder, encoder=encoder, linear=True, attention="transr", user_ids=False)
    running.ready(Recommender(small_world.bundle(world)))
    yield running
    running.stop(0)


@pytest.fixture
def channel(running: RunningServer) -> Iterator[grpc.Channel]:
    options = [("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(running.address, options) as channel:
        yield channel


def methods(running: RunningServer) -> list[MethodDescriptor]:
    """Every method that the server has a handler for."""
    pool = descriptor_pool.Default()
    found = []
    for service in (*running.services, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"):
        found += pool.FindServiceByName(service).methods
    registered = set(running.server._state.registered_method_handlers)  # type: ignore[attr-defined]
    assert {path_of(method) for method in found} == registered
    return found


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def random_message(kind: type[Message], rng: random.Random, depth: int = 0) -> Message:
    """A message with some of its fields, of values at the limits of their types."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if rng.random() < 0.4 or (depth > 4 and field.message_type is not None):
            continue
        count = rng.choice((1, 1, 2, 5)) if field.is_repeated else 1
        for _ in range(count):
            put(message, field, rng, depth)
    return message


def put(message: Message, field: FieldDescriptor, rng: random.Random, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    if field.message_type is not None:
        inner = random_message(message_factory.GetMessageClass(field.message_type), rng, depth + 1)
        target = getattr(message, field.name)
        (target.add() if field.is_repeated else target).CopyFrom(inner)
        return
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        value: Any = rng.choice(DOUBLES if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else DOUBLES[:6])
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        value = rng.random() < 0.5
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        value = rng.choice(TEXTS + NAMES)
        value = value.encode() if field.type == FieldDescriptor.TYPE_BYTES else value
    else:
        value = rng.choice(INTEGERS)
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The bytes with one of the usual damages: bits turned, cut off, spliced, repeated, replaced by noise; or whole."""
    damage = rng.randrange(7)
    if damage == 0 or not data:
        return data
    some = bytearray(data)
    place = rng.randrange(len(some))
    if damage == 1:
        for _ in range(rng.randint(1, 8)):
            some[rng.randrange(len(some))] ^= 1 << rng.randrange(8)
    elif damage == 2:
        del some[place:]
    elif damage == 3:
        some[place:] = other[rng.randrange(len(other) + 1) :]
    elif damage == 4:
        some[place:place] = some[: rng.randrange(len(some) + 1)] * rng.randint(1, 20)
    elif damage == 5:
        some[place:place] = rng.randbytes(rng.randint(1, 40))
    else:
        some = bytearray(rng.randbytes(rng.randint(0, 200)))
    return bytes(some)


def send(channel: grpc.Channel, method: MethodDescriptor, message: bytes) -> Any:
    """Starts a call; its code can be asked for."""
    path = path_of(method)
    if method.client_streaming:
        return channel.stream_stream(path)(iter([message]), timeout=30)
    if method.server_streaming:
        return channel.unary_stream(path)(message, timeout=2.0 if method.name == "Watch" else 30)
    return channel.unary_unary(path).future(message, timeout=30)


def code_of(method: MethodDescriptor, call: Any) -> grpc.StatusCode:
    if method.server_streaming:
        try:
            for number, _ in enumerate(call):
                if method.name == "Watch" or number >= 20:
                    call.cancel()
                    return CODES.OK
        except grpc.RpcError:
            pass
    return call.code()


def fuzz(running: RunningServer, channel: grpc.Channel, number: int, seed: int) -> Counter[grpc.StatusCode]:
    rng = random.Random(seed)
    every = methods(running)
    codes: Counter[grpc.StatusCode] = Counter()
    sent: list[tuple[MethodDescriptor, bytes, Any]] = []

    def collect() -> None:
        for method, message, call in sent:
            code = code_of(method, call)
            assert code in ALLOWED, f"{path_of(method)} ended with {code}: {call.details()} for {message!r}"
            codes[code] += 1
        sent.clear()

    for _ in range(number):
        method = rng.choice(every)
        kind = message_factory.GetMessageClass(method.input_type)
        one, other = (random_message(kind, rng).SerializeToString() for _ in range(2))
        message = mutated(one, other, rng)
        sent.append((method, message, send(channel, method, message)))
        if len(sent) == 16:
            collect()
    collect()
    return codes


def assert_serves(running: RunningServer, channel: grpc.Channel) -> None:
    answer = channel.unary_unary(RECOMMEND)(pb.RecommendRequest(user_id="u01").SerializeToString(), timeout=20)
    assert len(pb.RecommendResponse.FromString(answer).items) > 0
    assert [lane.in_flight for lane in running.interceptor.lanes] == [0, 0, 0, 0]


def test_damaged_messages_are_refused_and_survived(
    running: RunningServer, channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    codes = fuzz(running, channel, MESSAGES, seed=1)
    assert codes[CODES.OK] > MESSAGES // 100 and codes[CODES.INVALID_ARGUMENT] > MESSAGES // 10
    assert "Traceback" not in caplog.text and "failed: request" not in caplog.text
    assert_serves(running, channel)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_damaged_messages(running: RunningServer, channel: grpc.Channel, seed: int) -> None:
    fuzz(running, channel, LONG_MESSAGES // 10, seed=100 + seed)
    assert_serves(running, channel)


def test_every_method_says_that_a_damaged_message_is_the_callers_fault(
    running: RunningServer, channel: grpc.Channel
) -> None:
    for method in methods(running):
        call = send(channel, method, b"\xff\xff\xff")
        assert code_of(method, call) == CODES.INVALID_ARGUMENT, path_of(method)
        assert call.details() == "the message cannot be read: it is damaged or of another type"


def test_a_call_without_a_message_is_the_callers_fault(channel: grpc.Channel) -> None:
    call = channel.stream_unary(RECOMMEND)
    with pytest.raises(grpc.RpcError) as raised:
        call(iter([]), timeout=20)
    assert (raised.value.code(), raised.value.details()) == (CODES.INVALID_ARGUMENT, "the call brings no message")


K = (-1, 501, 5000, 2**31 - 1, -(2**31))
ODD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        *((pb.RecommendRequest(user_id="u01", max_item_count=k), {CODES.INVALID_ARGUMENT}) for k in K),
        (pb.RecommendRequest(user_id="u01", max_item_count=0), {CODES.OK}),
        (pb.RecommendRequest(user_id="\x00"), {CODES.OK, CODES.INVALID_ARGUMENT}),
        (pb.RecommendRequest(user_id="u01", context=pb.Context(item_ids=["i01"] * 101)), {CODES.INVALID_ARGUMENT}),
        (
            pb.RecommendRequest(user_id="u01", context=pb.Context(item_ids=["i01"] * 100_000)),
            {CODES.RESOURCE_EXHAUSTED, CODES.INVALID_ARGUMENT},
        ),
        (pb.RecommendRequest(user_id="u01", recent_item_ids=["i01"] * 501), {CODES.INVALID_ARGUMENT}),
        *(
            (
                pb.RecommendRequest(user_id="u01", attributes=[pb.UserAttribute(name="age", numbers=[odd])]),
                {CODES.OK, CODES.INVALID_ARGUMENT, CODES.FAILED_PRECONDITION},
            )
            for odd in ODD
        ),
        *(
            (
                pb.RecommendRequest(user_id="u01", diversity=pb.Diversity(strategy=2, weight=odd)),  # type: ignore[arg-type]
                {CODES.INVALID_ARGUMENT},
            )
            for odd in ODD
        ),
        *(
            (
                pb.RecommendRequest(
                    user_id="u01",
                    filter=pb.ItemFilter(
                        predicates=[pb.AttributePredicate(column="price", range=pb.NumberRange(at_least=odd))]
                    ),
                ),
                {CODES.OK, CODES.INVALID_ARGUMENT},
            )
            for odd in ODD
        ),
        (pb.RecommendRequest(user_id="u01", diversity=pb.Diversity(strategy=77)), {CODES.INVALID_ARGUMENT}),  # type: ignore[arg-type]
    ],
    ids=lambda value: str(value).replace("\n", " ")[:60] if isinstance(value, Message) else "",
)
def test_values_at_and_beyond_their_limits(
    channel: grpc.Channel, request_: pb.RecommendRequest, allowed: set[grpc.StatusCode]
) -> None:
    call = channel.unary_unary(RECOMMEND).future(request_.SerializeToString(), timeout=20)
    assert call.code() in allowed, call.details()


def test_candidates_that_are_all_unknown_are_named_and_nothing_is_ranked(channel: grpc.Channel) -> None:
    for user_id in ("u01", "u02", "nobody"):
        ranking = pb.RankItemsRequest(user_id=user_id, item_ids=["x", "y"], context=pb.Context(item_ids=["i01"]))
        method = channel.unary_unary("/reckg.v1.RecommenderService/RankItems")
        answer = pb.RankItemsResponse.FromString(method(ranking.SerializeToString(), timeout=20))
        assert (list(answer.items), list(answer.unknown_item_ids)) == ([], ["x", "y"])


def test_a_message_above_the_limit_is_refused_with_its_size(channel: grpc.Channel) -> None:
    call = channel.unary_unary(RECOMMEND).future(pb.RecommendRequest(user_id="u" * 70_000).SerializeToString())
    assert call.code() == CODES.RESOURCE_EXHAUSTED
    assert call.details() == "the message has 70004 bytes; at most 65536 are allowed"
    call = channel.unary_unary(RECOMMEND).future(b"x" * (5 * 1024 * 1024))
    assert call.code() == CODES.RESOURCE_EXHAUSTED


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def garbage(rng: random.Random) -> bytes:
    """Noise, another protocol, or HTTP/2 that breaks its rules."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = frame(4, 0, 0, b"")
    frames = b"".join(
        frame(
            rng.randrange(12), rng.randrange(256), rng.choice((0, 1, 2, 3, 2**31 - 1)), rng.randbytes(rng.randrange(60))
        )
        for _ in range(rng.randint(1, 6))
    )
    return rng.choice(
        (
            rng.randbytes(rng.randint(1, 2000)),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(400),  # as TLS begins
            preface,
            preface[: rng.randrange(len(preface))],
            preface + settings + frames,
            preface + settings + frame(1, 4, 1, rng.randbytes(rng.randint(1, 200))),
            preface + settings + frame(9, 0, 1, rng.randbytes(30)) * 50,
            preface + frame(4, 0, 0, rng.randbytes(6 * rng.randint(1, 50))),
            preface + settings + b"\xff\xff\xff" + rng.randbytes(500),
        )
    )


def test_bytes_that_are_no_http2_are_survived(running: RunningServer, channel: grpc.Channel) -> None:
    rng = random.Random(3)
    host, _, port = running.address.rpartition(":")
    opened = []
    for _ in range(300):
        connection = socket.create_connection((host, int(port)), timeout=20)
        connection.setblocking(True)
        with contextlib.suppress(OSError):  # the server closed it already
            connection.sendall(garbage(rng))
        opened.append(connection)
        if len(opened) > 40:
            opened.pop(rng.randrange(len(opened))).close()
    assert_serves(running, channel)
    for connection in opened:
        connection.close()
    assert_serves(running, channel)
