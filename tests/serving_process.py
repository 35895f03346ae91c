"""A server as an operator runs it, and load as clients make it, for tests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from serving.client import RecommenderClient

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0  # on a machine with much else to do


@dataclass
class ServerProcess:
    """``reckg serve`` in a process of its own."""

    process: subprocess.Popen[str]
    log: Path
    address: str = ""

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return self.children("serving.worker.worker")

    def children(self, module: str) -> list[int]:
        """Process ids of the children that run a module."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for path in children for pid in path.read_text().split()]
        return sorted(pid for pid in pids if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8")


@contextmanager
def served(bundle: Path | None, log: Path, *options: str, **environment: str) -> Iterator[ServerProcess]:
    """``reckg serve BUNDLE --port 0``, ready; ended by SIGTERM at the end if it still runs.

    Without a bundle there are no options but those that are given: the environment says the rest.
    """
    given = [] if bundle is None else [str(bundle), "--port", "0"]
    command = [sys.executable, "-m", "jobs.cli", "serve", *given, *options]
    with log.open("w") as err:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=err
        )
    too_long = threading.Timer(START_S, process.kill)
    too_long.start()
    server = ServerProcess(process, log)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("reckg serves bundle "), server.logged()
        server.address = line.split()[-1]
        too_long.cancel()
        yield server
    finally:
        too_long.cancel()
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@dataclass
class Load:
    """Results of the calls of an open loop."""

    failures: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    answers: dict[tuple[str, str], set[tuple[str, ...]]] = field(default_factory=dict)  # by user and version


@contextmanager
def under_load(address: str, per_s: float, *, channels: int = 4, users: int = 40) -> Iterator[Load]:
    """Calls of the shipped client at a Poisson rate while the block runs, whether or not earlier ones are answered."""
    load, done, draw = Load(), threading.Event(), random.Random(0)
    clients = [RecommenderClient(address, timeout_s=30.0) for _ in range(channels)]

    def call(n: int) -> None:
        user_id = f"u{n % users:03d}"
        try:
            response = clients[n % channels].recommend(user_id)
        except grpc.RpcError as error:
            load.failures.append(f"{error.code()}: {error.details()}")
            return
        load.versions[response.bundle_version] += 1
        answers = load.answers.setdefault((user_id, response.bundle_version), set())
        answers.add(tuple(item.item_id for item in response.items))

    def send() -> None:
        due, n = time.perf_counter(), 0
        while not done.is_set():
            due, n = due + draw.expovariate(per_s), n + 1
            done.wait(max(due - time.perf_counter(), 0.0))
            threads.submit(call, n)

    with ThreadPoolExecutor(64) as threads:
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield load
        finally:
            done.set()
            sender.join()
    for client in clients:
        client.close()
