"""The embedder is kept running, told what to embed for, and ended. The process here only plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.settings import ServerSettings
from serving.supervisor.embedder_process import EmbedderProcess
from serving.supervisor.verify import VersionedBundle
from tests.waiting import wait_until

# Tells that a bundle is embedded, but for one whose path ends in "slow"; writes down its process id and its lines.
PLAYER = """
    import json, os, pathlib, sys
    here = pathlib.Path(sys.argv[1])
    for line in sys.stdin:
        command = json.loads(line)
        with (here / "lines").open("a") as file:
            print(os.getpid(), command.get("bundle", ""), file=file)
        if "bundle" in command and not command["bundle"].endswith("slow"):
            print(json.dumps({"embedded": pathlib.Path(command["bundle"]).name, "items": 0}), flush=True)
"""

Bundles = Callable[[str], VersionedBundle]


@pytest.fixture
def embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbedderProcess]:
    command = [sys.executable, "-c", textwrap.dedent(PLAYER), str(tmp_path)]
    monkeypatch.setattr("serving.supervisor.embedder_process.child_command", lambda module, *words: command)
    monkeypatch.setattr("serving.supervisor.embedder_process.BACK_OFF_S", (0.05, 60.0))
    embedder = EmbedderProcess(ServerSettings(bundle=tmp_path))
    yield embedder
    embedder.stop()


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    def make(version: str) -> VersionedBundle:
        (tmp_path / version / "inductive").mkdir(parents=True, exist_ok=True)
        return VersionedBundle(tmp_path / version, version, "")

    return make


def lines(folder: Path) -> list[tuple[int, str]]:
    """The process that was told of a bundle, and its version."""
    try:
        pairs = [line.partition(" ")[::2] for line in (folder / "lines").read_text().splitlines()]
    except FileNotFoundError:
        return []
    return [(int(pid), Path(path).name) for pid, path in pairs if path]


def test_a_swap_waits_until_its_bundle_is_embedded_but_not_for_ever(
    embedder: EmbedderProcess, bundles: Bundles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedder.follow(bundles("one"))
    wait_until(lambda: embedder._embedded == "one")
    embedder.follow(bundles("two"), 60)
    assert embedder._embedded == "two"
    embedder.follow(bundles("slow"), 0.1)
    assert "added items are not all embedded for slow after 0.1 s" in caplog.text
    assert [version for _, version in lines(tmp_path)][:2] == ["one", "two"]


def test_one_that_ended_comes_back_with_the_bundle_of_now(
    embedder: EmbedderProcess, bundles: Bundles, tmp_path: Path
) -> None:
    embedder.follow(bundles("one"))
    wait_until(lambda: embedder._embedded == "one")
    first = lines(tmp_path)[0][0]
    os.kill(first, signal.SIGSTOP)
    embedder.follow(bundles("two"))  # is never read
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: embedder._embedded == "two")
    assert lines(tmp_path)[-1][0] != first
    embedder.stop()
    embedder.follow(bundles("three"), 60)  # a swap that the server's end meets: nobody is told, and nothing waits


def test_a_bundle_that_comes_while_there_is_no_process_is_told_to_the_next(
    embedder: EmbedderProcess, bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.supervisor.embedder_process.BACK_OFF_S", (2.0, 60.0))
    embedder.follow(bundles("one"))
    wait_until(lambda: embedder._embedded == "one")
    os.kill(lines(tmp_path)[0][0], signal.SIGKILL)
    wait_until(lambda: embedder._process is None)
    embedder.follow(bundles("two"), 60)
    assert [version for _, version in lines(tmp_path)] == ["one", "two"]


def test_it_ends_though_it_is_only_being_started(
    embedder: EmbedderProcess, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, begun, go_on = subprocess.Popen, threading.Event(), threading.Event()

    def slowly(*arguments: Any, **named: Any) -> subprocess.Popen[str]:
        begun.set()
        assert go_on.wait(60)
        return really(*arguments, **named)

    monkeypatch.setattr("serving.supervisor.embedder_process.subprocess.Popen", slowly)
    embedder.follow(bundles("one"))
    assert begun.wait(60)
    stopping = threading.Thread(target=embedder.stop)
    stopping.start()
    stopping.join(0.1)
    go_on.set()
    stopping.join(60)
    assert not stopping.is_alive()


def test_without_a_store_or_parts_to_embed_with_there_is_none(tmp_path: Path, bundles: Bundles) -> None:
    none = EmbedderProcess(ServerSettings.model_validate({"bundle": tmp_path, "store": {"kind": "none"}}))
    none.follow(bundles("one"), 60)
    older = EmbedderProcess(ServerSettings(bundle=tmp_path))
    older.follow(VersionedBundle(tmp_path, "older", ""), 60)
    for embedder in (none, older):
        assert embedder._keeper is None
        embedder.stop()
