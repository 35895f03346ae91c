"""Admission: a call is let in if its turn comes soon. Any other call is rejected before it costs a thread.

Calls of the same kind share a `Lane`. A call in a lane first receives its message. A slow client may take any time for
that, and holds no turn meanwhile. Then the call waits for a turn, and then it is worked on. The expected wait follows
from the calls ahead and the moving mean of the time that each call took.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from serving.calls.call import Call

FIRST_MEAN_S = 0.005  # mean time of a call before any was measured
NEW_SHARE = 0.05  # weight of the newest call in the moving mean
STEEPEST = 4.0  # one call counts for at most this many means, so that one hiccup does not close the lane
SLOW_S = 0.05  # a call without a message for so long does not count as ahead of others
RECEIVE_S = 5.0  # a call without a message for so long is cancelled when another call comes
IDLE_S = 30.0  # in a full lane, a stream that its client keeps waiting for so long is cancelled


class Turns:
    """At most n turns at once, first come, first served.

    A semaphore gives its turns to the thread that wakes first. With a semaphore, one call in a hundred waits several
    times as long.
    """

    def __init__(self, n: int) -> None:
        self._lock = threading.Lock()
        self._free, self._numbers = n, itertools.count()
        self._waiting: list[tuple[float, int, threading.Lock]] = []  # a heap; each waiting call holds its lock

    @contextmanager
    def one(self, since: float) -> Iterator[None]:
        """Takes a turn, and gives it back at the end of the block.

        Args:
            since: calls with an earlier time go first.
        """
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
    """A lane for calls of the same kind. One thread calls ``admit``; any thread calls the other methods.

    Args:
        name: prefix of the threads' names.
        workers: number of calls, or of a stream's messages, that are worked on at once.
        places: largest number of calls in the lane; each has a thread of its own.
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
        self._slow: dict[Call, float] = {}  # without a message for SLOW_S
        self._ready: dict[Call, float] = {}
        self._mean_s = FIRST_MEAN_S

    @property
    def in_flight(self) -> int:
        """The number of calls in the lane."""
        return len(self._receiving) + len(self._slow) + len(self._ready)

    def expected_wait_s(self) -> float:
        """Estimates how many seconds a call that comes now would wait for its turn."""
        ahead = len(self._receiving) + len(self._ready)
        return max(0, ahead - self.workers + 1) * self._mean_s / self.workers

    def admit(self, call: Call) -> float | None:
        """Lets a call in or rejects it.

        Args:
            call: a call that has just arrived.

        Returns:
            None for a call that is let in, else the seconds after which the client may try again.
        """
        now = self.clock()
        with self._lock:
            given_up = self._put_slow_aside(now)
            wait_s = self.expected_wait_s()
            admitted = wait_s <= self.max_wait_s and self.in_flight < self.places
            if admitted:
                self._receiving[call] = now
            else:
                given_up += [each for each in self._ready if _is_older(each.idle_since, now, IDLE_S)]
        for each in given_up:
            each.cancel()
        return None if admitted else max(wait_s, self._mean_s)

    def received(self, call: Call) -> None:
        """Notes that the call's message has come: from now on it waits for its turn."""
        with self._lock:
            if self._receiving.pop(call, None) is None:
                self._slow.pop(call, None)
            self._ready[call] = self.clock()

    @contextmanager
    def turn(self, call: Call) -> Iterator[None]:
        """Waits for a turn and holds it through the block; a stream lines up anew for every message."""
        with self._turns.one(call.arrived if call.began is None else self.clock()):
            call.began = call.began or self.clock()
            yield

    def leave(self, call: Call, seconds: float | None = None) -> None:
        """Takes a call that ended out of the lane.

        Args:
            call: the call.
            seconds: how long it was worked on; None if that predicts no other call.
        """
        with self._lock:
            for place in (self._receiving, self._slow, self._ready):
                place.pop(call, None)
            if seconds is not None:
                self._mean_s += NEW_SHARE * (min(seconds, STEEPEST * self._mean_s) - self._mean_s)

    def _put_slow_aside(self, now: float) -> list[Call]:
        """Puts calls aside that receive slowly, and returns the calls that took longer than RECEIVE_S."""
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


def _is_older(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since > seconds
