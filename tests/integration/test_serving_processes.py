"""reckg serve with two workers over a bundle store: swaps, faults and restarts while clients call."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

import reckg
from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.bundle.store import publish
from reckg.files.atomic_folder import describe_files
from reckg.recommend.golden import save_with_golden
from reckg.v1 import admin_pb2 as pb
from reckg.v1 import admin_pb2_grpc
from serving.client import RecommenderClient
from serving.client.connections import SERVICE_CONFIG
from serving.supervisor.fleet import SETTLED_S
from tests.serving_process import ROOT, Load, ServerProcess, served, under_load
from tests.small_bundle import small_bundle
from tests.waiting import wait_until

WORKERS = 2
PER_S = 40.0
RESPAWN_S = 5.0  # until a worker that was killed is ready again
RETRIES = SERVICE_CONFIG["methodConfig"][0]["retryPolicy"]  # type: ignore[index]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles test-1 and test-2, of different items' vectors."""
    folder = tmp_path_factory.mktemp("bundles")
    for n in (1, 2):
        save_with_golden(replace(small_bundle(seed=n), version=f"test-{n}"), folder / f"test-{n}")
    return folder


@pytest.fixture(scope="module")
def store(bundles: Path) -> Path:
    publish(bundles / "test-2", bundles / "store")
    publish(bundles / "test-1", bundles / "store")
    return bundles / "store"


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[ServerProcess]:
    options = ("--workers", str(WORKERS), "--grace", "5")
    patient = {"RECKG_WATCH_S": "0.2", "RECKG_LIMITS_MAX_QUEUE_MS": "20000"}  # a busy machine rejects no call
    with served(store, store.parent / "log", *options, **patient) as server:
        yield server


@pytest.fixture
def admin(server: ServerProcess) -> Iterator[admin_pb2_grpc.AdminServiceStub]:
    retried = {"name": [{}], "retryPolicy": RETRIES}  # its worker may be ended
    options = [("grpc.service_config", json.dumps({"methodConfig": [retried]}))]
    with grpc.insecure_channel(server.address, options) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        yield stub
        wait_until(lambda: described(stub).ready_worker_count == WORKERS)


def described(admin: admin_pb2_grpc.AdminServiceStub) -> pb.DescribeServingResponse:
    return admin.DescribeServing(pb.DescribeServingRequest(), timeout=20, wait_for_ready=True)


def load(admin: admin_pb2_grpc.AdminServiceStub, version: str = "") -> pb.LoadBundleResponse:
    return admin.LoadBundle(pb.LoadBundleRequest(bundle_version=version), timeout=120)


def refusal(admin: admin_pb2_grpc.AdminServiceStub, version: str) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        load(admin, version)
    return raised.value.code().name, raised.value.details()


def versions_served(server: ServerProcess) -> set[str]:
    """What new connections are answered from; of 12 each of two workers gets some, but once in 2,000 times."""
    found = set()
    for _ in range(12):
        with RecommenderClient(server.address, timeout_s=20.0) as client:
            found.add(client.recommend("u001").bundle_version)
    return found


def spoiled(store: Path, version: str) -> Path:
    """A version of the store whose files are whole, and whose golden requests expect other answers."""
    folder = Path(shutil.copytree(store / "test-2", store / version))
    golden = folder / "golden.jsonl"
    golden.chmod(0o644)
    golden.write_text(golden.read_text().replace('"i0', '"i1'))
    sign(folder, version, "golden.jsonl")
    return folder


def sign(folder: Path, version: str, *changed: str) -> None:
    """Has a bundle's manifest say what its files are."""
    (folder / "manifest.json").chmod(0o644)
    manifest = read_manifest(folder) | {"version": version}
    files = describe_files(folder)
    manifest["files"] |= {name: files[name] for name in changed}
    (folder / "manifest.json").write_text(manifest_text(manifest))


def test_the_server_describes_itself(admin: admin_pb2_grpc.AdminServiceStub, store: Path) -> None:
    said = described(admin)
    assert (said.ready_worker_count, said.worker_count) == (WORKERS, WORKERS)
    assert said.bundle_version in ("test-1", "test-2")
    assert (said.user_count, said.item_count) == (40, 60)
    assert dict(said.bundle_metrics) == {"ndcg@10": 0.25}
    assert said.bundle_create_time.ToJsonString().startswith(read_manifest(store / "test-1")["created"][:10])
    assert 0 < said.uptime.ToTimedelta().total_seconds() < 3600
    assert said.settings["workers"] == "2" and said.settings["limits.max_items"] == "500"
    assert said.settings["bundle"] == str(store) and said.settings["tls.key"] == ""
    assert said.server_version


def test_swaps_and_rollbacks_reach_every_worker(
    admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess, store: Path
) -> None:
    load(admin, "test-1")
    done = load(admin, "test-2")
    assert (done.bundle_version, done.previous_bundle_version) == ("test-2", "test-1")
    assert versions_served(server) == {"test-2"}
    assert described(admin).previous_bundle_version == "test-1"
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in server.workers]
    assert all(f"{store}/test-2/" in held and f"{store}/test-1/" not in held for held in maps)  # memory is given back
    back = admin.RollbackBundle(pb.RollbackBundleRequest(), timeout=120)
    assert (back.bundle_version, back.previous_bundle_version) == ("test-1", "test-2")
    assert versions_served(server) == {"test-1"}
    assert load(admin, "test-1").previous_bundle_version == "test-1"  # is served already
    assert described(admin).previous_bundle_version == "test-2"


@pytest.mark.parametrize(
    "name", ["test-9", "../test-1", "/etc", "test-1/../test-2", "link", "a\0b", "previous", ".lock", "v" * 200]
)
def test_names_that_lead_nowhere_are_refused(
    admin: admin_pb2_grpc.AdminServiceStub, store: Path, bundles: Path, name: str
) -> None:
    with contextlib.suppress(FileExistsError):
        (store / "link").symlink_to(bundles / "test-1")
    before = described(admin).bundle_version
    assert refusal(admin, name)[0] == "NOT_FOUND"
    assert described(admin).bundle_version == before


def test_a_bad_bundle_is_refused_with_the_reason_and_the_old_one_stays(
    admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess, store: Path
) -> None:
    load(admin, "test-1")
    spoiled(store, "bad-golden")
    code, reason = refusal(admin, "bad-golden")
    assert code == "FAILED_PRECONDITION"
    assert "golden.jsonl: the answer to request 1" in reason
    assert described(admin).last_swap_error == reason
    assert f"refused, test-1 is served on: {reason}" in server.logged()
    damaged = Path(shutil.copytree(store / "test-2", store / "damaged"))
    (damaged / "ranker" / "ranker.txt").chmod(0o644)
    (damaged / "ranker" / "ranker.txt").write_text("tree\n" * 1000)
    sign(damaged, "damaged")
    assert "ranker/ranker.txt has" in refusal(admin, "damaged")[1]
    shutil.copytree(store / "test-2", store / "misnamed")
    assert "misnamed holds the version 'test-2'" in refusal(admin, "misnamed")[1]
    assert versions_served(server) == {"test-1"}
    assert load(admin, "test-2").bundle_version == "test-2"
    assert described(admin).last_swap_error == ""


def test_the_latest_version_is_followed_and_a_bad_one_tried_once(
    admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess, store: Path, bundles: Path
) -> None:
    load(admin, "test-1")
    bad = spoiled(store, "bad-latest")
    (bad / "users.parquet").unlink()
    (store / "latest").write_text("bad-latest\n")
    wait_until(lambda: "users.parquet is missing" in described(admin).last_swap_error)
    time.sleep(0.7)
    assert server.logged().count("swap: verifying bad-latest") == 1
    publish(bundles / "test-2", store)
    wait_until(lambda: described(admin).bundle_version == "test-2")
    wait_until(lambda: described(admin).last_swap_error == "")
    load(admin, "test-1")  # what an operator loads stays, until latest changes
    time.sleep(0.7)
    assert versions_served(server) == {"test-1"}


def test_swaps_under_load_fail_no_call_and_mix_no_versions(
    admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess, bundles: Path
) -> None:
    load(admin, "test-1")
    with under_load(server.address, PER_S) as calls:
        for version in ("test-2", "test-1"):
            load(admin, version)
    assert calls.failures == []
    assert set(calls.versions) == {"test-1", "test-2"}
    assert_answers(calls, bundles)


def assert_answers(calls: Load, bundles: Path) -> None:
    """Every answer is that of the version that it names."""
    for version in calls.versions:
        offline = reckg.load(bundles / version)
        for (user_id, answered_by), answers in calls.answers.items():
            if answered_by == version:
                assert answers == {tuple(item.item_id for item in offline.recommend(user_id, 10).items)}


def end_worker_under_load(admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess, how: signal.Signals) -> float:
    """A worker ends while clients call; another one takes its place, and no call fails.

    Returns:
        Seconds from the signal until all workers are ready.
    """
    before, respawns = server.workers, described(admin).respawn_count
    with under_load(server.address, PER_S) as calls:
        time.sleep(0.3)
        sent = time.monotonic()
        os.kill(before[0], how)
        wait_until(lambda: described(admin).respawn_count == respawns + 1)
        wait_until(lambda: described(admin).ready_worker_count == WORKERS)
        took = time.monotonic() - sent
    assert calls.failures == []
    assert calls.versions.total() > 20
    assert before[0] not in server.workers and before[1] in server.workers
    return took


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_fails_no_call_and_comes_back(
    admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess, how: signal.Signals
) -> None:
    load(admin, "test-2")  # not the one that latest names: the new worker takes the committed one
    end_worker_under_load(admin, server, how)
    assert versions_served(server) == {"test-2"}


def test_a_second_server_on_the_port_is_refused(server: ServerProcess, store: Path) -> None:
    port = server.address.rpartition(":")[2]
    command = [sys.executable, "-m", "jobs.cli", "serve", str(store), "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use; another server does?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_killed_takes_its_workers_along(bundles: Path, tmp_path: Path) -> None:
    with served(bundles / "test-1", tmp_path / "log") as server:
        with grpc.insecure_channel(server.address) as channel:
            admin = admin_pb2_grpc.AdminServiceStub(channel)
            assert refusal(admin, "test-2")[1].endswith("is a bundle and no store")
            with pytest.raises(grpc.RpcError, match="no other bundle was served before"):
                admin.RollbackBundle(pb.RollbackBundleRequest(), timeout=20)
        workers = server.workers
        assert len(workers) == 1
        server.process.kill()
        wait_until(lambda: not Path(f"/proc/{workers[0]}").exists(), timeout_s=20)


@pytest.fixture
def one_core(store: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with one worker on one core; the test and what it starts are on another one."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("the server and the load need a core each")
    own, other = sorted(cores)[:2]
    os.sched_setaffinity(0, {own})
    try:
        with served(store, tmp_path / "log", "--workers", "1") as server:
            os.sched_setaffinity(0, {other})
            yield server
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.long
def test_a_hundred_swaps_at_70_percent_load(one_core: ServerProcess, tmp_path: Path) -> None:
    """No call fails, and the p99 is at most twice the steady one.

    A swap begins every four seconds, and every ten swaps have the load of their moment, for machines change their
    speed. Ten before or after which calls fail without a swap were too much for the machine, and are done again.
    """
    user_ids = [f"u{user:03d}" for user in range(40)]
    (tmp_path / "users").write_text("\n".join(user_ids))
    shares: list[float] = []
    with grpc.insecure_channel(one_core.address) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        for _ in range(20):
            load(admin, "test-1")
            offered = 1.1 * most_per_s(one_core.address, 4, user_ids)
            per_s = 0.7 * figures(one_core, tmp_path, offered, 5)["answered_per_s"]  # an open loop costs more
            before = figures(one_core, tmp_path, per_s, 10)
            with ThreadPoolExecutor(1) as measuring:
                measured = measuring.submit(figures, one_core, tmp_path, per_s, 40)
                for n in range(10):
                    time.sleep(4 - time.monotonic() % 4)
                    load(admin, f"test-{2 - n % 2}")
                swapped = measured.result()
            after = figures(one_core, tmp_path, per_s, 10)
            p99 = [each["latency_ms"]["p99"] for each in (before, swapped, after)]
            print(f"{per_s:.0f} requests/s, p99 {p99} ms,", [each["statuses"] for each in (before, swapped, after)])
            if before["statuses"] == after["statuses"] == {"OK": 1.0}:
                assert swapped["statuses"] == {"OK": 1.0}
                assert set(swapped["versions"]) == {"test-1", "test-2"}
                shares.append(2 * p99[1] / (p99[0] + p99[2]))
            if len(shares) == 10:
                break
    assert len(shares) == 10
    assert statistics.median(shares) <= 2


def most_per_s(address: str, seconds: float, user_ids: Sequence[str]) -> float:
    """Answers to eight callers that ask again at once."""
    until = time.monotonic() + seconds

    def ask(n: int) -> int:
        answered = 0
        with RecommenderClient(address, timeout_s=30.0) as client:
            while time.monotonic() < until:
                client.recommend(user_ids[(n + answered) % len(user_ids)])
                answered += 1
        return answered

    with ThreadPoolExecutor(8) as callers:
        return sum(callers.map(ask, range(8))) / seconds


def figures(server: ServerProcess, folder: Path, per_s: float, seconds: float) -> dict[str, Any]:
    """Of an open loop from a process of its own, for the users in the folder's file of that name."""
    command = [sys.executable, "-m", "serving.client.load", server.address, "--users", str(folder / "users"), "--json"]
    command += ["--rate", str(per_s), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_rolling_restarts_and_kills_under_load_fail_no_call(
    admin: admin_pb2_grpc.AdminServiceStub, server: ServerProcess
) -> None:
    for how in [signal.SIGTERM, signal.SIGKILL] * 10:
        took = end_worker_under_load(admin, server, how)
        print(f"{how.name} of a worker that may be young: all ready after {took:.2f} s")
    settled = []
    for _ in range(3):
        time.sleep(SETTLED_S)  # younger ones are respawned after a pause
        settled.append(end_worker_under_load(admin, server, signal.SIGKILL))
        print(f"SIGKILL of a settled worker: all ready after {settled[-1]:.2f} s")
    assert min(settled) <= RESPAWN_S
