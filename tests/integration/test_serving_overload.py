"""More calls than a server can answer, callers that go away, and clients that stall: the others are served on."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proto.generate_stubs import ROOT
from reckg.errors import DeadlineError
from reckg.recommend.deadline import Deadline
from reckg.v1 import recommender_pb2 as pb
from tests.entered_server import BATCH, RECOMMEND, entered_server, raw, status
from tests.waiting import wait_until

MESSAGE = pb.RecommendRequest(user_id="u001").SerializeToString()
MANY_USERS = pb.BatchRecommendRequest(user_ids=[f"u{n}" for n in range(1000)]).SerializeToString()
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@contextmanager
def server_process(work_ms: float) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """The address of a server in a process of its own, and what asks it for the calls in its lanes."""
    command = [sys.executable, "-m", "tests.entered_server", "--work-ms", str(work_ms)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    asked, told = process.stdin, process.stdout

    def in_flight() -> list[int]:
        asked.write("\n")
        asked.flush()
        return json.loads(told.readline())

    try:
        yield told.readline().strip(), in_flight
    finally:
        process.kill()
        process.communicate()


def open_loop(address: str, rate: float, seconds: float) -> tuple[dict[grpc.StatusCode, list[float]], list[int], float]:
    """Calls at a fixed rate, answered or not.

    Returns:
        The seconds of the calls by status, the push-backs in milliseconds, and the 99th percentile of the seconds by
        which this machine woke the sender too late.
    """
    took: dict[grpc.StatusCode, list[float]] = defaultdict(list)
    pauses: list[int] = []
    late = []

    def ended(began: float, call: Any) -> None:
        took[call.code()].append(time.perf_counter() - began)
        if call.code() == EXHAUSTED:
            pauses.append(int(dict(call.trailing_metadata())["grpc-retry-pushback-ms"]))

    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(address, OPTIONS)) for _ in range(4)]
        methods = [raw(channel) for channel in channels]
        start = time.perf_counter()
        for number, method in zip(range(round(rate * seconds)), itertools.cycle(methods), strict=False):
            due = start + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            late.append(began - due)
            call = method.future(MESSAGE, timeout=5)  # type: ignore[attr-defined]
            call.add_done_callback(lambda call, began=began: ended(began, call))
        wait_until(lambda: sum(map(len, took.values())) == round(rate * seconds))
    return dict(took), pauses, float(np.quantile(late, 0.99))


def closed_loop(address: str, callers: int, seconds: float) -> float:
    """Answers a second to callers who each wait for the answer before they ask again."""
    end = time.perf_counter() + seconds
    answered = [0] * callers

    def caller(number: int) -> None:
        with grpc.insecure_channel(address, OPTIONS) as channel:
            while time.perf_counter() < end:
                raw(channel)(MESSAGE, timeout=20)
                answered[number] += 1

    callers_ = [threading.Thread(target=caller, args=(number,)) for number in range(callers)]
    for each in callers_:
        each.start()
    for each in callers_:
        each.join()
    return sum(answered) / seconds


def overload(work_ms: float, seconds: float) -> None:
    """Five times the calls that two threads answer."""
    with server_process(work_ms) as (address, in_flight):
        capacity = closed_loop(address, 3, max(2.0, seconds / 10))
        took, pauses, late_s = open_loop(address, 5 * capacity, seconds)
        capacity = min(capacity, closed_loop(address, 3, max(2.0, seconds / 10)))
        assert set(took) == {OK, EXHAUSTED}
        assert len(took[OK]) >= 0.9 * capacity * seconds
        assert len(pauses) == len(took[EXHAUSTED]) and all(1 <= pause <= 500 for pause in pauses)
        assert np.quantile(took[EXHAUSTED], 0.5) <= 0.010 + late_s
        assert np.quantile(took[OK], 0.9) <= 0.050 + 3 * work_ms / 1000 + late_s
        wait_until(lambda: in_flight() == [0, 0, 0, 0], timeout_s=2.0)
        took, _, _ = open_loop(address, capacity / 2, 1.0)
        assert len(took[OK]) >= 0.45 * capacity


def test_overload_is_rejected_at_once_and_the_rest_is_served() -> None:
    overload(work_ms=20.0, seconds=3.0)


@pytest.mark.long
def test_a_minute_of_overload() -> None:
    overload(work_ms=10.0, seconds=60.0)


def test_expired_and_cancelled_calls_start_no_stage_and_leave_nothing_behind() -> None:
    begun: list[tuple[str, float]] = []
    enough = threading.Event()

    def answer(request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        begun.append(("entered", 0.0))
        deadline = time.monotonic() + context.time_remaining()
        stages = Deadline(context.time_remaining(), wanted=context.is_active)
        try:
            for stage in ("fold_in", "retrieve", "features", "rerank"):
                stages.begin(stage)  # type: ignore[arg-type]
                begun.append((stage, deadline - time.monotonic()))
                enough.wait(0.05)
        except DeadlineError:
            begun.append(("ended", 0.0))
            raise
        return pb.RecommendResponse()

    settings: dict[str, Any] = {"threads": 1, "limits": {"max_queue_ms": 60_000}}
    with entered_server(answer, **settings) as server, grpc.insecure_channel(server.address, OPTIONS) as channel:
        method = raw(channel)
        expiring = [method.future(MESSAGE, timeout=0.12) for _ in range(8)]  # type: ignore[attr-defined]
        codes = {call.code() for call in expiring}
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
        wait_until(lambda: sum(server.in_flight) == 0)
        # one was worked on; the others expired before their turn came, and began nothing
        assert [stage for stage, _ in begun].count("entered") < 4
        assert "rerank" not in [stage for stage, _ in begun]
        assert all(left_s > 0 for stage, left_s in begun if stage not in ("entered", "ended"))
        begun.clear()
        cancelled = [method.future(MESSAGE, timeout=60) for _ in range(8)]  # type: ignore[attr-defined]
        wait_until(lambda: bool(begun))
        for call in cancelled:
            call.cancel()
        wait_until(lambda: sum(server.in_flight) == 0)
        assert [stage for stage, _ in begun].count("entered") < 4
        assert "rerank" not in [stage for stage, _ in begun]
        enough.set()
        assert status(lambda: method(MESSAGE, timeout=20))[0] == OK


def half_a_request(address: str) -> socket.socket:
    """A connection that opens a call of Recommend, and sends nothing of its message."""
    host, _, port = address.rpartition(":")
    opened = socket.create_connection((host, int(port)))
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": RECOMMEND,
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in pair) for pair in headers.items()
    )
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    frame = len(block).to_bytes(3, "big") + b"\x01\x04\x00\x00\x00\x01" + block  # HEADERS, END_HEADERS, stream 1
    opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + frame)
    return opened


def stall(address: str, clients: int, stack: ExitStack) -> list[Any]:
    """As many clients that open a connection and send nothing, half a request, or read no answer."""
    host, _, port = address.rpartition(":")
    unread = []
    for number in range(clients):
        if number % 3 == 0:
            stack.enter_context(socket.create_connection((host, int(port))))
        elif number % 3 == 1:
            stack.enter_context(half_a_request(address))
        else:
            channel = stack.enter_context(grpc.insecure_channel(address, OPTIONS))
            unread.append(channel.unary_stream(BATCH)(MANY_USERS, timeout=300))
    return unread


def median_and_tail(address: str, calls: int) -> tuple[float, float]:
    with grpc.insecure_channel(address, OPTIONS) as channel:
        took = []
        for _ in range(calls):
            began = time.perf_counter()
            raw(channel)(MESSAGE, timeout=20)
            took.append(time.perf_counter() - began)
    return float(np.median(took)), float(np.quantile(took, 0.99))


def test_two_hundred_stalled_clients_hold_nobody_up() -> None:
    with server_process(5.0) as (address, in_flight), ExitStack() as stack:
        before, _ = median_and_tail(address, 100)
        unread = stall(address, 200, stack)
        wait_until(lambda: in_flight()[1] == 64 and in_flight()[0] == 67)
        median_and_tail(address, 30)
        after, _ = median_and_tail(address, 100)
        assert after <= 1.2 * before + 0.002
        # those beyond the places were told so, and once the stalled ones are gone there is room again
        rejected = [call for call in unread if call.done() and call.code() == EXHAUSTED]
        assert len(unread) - len(rejected) <= 64
        for call in unread:
            call.cancel()
        wait_until(lambda: in_flight()[1] == 0)


@pytest.mark.long
def test_two_hundred_stalled_clients_leave_the_tail_as_it_was() -> None:
    """In turns without and with them; of each the quietest round, for the machine has other things to do."""
    with server_process(5.0) as (address, in_flight):
        tails: dict[bool, list[float]] = {False: [], True: []}
        median_and_tail(address, 500)
        for _ in range(5):
            tails[False].append(median_and_tail(address, 600)[1])
            with ExitStack() as stack:
                unread = stall(address, 200, stack)
                wait_until(lambda: in_flight()[1] == 64)
                median_and_tail(address, 300)  # until their connections are made
                tails[True].append(median_and_tail(address, 600)[1])
                for call in unread:
                    call.cancel()
            wait_until(lambda: in_flight()[1] == 0)
        assert min(tails[True]) <= 1.2 * min(tails[False]), tails


def test_one_connection_may_call_for_as_long_as_it_wants() -> None:
    """gRPC refuses further calls of a connection of which too many were never let go."""
    with entered_server() as server, grpc.insecure_channel(server.address, OPTIONS) as channel:
        for _ in range(600):
            raw(channel)(MESSAGE, timeout=20)
        assert [code for _, code in server.ended] == [OK] * 600


def test_watchers_of_the_health_that_come_and_go_hold_nobody_up() -> None:
    with entered_server() as server, ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(server.address, OPTIONS)) for _ in range(4)]

        def come_and_go(channel: grpc.Channel) -> None:
            stub = health_pb2_grpc.HealthStub(channel)
            for _ in range(100):
                watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
                next(watch)
                watch.cancel()

        watchers = [threading.Thread(target=come_and_go, args=(channel,)) for channel in channels]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join()
        assert status(lambda: raw(channels[0])(MESSAGE, timeout=20))[0] == OK
        wait_until(lambda: sum(server.in_flight) == 0)
