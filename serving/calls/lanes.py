"""Admission: a call is let in only where its turn comes soon; otherwise it is rejected before it costs a thread.

Calls of one kind share a `Lane`. A call in a lane first receives its message, which may take a slow client any time and
holds no turn; then it waits for a turn; then it is worked on. The expected wait is counted from the calls ahead and
the moving mean of the time that each took.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from reckg.recommend.deadline import Stages
from serving.calls.status import RefusedError

FIRST_MEAN_S = 0.005  # of the time that a call takes, before any was measured
NEW_SHARE = 0.05  # of the newest call in the moving mean
STEEPEST = 4.0  # means that one call counts for at most, so that one hiccup does not close the lane
SLOW_S = 0.05  # a call that received no message for so long does not count as ahead of others
RECEIVE_S = 5.0  # and after so long it is cancelled when another comes
IDLE_S = 30.0  # where a lane is full, a stream that its client keeps waiting for so long is cancelled


CALL: contextvars.ContextVar[Call] = contextvars.ContextVar("call")  # that the present thread works on

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class Told:
    """What the method tells of a call, for metrics and traces; nothing of who asked for what.

    stages: of each answer. degraded: reasons, of each answer.
    """

    request_id: str = ""
    bundle_version: str = ""
    stages: list[Stages] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    best_score: float | None = None


class Call:
    """One call on its way. ``principal``: "" where nobody is asked; None until a certificate was looked at.

    ``refused``: why it was refused before any work; empty where it was not.
    """

    __slots__ = (
        "arrived",
        "began",
        "context",
        "idle_since",
        "metadata",
        "method",
        "principal",
        "refused",
        "told",
        "worked_s",
    )

    def __init__(self, method: str, arrived: float, metadata: Metadata = ()) -> None:
        self.method, self.arrived, self.metadata = method, arrived, metadata
        self.told = Told()
        self.refused = ""
        self.principal: str | None = None
        self.context: grpc.ServicerContext | None = None
        self.began: float | None = None  # when its turn came
        self.worked_s: float | None = None  # how long it had its turn, where that tells something of others
        self.idle_since: float | None = None  # a stream: since when its client keeps it waiting

    def refuse(self, error: RefusedError) -> None:
        """Remembers why the call is refused."""
        self.refused = error.reason

    def cancel(self) -> None:
        if self.context is not None:
            self.context.cancel()


class Turns:
    """At most so many at once, and who came first goes first: a semaphore's turns go to the thread that is awake first.

    With that one call in a hundred waits several times as long.
    """

    def __init__(self, n: int) -> None:
        self._lock = threading.Lock()
        self._free, self._numbers = n, itertools.count()
        self._waiting: list[tuple[float, int, threading.Lock]] = []  # a heap; who waits holds on to the lock

    @contextmanager
    def one(self, since: float) -> Iterator[None]:
        """Waits behind all that came before ``since``."""
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            if waits := self._free == 0:
                heapq.heappush(self._waiting, (since, next(self._numbers), gate))
            else:
                self._free -= 1
        if waits:
            gate.acquire()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    heapq.heappop(self._waiting)[2].release()
                else:
                    self._free += 1


class Lane:
    """Calls of one kind. ``admit`` is called by one thread, everything else by any.

    Args:
        workers: calls, or messages of streams, that are worked on at once.
        places: calls in the lane at most, each with a thread of its own.
        max_wait_s: a call with a longer expected wait is rejected.
        initializer: called in every thread before its first call.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        workers: int,
        places: int,
        max_wait_s: float = float("inf"),
        *,
        initializer: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.workers, self.places, self.max_wait_s, self.clock = name, workers, places, max_wait_s, clock
        self.pool = ThreadPoolExecutor(places, thread_name_prefix=name, initializer=initializer)
        self._turns = Turns(workers)
        self._lock = threading.Lock()
        self._receiving: dict[Call, float] = {}  # in the order of arrival
        self._slow: dict[Call, float] = {}  # received nothing for SLOW_S
        self._ready: dict[Call, float] = {}
        self._mean_s = FIRST_MEAN_S

    @property
    def in_flight(self) -> int:
        """Calls in the lane."""
        return len(self._receiving) + len(self._slow) + len(self._ready)

    def expected_wait_s(self) -> float:
        """How long a call that comes now would wait for its turn."""
        ahead = len(self._receiving) + len(self._ready)
        return max(0, ahead - self.workers + 1) * self._mean_s / self.workers

    def admit(self, call: Call) -> float | None:
        """Lets a call in: None. Or rejects it: the seconds after which it may be tried again."""
        now = self.clock()
        with self._lock:
            given_up = self._sort_out(now)
            wait_s = self.expected_wait_s()
            admitted = wait_s <= self.max_wait_s and self.in_flight < self.places
            if admitted:
                self._receiving[call] = now
            else:
                given_up += [each for each in self._ready if _older(each.idle_since, now, IDLE_S)]
        for each in given_up:
            each.cancel()
        return None if admitted else max(wait_s, self._mean_s)

    def received(self, call: Call) -> None:
        """The call's message is there: it waits for its turn."""
        with self._lock:
            if self._receiving.pop(call, None) is None:
                self._slow.pop(call, None)
            self._ready[call] = self.clock()

    @contextmanager
    def turn(self, call: Call) -> Iterator[None]:
        """Waits until fewer than ``workers`` others are worked on; a stream lines up anew for every message."""
        with self._turns.one(call.arrived if call.began is None else self.clock()):
            call.began = call.began or self.clock()
            yield

    def leave(self, call: Call, seconds: float | None = None) -> None:
        """The call is over; ``seconds``: how long it was worked on, None where that says nothing of others."""
        with self._lock:
            for place in (self._receiving, self._slow, self._ready):
                place.pop(call, None)
            if seconds is not None:
                self._mean_s += NEW_SHARE * (min(seconds, STEEPEST * self._mean_s) - self._mean_s)

    def _sort_out(self, now: float) -> list[Call]:
        """Puts those aside that receive slowly; returns those that took too long."""
        while self._receiving:
            first, since = next(iter(self._receiving.items()))
            if now - since <= SLOW_S:
                break
            self._slow[first] = self._receiving.pop(first)
        given_up = []
        for call, since in self._slow.items():
            if now - since <= RECEIVE_S:
                break
            given_up.append(call)
        return given_up


def _older(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since > seconds


class _AtOnce(ThreadPoolExecutor):
    """Runs what it is given in the calling thread: nothing that waits, as a rejection."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments, **named))
        return done


_AT_ONCE = _AtOnce(1)


def rejection(error: RefusedError) -> grpc.RpcMethodHandler:
    """A handler that ends a call without receiving its message, in the thread that looked for a handler.

    gRPC runs a behaviour in the pool of its attribute ``experimental_thread_pool``. As one that takes a stream, it is
    called before any message is there.
    """

    def reject(_messages: object, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(push_back(error.retry_after_s, context.time_remaining()))
        context.abort(error.code, str(error))

    reject.experimental_thread_pool = _AT_ONCE  # type: ignore[attr-defined]
    return grpc.stream_unary_rpc_method_handler(reject)


def push_back(seconds: float | None, left_s: float | None) -> tuple[tuple[str, str], ...]:
    """The trailing metadata that says when to try again (gRFC A6); -1: not at all, as after the deadline."""
    hopeless = seconds is None or (left_s is not None and seconds >= left_s)
    return (("grpc-retry-pushback-ms", "-1" if hopeless else str(max(1, round((seconds or 0) * 1000)))),)
