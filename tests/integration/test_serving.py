"""The server as a process of its own, called over gRPC as a backend would."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc  # type: ignore[import-untyped]

from proto.generate_stubs import ROOT
from reckg.bundle.bundle import Bundle
from reckg.errors import ArtifactError, ConfigError
from reckg.recommend.golden import save_with_golden
from reckg.recommend.recommender import Recommendations, Recommender
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.client import RecommenderClient, command
from serving.settings import LimitSettings
from serving.worker.server import RunningServer, start_server
from tests.serving_process import served
from tests.small_bundle import small_bundle

SERVICE = "reckg.v1.RecommenderService"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def bundle_path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "bundle"
    save_with_golden(bundle, path)
    return path


@pytest.fixture(scope="module")
def address(bundle_path: Path) -> Iterator[str]:
    with served(bundle_path, bundle_path.parent / "log", RECKG_REFLECTION="true") as server:
        yield server.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[RecommenderClient]:
    with RecommenderClient(address, timeout_s=20.0) as client:
        yield client


@pytest.fixture
def running() -> Iterator[RunningServer]:
    """A server in this process, not ready yet."""
    running = start_server()
    yield running
    running.stop(0)


def failure(call: object, *arguments: object, **named: object) -> tuple[grpc.StatusCode, str]:
    assert callable(call)
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **named)
    return raised.value.code(), raised.value.details()


def assert_equal(response: pb.RecommendResponse | pb.SimilarItemsResponse, offline: Recommendations) -> None:
    assert [(i.item_id, i.title) for i in response.items] == [(i.item_id, i.title) for i in offline.items]
    assert [i.score for i in response.items] == pytest.approx([i.score for i in offline.items], abs=1e-6)
    assert response.bundle_version == offline.bundle_version


def test_the_server_answers_as_the_library_does(client: RecommenderClient, bundle: Bundle) -> None:
    offline = Recommender(bundle)
    for user_id in bundle.user_ids.ids:
        expected = offline.recommend(user_id, 10)
        response = client.recommend(user_id, 10)
        assert_equal(response, expected)
        assert (response.fallback == pb.FALLBACK_POPULAR) == (expected.fallback == "popular") == (user_id == "u039")
        assert len(response.items) == 10
    for item_id in bundle.item_ids.ids:
        assert_equal(client.similar_items(item_id, 5), offline.similar_items(item_id, 5))
    assert_equal(client.recommend("u001", 60, include_seen=True), offline.recommend("u001", 60, exclude_seen=False))


def test_an_unknown_user_is_answered_by_the_stated_fallback(client: RecommenderClient, bundle: Bundle) -> None:
    response = client.recommend("nobody", 5)
    assert [item.item_id for item in response.items] == bundle.item_ids.raw(bundle.features.popular[:5])
    assert response.fallback == pb.FALLBACK_POPULAR
    assert list(response.degraded_reasons) == [pb.DEGRADED_REASON_COLD_USER]
    known = client.recommend("u001", 5)
    assert known.fallback == pb.FALLBACK_NONE
    assert list(known.degraded_reasons) == []


def test_limits_and_errors_have_their_status(client: RecommenderClient) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for k in (-1, 501, 5000, 2**31 - 1):
        assert failure(client.recommend, "u001", k) == (invalid, f"max_item_count must be 0..500, got {k}")
        assert failure(client.similar_items, "i001", k) == (invalid, f"max_item_count must be 0..500, got {k}")
    assert failure(client.recommend, "") == (invalid, "user_id must not be empty")
    assert failure(client.similar_items, "") == (invalid, "item_id must not be empty")
    code, message = failure(client.similar_items, "nothing")
    assert (code, message[:25]) == (grpc.StatusCode.NOT_FOUND, "unknown item id 'nothing'")
    assert failure(client.recommend, "u" * 70_000)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(client.recommend("u001", 0).items) == 10
    assert len(client.recommend("u001", 500, include_seen=True).items) == 60


def test_an_expired_deadline_ends_the_call(address: str) -> None:
    with RecommenderClient(address, timeout_s=-1.0) as hasty:
        assert failure(hasty.recommend, "u001")[0] == grpc.StatusCode.DEADLINE_EXCEEDED


def test_little_time_left_skips_the_reranking_and_says_so(bundle: Bundle) -> None:
    running = start_server(limits=LimitSettings(min_rerank_ms=30_000))
    running.ready(Recommender(bundle))
    with RecommenderClient(running.address, timeout_s=20.0) as client:
        response = client.recommend("u001", 10)
    running.stop(0)
    assert list(response.degraded_reasons) == [pb.DEGRADED_REASON_NO_RERANK]
    assert_equal(response, Recommender(replace(bundle, ranker=None)).recommend("u001", 10))


def test_health_and_reflection(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            health = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        code, _ = failure(stub.Check, health_pb2.HealthCheckRequest(service="other"), timeout=20)
        assert code == grpc.StatusCode.NOT_FOUND
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        found = DescriptorPool(database).FindServiceByName(SERVICE)
        expected = pb.DESCRIPTOR.services_by_name["RecommenderService"].methods
        assert [method.name for method in found.methods] == [method.name for method in expected]


def test_watchers_do_not_hold_the_threads_that_answer(running: RunningServer, bundle: Bundle) -> None:
    with grpc.insecure_channel(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60) for _ in range(8)]
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.NOT_SERVING}
        running.ready(Recommender(bundle))
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.SERVING}
        with RecommenderClient(running.address, timeout_s=20.0) as client:
            assert len(client.recommend("u001").items) == 10
        running.health.enter_graceful_shutdown()
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.NOT_SERVING}


def test_a_server_that_is_not_ready_is_unavailable(running: RunningServer) -> None:
    with RecommenderClient(running.address, timeout_s=20.0) as client:
        code, message = failure(client.recommend, "u001")
    assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "the bundle is still loading; try again")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("u001 of Jane Doe"), grpc.StatusCode.INTERNAL),
        (ValueError("u001 of Jane Doe"), grpc.StatusCode.INTERNAL),
        (ArtifactError("u001 of Jane Doe"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_a_fault_leaks_nothing_and_can_be_found_in_the_log(
    running: RunningServer, bundle: Bundle, error: Exception, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recommender):
        def recommend(self, *_: object, **__: object) -> NoReturn:
            raise error

    running.ready(Broken(bundle))
    with RecommenderClient(running.address, timeout_s=20.0) as client:
        found, message = failure(client.recommend, "u001")
    assert found == code
    request_id = message.split(" request ")[1].split()[0]
    assert len(request_id) == 32
    assert request_id in caplog.text
    assert "in recommend" in caplog.text
    assert type(error).__name__ in caplog.text
    assert "Jane" not in message + caplog.text
    assert "u001" not in message + caplog.text


def test_two_servers_cannot_share_a_port(running: RunningServer) -> None:
    port = int(running.address.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port}: .*choose another port"):
        start_server(port=port)


def test_a_damaged_bundle_ends_the_server_with_its_name(bundle_path: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    (damaged / "users.parquet").unlink()
    command = [sys.executable, "-m", "jobs.cli", "serve", str(damaged), "--port", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "users.parquet is missing" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_sigterm_while_idle_ends_with_0(bundle_path: Path, tmp_path: Path) -> None:
    with served(bundle_path, tmp_path / "log") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
    assert "stopping: draining" in server.logged()
    assert "Traceback" not in server.logged()


class Slow(Recommender):
    """A recommender that takes its time, and tells when it has begun."""

    def __init__(self, bundle: Bundle, seconds: float) -> None:
        super().__init__(bundle)
        self.seconds, self.begun = seconds, threading.Event()

    def recommend(self, *arguments: Any, **named: Any) -> Recommendations:
        self.begun.set()
        time.sleep(self.seconds)
        return super().recommend(*arguments, **named)


def test_calls_in_flight_are_answered_while_new_ones_are_refused(running: RunningServer, bundle: Bundle) -> None:
    slow = Slow(bundle, 0.5)
    running.ready(slow)
    with grpc.insecure_channel(running.address) as channel, grpc.insecure_channel(running.address) as other:
        stub, late = (recommender_pb2_grpc.RecommenderServiceStub(each) for each in (channel, other))
        in_flight = stub.Recommend.future(pb.RecommendRequest(user_id="u001"), timeout=20)
        assert slow.begun.wait(20)
        running.stop(20)
        assert len(in_flight.result().items) == 10
        code, _ = failure(late.Recommend, pb.RecommendRequest(user_id="u001"), timeout=20)
    assert code == grpc.StatusCode.UNAVAILABLE


def test_a_call_that_is_cut_off_is_repeated_at_another_server(bundle: Bundle) -> None:
    """The grace ends before the answer is ready: gRPC cancels the call, and the client's policy repeats it."""
    first, second = start_server(), start_server()
    try:
        slow = Slow(bundle, 1.0)
        first.ready(slow)
        second.ready(Recommender(bundle))
        answers: list[int] = []

        def call(client: RecommenderClient) -> None:
            while not slow.begun.is_set():  # the channel takes the servers in turn
                answers.append(len(client.recommend("u001").items))

        with RecommenderClient(f"{first.address},{second.address}", timeout_s=20.0) as client:
            worker = threading.Thread(target=call, args=(client,))
            worker.start()
            assert slow.begun.wait(20)
            first.stop(0)
            worker.join()
        assert answers
        assert set(answers) == {10}
    finally:
        first.stop(0)
        second.stop(0)


def test_sigterm_under_load_fails_no_call(bundle_path: Path, tmp_path: Path) -> None:
    """Of two servers one is stopped and the other goes on; the shipped client's retries hide it."""
    failures: list[str] = []
    answered = [0, 0, 0]
    done = threading.Event()

    def load(client: RecommenderClient, worker: int) -> None:
        n = 0
        while not done.is_set():
            n += 1
            try:
                assert len(client.recommend(f"u{n % 39:03d}").items) == 10
                answered[worker] += 1
            except grpc.RpcError as error:
                failures.append(f"{error.code()}: {error.details()}")

    with (
        served(bundle_path, tmp_path / "one") as one,
        served(bundle_path, tmp_path / "other") as other,
        RecommenderClient(f"{one.address},{other.address}", timeout_s=20.0) as client,
    ):
        client.recommend("u001")
        workers = [threading.Thread(target=load, args=(client, worker)) for worker in range(3)]
        for worker in workers:
            worker.start()
        time.sleep(0.7)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(timeout=20) == 0
        before = list(answered)
        time.sleep(0.7)
        done.set()
        for worker in workers:
            worker.join()
    assert failures == []
    assert all(after > then > 0 for after, then in zip(answered, before, strict=True))


def test_a_client_generated_from_the_proto_alone(address: str, bundle: Bundle, tmp_path: Path) -> None:
    """A backend that has nothing of this repository but the .proto files, in a folder of its own."""
    shutil.copytree(ROOT / "proto", tmp_path, dirs_exist_ok=True)
    (tmp_path / "reckg" / "__init__.py").touch()
    outputs = [f"-I{tmp_path}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main(["protoc", *outputs, "reckg/v1/item.proto", "reckg/v1/recommender.proto"]) == 0
    (tmp_path / "backend.py").write_text(
        textwrap.dedent(
            """
            import json, os, sys
            import grpc
            from reckg.v1 import recommender_pb2 as pb, recommender_pb2_grpc

            with grpc.insecure_channel(sys.argv[1]) as channel:
                stub = recommender_pb2_grpc.RecommenderServiceStub(channel)
                response = stub.Recommend(pb.RecommendRequest(user_id="u005", max_item_count=7), timeout=20)
            assert os.path.samefile(os.path.dirname(sys.modules["reckg"].__file__), "reckg")
            assert not any(name.split(".")[0] in ("numpy", "serving") for name in sys.modules)
            print(json.dumps([item.item_id for item in response.items]))
            """
        )
    )
    command = [sys.executable, "backend.py", address]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [item.item_id for item in Recommender(bundle).recommend("u005", 7).items]


def test_the_client_prints_titles(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([address, "u001", "--k", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Title of i") == 3
    assert "(bundle test-1)" in printed
    assert command.main([address, "nobody"]) == 0
    assert "most popular" in capsys.readouterr().out
    assert command.main([address, "u001", "--k", "501"]) == 1
    assert "INVALID_ARGUMENT: max_item_count must be 0..500, got 501" in capsys.readouterr().err
