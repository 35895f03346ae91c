"""The load generator against a server in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reckg.recommend.recommender import Recommendations, Recommender
from serving.client import RecommenderClient, load
from serving.client.load import percentile, run_load
from serving.worker.server import RunningServer, start_server
from tests.small_bundle import small_bundle

USERS = [f"u{number:03d}" for number in range(39)]


@pytest.fixture
def running() -> Iterator[RunningServer]:
    server = start_server(threads=1, limits={"max_queue_ms": 60_000.0})
    server.ready(Recommender(small_bundle()))
    yield server
    server.stop(0)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, p) for p in (50.0, 99.0, 99.9, 100.0)] == [50.0, 99.0, 100.0, 100.0]
    assert percentile([3.0], 50.0) == 3.0
    assert percentile([], 50.0) is None


def test_what_was_sent_is_told_whole(running: RunningServer) -> None:
    with RecommenderClient(running.address) as client:
        outcome = run_load(client, [*USERS, ""], rate=100, seconds=1, count_versions=True)
    statuses = dict(outcome.statuses)
    assert set(statuses) == {"OK", "INVALID_ARGUMENT"}  # one user id is empty
    assert sum(statuses.values()) == outcome.sent == len(outcome.late_ms)
    assert 50 < outcome.sent < 160
    assert len(outcome.latencies_ms) == statuses["OK"] == outcome.versions["test-1"]


def test_a_slow_server_does_not_slow_the_load(running: RunningServer) -> None:
    """One request takes 50 ms on the one thread: 20 a second are answered, 100 are sent, and the queue shows."""

    class Slow(Recommender):
        def recommend(self, *arguments: object, **named: object) -> Recommendations:
            time.sleep(0.05)
            return super().recommend(*arguments, **named)  # type: ignore[arg-type]

    running.ready(Slow(small_bundle()))
    with RecommenderClient(running.address) as client:
        figures = run_load(client, USERS, rate=100, seconds=1, timeout_s=20).figures()
    assert figures["sent_per_s"] > 60
    assert figures["latency_ms"]["p99"] > 1000


def test_the_command(running: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = tmp_path / "users.txt"
    users.write_text("\n".join(USERS))
    words = [running.address, "--users", str(users), "--rate", "50", "--seconds", "0.5"]
    assert load.main(words) == 0
    assert "OK 100.00%" in capsys.readouterr().out
    assert load.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"].keys() == {"test-1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--users", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--users", "empty.txt"], "empty.txt holds no user id"),
        (["--users", "empty.txt", "--rate", "0"], "--rate and --seconds must be above 0, got 0.0"),
    ],
)
def test_wrong_words_are_told(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(SystemExit):
        load.main(["127.0.0.1:1", *words])
    assert message in capsys.readouterr().err
