"""Processes that record events, and the Redis server, killed with SIGKILL: what was acknowledged is there, and once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.local_redis import LocalRedis
from tests.store_writer import USERS, opened

ROOT = Path(__file__).resolve().parents[2]
SHORT, LONG = 2, 15


class Writers:
    """Running tests.store_writer processes and, in files, what was acknowledged to them."""

    def __init__(self, folder: Path, kind: str, where: str) -> None:
        self.folder, self.place, self.started = folder, (kind, where), 0
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, n: int) -> None:
        for _ in range(n):
            self.started += 1
            name = f"w{self.started}"
            with (self.folder / f"{name}.acknowledged").open("wb") as out:
                command = [sys.executable, "-m", "tests.store_writer", name, *self.place]
                self.running.append(subprocess.Popen(command, cwd=ROOT, stdout=out))

    def acknowledged(self) -> list[str]:
        """Event ids of all writers, those that are dead too."""
        lines = [path.read_text().rpartition("\n")[0] for path in sorted(self.folder.glob("*.acknowledged"))]
        return "\n".join(lines).split()

    def wait(self, more: int) -> None:
        """Until so many more events are acknowledged to each of the running."""
        files = [self.folder / f"w{self.started - n}.acknowledged" for n in range(len(self.running))]
        goals = [path.stat().st_size + 8 * more for path in files]
        deadline = time.monotonic() + 60
        while any(path.stat().st_size < goal for path, goal in zip(files, goals, strict=True)):
            assert all(writer.poll() is None for writer in self.running), "a writer ended by itself"
            assert time.monotonic() < deadline, "the writers stand still"
            time.sleep(0.01)

    def kill(self) -> None:
        for writer in self.running:
            writer.kill()
        for writer in self.running:
            writer.wait()
        self.running = []


def check(writers: Writers) -> None:
    """Every acknowledged event is there, none twice, and every call whole or not at all."""
    with closing(opened(*writers.place)) as store:
        stored = [event for user in range(USERS) for event in store.user_events(f"user {user}")]
    ids = [event.event_id for event in stored]
    acknowledged = writers.acknowledged()
    assert len(ids) == len(set(ids)) and len(acknowledged) == len(set(acknowledged))
    lost = set(acknowledged) - set(ids)
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged events are gone"
    calls = Counter((*event_id.split(".")[:2], event_id.split(".")[3]) for event_id in ids)
    assert all(found == int(size) for (_, _, size), found in calls.items())
    assert len(set(ids) - set(acknowledged)) <= 60 * writers.started  # of a writer one call was under way


def kill_again_and_again(writers: Writers, rounds: int) -> None:
    """Two at a time, at moments by chance; looks each time at what is there."""
    chance = random.Random(rounds)
    try:
        for _ in range(rounds):
            writers.start(2)
            writers.wait(30)
            time.sleep(chance.uniform(0, 0.1))
            writers.kill()
            check(writers)
    finally:
        writers.kill()


@pytest.mark.parametrize("rounds", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_writer_that_is_killed_loses_nothing_in_sqlite(tmp_path: Path, rounds: int) -> None:
    kill_again_and_again(Writers(tmp_path, "sqlite", str(tmp_path / "state.db")), rounds)


@pytest.mark.parametrize("rounds", [1, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_writer_that_is_killed_loses_nothing_in_redis(tmp_path: Path, rounds: int) -> None:
    server = LocalRedis(tmp_path)
    try:
        kill_again_and_again(Writers(tmp_path, "redis", server.url), rounds)
    finally:
        server.kill()


@pytest.mark.parametrize("rounds", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_redis_server_that_is_killed_loses_nothing_and_writers_go_on(tmp_path: Path, rounds: int) -> None:
    server = LocalRedis(tmp_path)
    writers, chance = Writers(tmp_path, "redis", server.url), random.Random(rounds)
    try:
        writers.start(2)
        for _ in range(rounds):
            writers.wait(30)
            time.sleep(chance.uniform(0, 0.1))
            server.kill()
            time.sleep(chance.uniform(0, 0.1))
            server.start()
        writers.wait(30)
        server.kill()
        writers.kill()
        server.start()
        check(writers)
    finally:
        writers.kill()
        server.kill()
