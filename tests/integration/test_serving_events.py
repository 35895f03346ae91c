"""Recorded events over gRPC: the next answer of any worker takes them into account, whatever was killed in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from reckg.bundle.bundle import Bundle
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.golden import save_with_golden
from reckg.recommend.recommender import Recommender
from reckg.recommend.requests import recommend_users
from reckg.recommend.wanted import Wanted
from reckg.v1 import recommender_pb2 as pb
from serving.catalog.snapshot import ServingState
from serving.client import RecommenderClient
from serving.settings import StoreSettings
from serving.store.open_store import open_store
from serving.store.sqlite import SqliteStore
from serving.worker.server import start_server
from tests import small_world
from tests.local_redis import LocalRedis

ROOT = Path(__file__).resolve().parents[2]
TIME = 1_700_000_000
SLOW = {"timeout_ms": 10_000, "write_timeout_ms": 10_000}  # machines of tests are busy
StartWorkers = Callable[[StoreSettings, str], list[RecommenderClient]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_world.bundle(small_world.world(tmp_path_factory.mktemp("world"), linear=True))


@pytest.fixture
def start_workers(bundle: Bundle, tmp_path: Path) -> Iterator[StartWorkers]:
    """Clients of two servers that have nothing in common but the store."""
    with ExitStack() as stack:

        def start(settings: StoreSettings, url: str = "") -> list[RecommenderClient]:
            clients = []
            for _ in range(2):
                store = open_store(settings, tmp_path, {"RECKG_REDIS_URL": url})
                assert store is not None
                stack.callback(store.close)
                running = start_server(state=ServingState(store))
                stack.callback(running.stop, 0)
                running.ready(Recommender(bundle))
                clients.append(stack.enter_context(RecommenderClient(running.address, timeout_s=30.0)))
            return clients

        yield start


def event(event_id: str, item_id: str, user_id: str = "u03", second: int = TIME) -> dict[str, object]:
    time = datetime.fromtimestamp(second, UTC)
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id, "time": time, "weight": 2.0}


def said(answer: pb.RecommendResponse) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in answer.items]


def offline(bundle: Bundle, user_id: str, items: list[str], times: list[int]) -> list[tuple[str, float]]:
    found = recommend_users(bundle, [UserRequest(user_id, items, recent_times=times)], Wanted(10)).found
    rows = zip(found.item_idx[0].tolist(), found.score[0].tolist(), strict=True)
    return [(bundle.item_ids.ids[item], score) for item, score in rows]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_next_answer_of_another_worker_takes_an_event_into_account(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path, start_workers: StartWorkers, kind: str
) -> None:
    url = request.getfixturevalue("redis_server").url if kind == "redis" else ""
    one, other = start_workers(StoreSettings(kind=kind, path=tmp_path / "state.db", namespace="events", **SLOW), url)
    for user_id in ("u03", "a new one"):
        before = other.recommend(user_id)
        first, second = (item.item_id for item in before.items[:2])
        recorded = one.record_events(
            [
                event(f"{user_id} 1", first, user_id, TIME - 50),
                event(f"{user_id} 2", "gone", user_id),
                event(f"{user_id} 1", first, user_id),
                event(f"{user_id} 3", second, user_id, TIME - 90),
            ]
        )
        counts = recorded.recorded_count, recorded.duplicate_count, recorded.unknown_item_count
        assert counts == (3, 1, 1)
        after = other.recommend(user_id)
        assert said(after) == said(one.recommend(user_id)) == said(other.recommend(user_id))
        assert said(after) == offline(bundle, user_id, [second, first], [TIME - 90, TIME - 50])
        assert not {first, second} & {item.item_id for item in after.items} and said(after) != said(before)
        assert list(after.degraded_reasons) == []
        again = other.record_events([event(f"{user_id} 1", first, user_id)])
        assert (again.recorded_count, again.duplicate_count) == (0, 1)


def test_an_event_that_the_bundle_was_trained_on_does_not_count_again(
    bundle: Bundle, tmp_path: Path, start_workers: StartWorkers
) -> None:
    one, other = start_workers(StoreSettings(path=tmp_path / "state.db", **SLOW), "")
    before = one.recommend("u03")
    last = bundle.history.indptr[4] - 1
    item_id = bundle.item_ids.ids[int(bundle.history.item_idx[last])]
    one.record_events([event("e1", item_id, second=int(bundle.history.timestamp[last]))])
    assert said(other.recommend("u03")) == said(before)
    one.record_events([event("e2", item_id, second=int(bundle.history.timestamp[last]) + 1)])
    assert said(other.recommend("u03")) != said(before)


def test_a_store_that_is_down_makes_answers_worse_and_events_wait(tmp_path: Path, start_workers: StartWorkers) -> None:
    server = LocalRedis(tmp_path)
    try:
        one, other = start_workers(StoreSettings(kind="redis", **SLOW), server.url)
        before = one.recommend("u03")
        one.record_events([event("e1", before.items[0].item_id)])
        after = other.recommend("u03")
        server.kill()
        for client in (one, other):
            answer = client.recommend("u03")
            assert said(answer) == said(before) and pb.DEGRADED_REASON_NO_EVENTS in answer.degraded_reasons
        with pytest.raises(grpc.RpcError) as raised:
            one.record_events([event("e2", before.items[1].item_id)], timeout_s=5.0)
        assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        server.start()
        deadline = time.monotonic() + 20
        while (answer := other.recommend("u03")).degraded_reasons and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (said(answer), list(answer.degraded_reasons)) == (said(after), [])
    finally:
        server.kill()


def record_until_it_ends(address: str, number: int, acknowledged: list[str], started: threading.Event) -> None:
    """Records call after call, until one fails."""
    with RecommenderClient(address, timeout_s=20.0, channels=1) as client:
        for call in range(10_000):
            events = [event(f"{number}.{call}.{place}", "i01", f"of {number}") for place in range(7)]
            try:
                client.record_events(events)
            except grpc.RpcError:
                return
            acknowledged += [str(each["event_id"]) for each in events]
            started.set()


@pytest.mark.parametrize("rounds", [1, pytest.param(15, marks=pytest.mark.long)])
def test_a_server_that_is_killed_while_it_records_has_what_it_acknowledged(
    bundle: Bundle, tmp_path: Path, rounds: int
) -> None:
    save_with_golden(bundle, tmp_path / "bundle")
    acknowledged: list[list[str]] = []
    for turn in range(rounds):
        command = [sys.executable, "-m", "jobs.cli", "serve", str(tmp_path / "bundle"), "--port", "0"]
        environment = os.environ | {"RECKG_WORKERS": "2", "RECKG_STORE_EVENTS_PER_USER": "10000"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            threads, events = [], [threading.Event() for _ in range(3)]
            for place, started in enumerate(events):
                acknowledged.append([])
                arguments = address, turn * 3 + place, acknowledged[-1], started
                threads.append(threading.Thread(target=record_until_it_ends, args=arguments))
                threads[-1].start()
            assert all(started.wait(60) for started in events)
            time.sleep(0.2 + turn % 5 / 10)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the session that was started here: supervisor and workers
            process.communicate()
        for thread in threads:
            thread.join(60)
        store = SqliteStore(tmp_path / "state.db", StoreSettings(events_per_user=10_000))
        for number, expected in enumerate(acknowledged):
            stored = [kept.event_id for kept in store.user_events(f"of {number}")]
            assert len(stored) == len(set(stored)) and set(expected) <= set(stored)
            assert len(stored) % 7 == 0 and len(stored) - len(expected) in (0, 7)
        store.close()
