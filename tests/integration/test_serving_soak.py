"""A server at half its capacity for long, with swaps, events and changes: memory, files and threads stay as they were.

SOAK_SECONDS says how long, as for a trial of a minute.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from reckg.bundle.store import publish
from reckg.recommend.golden import save_with_golden
from serving.client import RecommenderClient
from tests import small_world
from tests.integration.test_serving_processes import figures, most_per_s
from tests.serving_process import ServerProcess, served
from tests.small_world import ITEM_IDS, USER_IDS
from tests.waiting import wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS", "1200"))
SAMPLE_S, SWAP_S, WRITE_S = SECONDS / 200, 10.0, 0.1
# By how much the median of the second half may exceed that of the first, which still warms up: a share, and a constant.
# Connections come and go, and threads come where more calls meet than before; one of each a swap would be 60 more.
TOLERANCES = {"memory_mb": (0.05, 16.0), "files": (0.0, 24.0), "threads": (0.0, 40.0)}

Sample = dict[str, float]


def sample(pid: int) -> Sample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"memory_mb": int(status["VmRSS"].split()[0]) / 1024, "files": files, "threads": int(status["Threads"])}


def processes(server: ServerProcess) -> dict[str, int]:
    workers = {f"worker {place}": pid for place, pid in enumerate(server.workers)}
    (embedder,) = server.children("serving.catalog.embedder")
    return {"supervisor": server.process.pid, **workers, "embedder": embedder}


@pytest.mark.long
def test_memory_files_and_threads_stay_what_they_were(tmp_path: Path) -> None:
    made = small_world.world(tmp_path / "world", linear=True)
    for version in ("world-2", "world-1"):
        save_with_golden(replace(small_world.bundle(made), version=version), tmp_path / version)
        publish(tmp_path / version, tmp_path / "store")
    (tmp_path / "users").write_text("\n".join(USER_IDS))
    environment = {"RECKG_STORE_TIMEOUT_MS": "5000", "RECKG_LIMITS_MAX_QUEUE_MS": "200", "RECKG_WORKERS": "2"}
    environment["RECKG_LIMITS_MAX_CONNECTION_AGE_S"] = "20"
    with served(tmp_path / "store", tmp_path / "log", **environment) as server:
        wait_until(lambda: bool(server.children("serving.catalog.embedder")))
        per_s = most_per_s(server.address, 5, USER_IDS) / 2
        found, statuses = soaked(server, per_s, tmp_path)
    risen = []
    for name, samples in found.items():
        for what, (share, constant) in TOLERANCES.items():
            first, second = halves([each[what] for each in samples])
            print(f"{name}: {what} {first:.1f}, then {second:.1f}")
            if second > first * (1 + share) + constant:
                risen.append(f"{name}: {what} from {first:.1f} to {second:.1f}")
    assert not risen
    assert statuses["OK"] > 0.95 and statuses.keys() <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}, statuses


def halves(values: list[float]) -> tuple[float, float]:
    half = len(values) // 2
    return statistics.median(values[:half]), statistics.median(values[half:])


def soaked(server: ServerProcess, per_s: float, folder: Path) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    """Samples of each process while clients call, and swaps, events and changes of the catalogue go on; and what became
    of the calls."""
    done, before = threading.Event(), processes(server)
    samples: dict[str, list[Sample]] = {name: [] for name in before}
    with RecommenderClient(server.address, timeout_s=60.0) as client, ThreadPoolExecutor(3) as threads:
        work: list[tuple[float, Callable[[int], object]]] = [
            (SWAP_S, lambda n: client.load_bundle(f"world-{2 - n % 2}")),
            (WRITE_S, lambda n: client.record_events([event(n)])),
            (WRITE_S * 10, lambda n: change(client, n)),
        ]
        running = [threads.submit(repeat, each, every_s, done) for every_s, each in work]
        load = threading.Thread(target=lambda: loads.append(figures(server, folder, per_s, SECONDS)))
        loads: list[dict[str, Any]] = []
        load.start()
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            for name, pid in before.items():
                samples[name].append(sample(pid))
            done.wait(SAMPLE_S)
        load.join()
        done.set()
        counts = [each.result() for each in running]
    print(
        f"{SECONDS:g} s at {per_s:.0f} requests/s: {json.dumps(loads[0])}; "
        f"swaps, events, changes, and rejected: {counts}"
    )
    assert all(rejected <= 0.05 * (n + rejected) for n, rejected in counts)
    assert processes(server) == before, "a process ended"
    return samples, loads[0]["statuses"]


def repeat(work: Callable[[int], object], every_s: float, done: threading.Event) -> tuple[int, int]:
    """How often it was done, and how often the server had too much to do."""
    rejected = 0
    for n in itertools.count():
        if done.wait(every_s):
            return n - rejected, rejected
        try:
            work(n)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            rejected += 1
    raise AssertionError


def event(n: int) -> dict[str, object]:
    return {"event_id": f"e{n}", "user_id": USER_IDS[n % len(USER_IDS)], "item_id": ITEM_IDS[n * 7 % len(ITEM_IDS)]}


def change(client: RecommenderClient, n: int) -> None:
    """The same twenty items again and again, so that the catalogue does not grow."""
    client.upsert_items({f"n{n % 20}": {"genres": ["xyz"[n % 3]], "price": float(n)}})
    client.set_availability([ITEM_IDS[n % len(ITEM_IDS)]], n % 2 == 0)
