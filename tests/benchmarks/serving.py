"""The server's latency, capacity of one core, overhead over the bare stages, and the cost of TLS and tokens.

The reference load: 100,000 items of 64 dimensions, the 200 best by the vectors, all features, a forest of 300 trees of
31 leaves over the 200, replies of 20. One worker has a core to itself and the client the other. The server is the one
that `reckg serve` starts, with its defaults: events and catalogue changes in SQLite, metrics, limits.

p50_ms, p99_ms: one request at a time. capacity_per_core: requests a second with 8 under way. p99_half_load_ms: an open
loop at half of that. overhead_share: processor time of the worker for a request over that of the bare stages in process
(Recommender.recommend), less 1. tls_share: the loss of capacity with TLS and a token, in turns with the server without.
capacity_per_core_sources: candidates of five sources. capacity_per_core_1m, recall_1m: a million items without
attributes, with the index that reckg chooses, and its measured recall of the best 200. ready_s: from the start of the
command to SERVING.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tests.benchmarks.large_bundle import CANDIDATES, DEPTHS, DIM, write_bundle
from tests.benchmarks.measure import Result, beside, finish, in_a_process, parser

K, TREES, IN_FLIGHT = 20, 300, 8
VECTORS = {"vectors": CANDIDATES}
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True)
class Server:
    """A server with a single worker: its address, and the seconds until it was ready."""

    address: str
    process: subprocess.Popen[str]
    ready_s: float

    def worker_cpu_s(self) -> float:
        """Processor seconds so far of the process that answers: of the server's children the one that used most."""
        return max(_cpu_s(pid) for pid in [self.process.pid, *_children(self.process.pid)])


@contextlib.contextmanager
def server(bundle: Path, *words: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """`reckg serve` on one core, until the block ends."""
    command = [sys.executable, "-m", "jobs.cli", "serve", str(bundle), "--port", "0", *words]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r" at (\S+:\d+)$", line.strip())
        if found is None:
            raise RuntimeError(f"the server did not start; its first line is {line!r}")
        yield Server(found[1], process, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(60)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for task in tasks for child in task.read_text().split()]
    return found + [each for child in found for each in _children(child)]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _on_client_core() -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})


class Client:
    """Measures from a process of its own on the other core."""

    def __init__(self, user_ids: list[str], seconds: float, connection: dict[str, Any]) -> None:
        self.pool = multiprocessing.get_context("spawn").Pool(1, initializer=_on_client_core)
        self.user_ids, self.seconds, self.connection = user_ids, seconds, connection

    def close(self) -> None:
        self.pool.close()
        self.pool.join()

    def ask(self, work: Any, address: str, **named: Any) -> Any:
        return self.pool.apply(work, (address, self.user_ids, self.seconds), {**named, "connection": self.connection})


def one_by_one(address: str, user_ids: list[str], seconds: float, *, connection: dict[str, Any]) -> dict[str, float]:
    """p50 and p99 in milliseconds of requests that each wait for the one before."""
    from serving.client import RecommenderClient
    from serving.client.load import percentile

    latencies: list[float] = []
    with RecommenderClient(address, channels=1, timeout_s=20, **connection) as client:
        for number in range(50):
            client.recommend(user_ids[number % len(user_ids)], K)
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            assert len(client.recommend(user_ids[len(latencies) % len(user_ids)], K).items) == K
            latencies.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": percentile(latencies, 50) or 0, "p99_ms": percentile(latencies, 99) or 0, "n": len(latencies)}


def saturated(address: str, user_ids: list[str], seconds: float, *, connection: dict[str, Any]) -> int:
    """How many requests were answered with IN_FLIGHT under way all the time."""
    from reckg.v1 import recommender_pb2 as pb
    from serving.client import RecommenderClient
    from serving.client.load import METHOD

    answered = [0] * IN_FLIGHT
    requests = [pb.RecommendRequest(user_id=user, max_item_count=K).SerializeToString() for user in user_ids]
    with RecommenderClient(address, channels=4, **connection) as client:
        start = client.raw_call(METHOD)
        ends = time.perf_counter() + seconds

        def ask(number: int) -> None:
            while time.perf_counter() < ends:
                request = requests[(answered[number] * IN_FLIGHT + number) % len(requests)]
                start(request, 20).result()
                answered[number] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(IN_FLIGHT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(answered)


def open_loop(
    address: str, user_ids: list[str], seconds: float, *, rate: float, connection: dict[str, Any]
) -> dict[str, Any]:
    """The load generator's figures."""
    from serving.client import RecommenderClient
    from serving.client.load import run_load

    with RecommenderClient(address, channels=4, **connection) as client:
        return run_load(client, user_ids, rate=rate, seconds=seconds, k=K).figures()


def bare(folder: Path, out: Path, seconds: float) -> None:
    """Writes the processor milliseconds of a request in process, alone on the server's core, to ``out``."""
    os.sched_setaffinity(0, {SERVER_CORE})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import faiss

    import reckg

    faiss.omp_set_num_threads(1)
    recommender = reckg.load(folder, verify=False)
    if recommender.bundle.ranker is not None:
        recommender.bundle.ranker.compile()
    ids = recommender.bundle.user_ids.ids
    for number in range(50):
        recommender.recommend(ids[number], K)
    n, began, ends = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        recommender.recommend(ids[n % len(ids)], K)
        n += 1
    out.write_text(str((time.process_time() - began) * 1000 / n))


def capacity(client: Client, running: Server) -> tuple[float, float]:
    """Requests a second, and the worker's processor milliseconds for one."""
    client.ask(saturated, running.address)  # warms up
    before, began = running.worker_cpu_s(), time.perf_counter()
    answered = client.ask(saturated, running.address)
    return answered / (time.perf_counter() - began), (running.worker_cpu_s() - before) * 1000 / answered


def secured(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the environment of a server with TLS and tokens, and the client's arguments for it."""
    import trustme

    from serving.access.tokens import create_token

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, tokens = folder / "server.pem", folder / "server.key", folder / "tokens.jsonl"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    token = create_token(tokens, "benchmark", ["recommend"])
    environment = {"RECKG_TLS_CERTIFICATE": str(chain), "RECKG_TLS_KEY": str(key), "RECKG_AUTH_TOKENS": str(tokens)}
    return environment, {"ca": authority.cert_pem.bytes(), "token": token}


def measured(given: Any, folder: Path) -> dict[str, float]:
    n_users, n_items, large = (500, 2000, 4000) if given.small else (20_000, 100_000, 1_000_000)
    for name, items, depths in (("reference", n_items, VECTORS), ("sources", n_items, DEPTHS), ("1m", large, VECTORS)):
        if not (folder / name).is_dir() and name in given.parts:
            named = {"users": n_users, "items": items, "depths": depths, "trees": TREES}
            named["attributes"] = name != "1m"
            in_a_process(write_bundle, folder / name, **named, seed=given.seed)
    ids = pl.read_parquet(folder / "reference" / "users.parquet")["user_id"].to_list()[:2000]
    with contextlib.closing(Client(ids, given.seconds, {})) as client:
        return _figures(given, folder, ids, client)


def _figures(given: Any, folder: Path, ids: list[str], client: Client) -> dict[str, float]:
    figures: dict[str, float] = {}
    with server(folder / "reference") as running:
        figures["ready_s"] = running.ready_s
        figures |= client.ask(one_by_one, running.address)
        figures["capacity_per_core"], figures["cpu_ms"] = capacity(client, running)
        half = client.ask(open_loop, running.address, rate=figures["capacity_per_core"] / 2)
        figures["p99_half_load_ms"] = half["latency_ms"]["p99"]
        figures["answered_half_load"] = half["statuses"].get("OK", 0.0)
    in_a_process(bare, folder / "reference", folder / "bare.txt", given.seconds)
    figures["bare_cpu_ms"] = float((folder / "bare.txt").read_text())
    figures["overhead_share"] = figures["cpu_ms"] / figures["bare_cpu_ms"] - 1
    if "tls" in given.parts:
        environment, connection = secured(folder)
        rounds = []
        with (
            server(folder / "reference") as plain,
            server(folder / "reference", env={**environment, "RECKG_STORE_PATH": str(folder / "tls.db")}) as safe,
            contextlib.closing(Client(ids, given.seconds, connection)) as safe_client,
        ):
            for _ in range(3):
                of_plain, _ = capacity(client, plain)
                of_safe, _ = capacity(safe_client, safe)
                rounds.append(1 - of_safe / of_plain)
        figures["tls_share"] = statistics.median(rounds)
    if "sources" in given.parts:
        with server(folder / "sources") as running:
            figures["capacity_per_core_sources"], _ = capacity(client, running)
    if "1m" in given.parts:
        with server(folder / "1m") as running:
            figures["ready_1m_s"] = running.ready_s
            figures["capacity_per_core_1m"], _ = capacity(client, running)
        figures["recall_1m"] = json.loads((folder / "1m" / "index" / "index.json").read_text())["recall"]["recall"]
    return figures


def main(arguments: list[str] | None = None) -> Result:
    words = parser("Latency and capacity of the server.")
    words.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    words.add_argument("--parts", nargs="*", default=["reference", "tls", "sources", "1m"], help="parts to measure")
    words.add_argument("--folder", type=Path, help="keeps the bundles there, and uses what is there")
    given = words.parse_args(arguments)
    if given.beside:
        return beside("serving", given, arguments)
    given.parts = sorted({"reference", *given.parts})
    if given.small:
        given.seconds = min(given.seconds, 0.5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measured(given, folder)
    for name, value in figures.items():
        print(f"  {name:28} {value:10.4g}")
    settings = {"dim": DIM, "k": K, "trees": TREES, "candidates": CANDIDATES, "in_flight": IN_FLIGHT}
    settings |= {"small": given.small, "seconds": given.seconds, "parts": given.parts}
    packages = ["faiss-cpu", "grpcio", "lightgbm", "numpy", "polars"]
    return finish("serving", figures, settings, packages=packages, seed=given.seed, out=given.out)


if __name__ == "__main__":
    main()
