"""control: calls in both directions over one socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from reckg.errors import ArtifactError
from serving.processes.channel import CallError, Channel, ChannelClosedError

never = threading.Event()


def answer(what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if what == "double":
        return {"n": 2 * arguments["n"]}
    if what == "never":
        never.wait(20)
    if what == "refuse":
        raise CallError("ABORTED", "busy")
    if what == "damaged":
        raise ArtifactError("users.parquet is missing")
    if what == "fault":
        raise KeyError("n")
    return {}


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    sockets = socket.socketpair()
    channels = Channel(sockets[0], answer), Channel(sockets[1], answer)
    threads = [threading.Thread(target=channel.serve) for channel in channels]
    for thread in threads:
        thread.start()
    yield channels
    never.set()
    for each in sockets:
        if each.fileno() >= 0:
            each.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    never.clear()


def test_both_ends_call_each_other_many_times_at_once(ends: tuple[Channel, Channel]) -> None:
    found: dict[tuple[int, int], int] = {}

    def call(end: int, n: int) -> None:
        found[end, n] = ends[end].call("double", 20, n=n)["n"]

    threads = [threading.Thread(target=call, args=(end, n)) for end in (0, 1) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {(end, n): 2 * n for end in (0, 1) for n in range(40)}


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("refuse", "ABORTED", "busy"),
        ("damaged", "FAILED_PRECONDITION", "users.parquet is missing"),
        ("fault", "INTERNAL", "KeyError: 'n'"),
    ],
)
def test_what_the_other_end_raises_is_told(ends: tuple[Channel, Channel], what: str, code: str, message: str) -> None:
    with pytest.raises(CallError) as raised:
        ends[0].call(what, 20)
    assert (raised.value.code, str(raised.value)) == (code, message)
    assert ends[0].call("double", 20, n=4) == {"n": 8}


def test_a_call_waits_only_so_long_and_others_pass_it(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(ChannelClosedError, match=r"no answer to 'never' within 0\.05 s"):
        ends[0].call("never", 0.05)
    assert ends[0].call("double", 20, n=4) == {"n": 8}


def test_an_end_that_is_gone_fails_the_calls_that_wait_and_later_ones(ends: tuple[Channel, Channel]) -> None:
    timer = threading.Timer(0.2, lambda: ends[1]._socket.shutdown(socket.SHUT_RDWR))
    timer.start()
    with pytest.raises(ChannelClosedError, match="the other end is gone"):
        ends[0].call("never", 20)
    with pytest.raises(ChannelClosedError, match="gone"):
        ends[0].call("double", 20, n=1)
    timer.join()
