"""A lane: who is let in, whose turn it is, and who is given up."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from serving.calls.call import Call
from serving.calls.lanes import FIRST_MEAN_S, IDLE_S, RECEIVE_S, SLOW_S, Lane
from tests.waiting import wait_until


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


class Context:
    """Of a call, as far as a lane asks it."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lane(clock: Clock, *, workers: int = 2, places: int = 100, max_wait_s: float = 0.05) -> Lane:
    return Lane("test", workers, places, max_wait_s, clock=clock)


def call() -> Any:
    made = Call("/m", 0.0)
    made.context = Context()  # type: ignore[assignment]
    return made


def enter(lane: Lane, number: int) -> list[Any]:
    calls = [call() for _ in range(number)]
    assert [lane.admit(each) for each in calls] == [None] * number
    return calls


def take(lane: Lane, seconds: float, times: int) -> None:
    """So many calls that took so long."""
    for _ in range(times):
        (one,) = enter(lane, 1)
        lane.received(one)
        lane.leave(one, seconds)


def test_a_free_worker_takes_a_call_however_long_calls_take(clock: Clock) -> None:
    two = lane(clock)
    take(two, 10.0, 200)
    first, _ = enter(two, 2)
    wait_s = two.admit(call())
    assert wait_s is not None and wait_s > 4.9  # the mean of 10 s over two workers
    two.leave(first, 10.0)
    enter(two, 1)


def test_the_queue_is_as_long_as_the_wait_allows(clock: Clock) -> None:
    two = lane(clock, max_wait_s=0.05)
    take(two, 0.020, 300)
    calls = []
    for _ in range(100):
        calls.append(call())
        if two.admit(calls[-1]) is not None:
            break
    # two are worked on, and five waits of 10 ms fit into 50 ms but for the rounding of the mean
    assert len(calls) - 1 in (6, 7)
    assert two.expected_wait_s() == pytest.approx(0.06, abs=0.011)


def test_what_was_never_measured_has_a_mean_too(clock: Clock) -> None:
    one = lane(clock, workers=1, max_wait_s=2.5 * FIRST_MEAN_S)
    enter(one, 3)
    assert one.admit(call()) == pytest.approx(3 * FIRST_MEAN_S)


def test_one_hiccup_does_not_close_the_lane(clock: Clock) -> None:
    one = lane(clock, workers=1)
    take(one, 0.001, 300)
    take(one, 60.0, 1)
    enter(one, 5)


def test_calls_that_tell_nothing_leave_the_mean_alone(clock: Clock) -> None:
    one = lane(clock, workers=1)
    (some,) = enter(one, 1)
    one.leave(some)
    enter(one, 1)
    assert one.expected_wait_s() == FIRST_MEAN_S


def test_a_call_that_receives_nothing_is_soon_not_counted_and_later_given_up(clock: Clock) -> None:
    one = lane(clock, workers=1, max_wait_s=0.0)
    (stalled,) = enter(one, 1)
    assert one.admit(call()) == FIRST_MEAN_S
    clock.now += SLOW_S + 0.001
    (other,) = enter(one, 1)
    assert one.in_flight == 2
    assert not stalled.context.cancelled
    clock.now += RECEIVE_S
    one.admit(call())
    assert stalled.context.cancelled
    one.received(stalled)  # its message came at last: it counts again
    one.leave(other)
    assert one.expected_wait_s() > 0
    one.leave(stalled)


def test_places_are_bounded_and_streams_that_nobody_reads_lose_theirs(clock: Clock) -> None:
    streams = lane(clock, workers=1, places=3, max_wait_s=float("inf"))
    read, unread, busy = enter(streams, 3)
    for each in (read, unread, busy):
        streams.received(each)
    unread.idle_since = clock.now
    clock.now += IDLE_S + 1
    read.idle_since = clock.now
    assert streams.admit(call()) is not None
    assert [each.context.cancelled for each in (read, unread, busy)] == [False, True, False]
    streams.leave(unread)
    enter(streams, 1)


def test_the_gauge_returns_to_zero_on_every_way_out(clock: Clock) -> None:
    two = lane(clock)
    never, slow, ready = enter(two, 3)
    two.received(ready)
    clock.now += SLOW_S + 1
    enter(two, 1)
    assert two.in_flight == 4
    for each in (never, slow, ready):
        two.leave(each)
        two.leave(each)
    assert two.in_flight == 1


def test_no_more_turns_than_workers(clock: Clock) -> None:
    two = lane(clock)
    inside = 0
    most = 0
    release = threading.Event()
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with two.turn(call()):
            with lock:
                inside += 1
                most = max(most, inside)
            release.wait(20)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: inside == 2)
    release.set()
    for thread in threads:
        thread.join()
    assert most == 2


def test_who_came_first_goes_first(clock: Clock) -> None:
    one = lane(clock, workers=1)
    order: list[float] = []
    threads = []

    def work(each: Call) -> None:
        with one.turn(each):
            order.append(each.arrived)

    with one.turn(call()):
        for number, arrived in enumerate([3.0, 1.0, 4.0, 2.0]):
            threads.append(threading.Thread(target=work, args=(Call("method", arrived),)))
            threads[-1].start()
            wait_until(lambda number=number: len(one._turns._waiting) == number + 1)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == [1.0, 2.0, 3.0, 4.0]


def test_a_stream_lines_up_behind_those_who_came_while_it_was_worked_on(clock: Clock) -> None:
    one = lane(clock, workers=1)
    stream, other, order = Call("stream", 1.0), Call("other", 2.0), []
    clock.now = 3.0

    def work(each: Call) -> None:
        with one.turn(each):
            order.append(each.method)

    work(stream)
    with one.turn(call()):
        threads = [threading.Thread(target=work, args=(each,)) for each in (stream, other)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda number=number: len(one._turns._waiting) == number + 1)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == ["stream", "other", "stream"]
