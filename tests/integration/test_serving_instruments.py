"""What stands beside the services of `reckg serve`, over two workers: metrics, traces, logs, experiment, embedder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from prometheus_client.parser import text_string_to_metric_families

from jobs.commands.evaluate_log import evaluate_log
from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.bundle.store import publish
from reckg.config.run_config import parse_config
from reckg.evaluation.logs.served_log import read_served_log
from reckg.recommend.golden import save_with_golden
from reckg.v1 import recommender_pb2 as pb
from serving.access.tokens import create_token
from serving.client import RecommenderClient
from serving.experiment.variants import variant_of
from serving.settings import ServerSettings
from tests import small_world
from tests.serving_process import ROOT, ServerProcess, served
from tests.small_world import USER_IDS
from tests.unit.jobs.commands.test_evaluate_log import write_prepared
from tests.waiting import wait_until

COLD = USER_IDS[-1]  # of whom nothing is known
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PLANTED = "planted.user@example.org"  # a user id that must be in no log, trace or metric
KNOWN_S = 2.0  # from the reply to UpsertItems until every worker recommends the item
CONNECTIONS = 12  # of which two workers both get some, but once in 2,000 times
PATIENT = {"RECKG_STORE_TIMEOUT_MS": "5000", "RECKG_LIMITS_MAX_QUEUE_MS": "20000"}  # for a busy machine

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Collector(otlp_grpc.TraceServiceServicer):
    """Keeps the spans that it gets."""

    def __init__(self) -> None:
        self.requests: list[otlp.ExportTraceServiceRequest] = []

    def Export(
        self, request: otlp.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> otlp.ExportTraceServiceResponse:
        self.requests.append(request)
        return otlp.ExportTraceServiceResponse()

    def spans(self) -> list[Any]:
        scopes = [scope for request in self.requests for of in request.resource_spans for scope in of.scope_spans]
        return [span for scope in scopes for span in scope.spans]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """A bundle store of world-1, the latest, and world-2, both with a text encoder; and one that is damaged."""
    folder = tmp_path_factory.mktemp("bundles")
    made = small_world.world(tmp_path_factory.mktemp("world"), encoder=encoder, linear=True)
    for version in ("world-2", "world-1"):
        bundle = replace(small_world.bundle(made), version=version)
        save_with_golden(bundle, folder / version, extra_folders={"text_encoder": made.folder / "text_encoder"})
        publish(folder / version, folder / "store")
    damaged = Path(shutil.copytree(folder / "store" / "world-2", folder / "store" / "damaged"))
    (damaged / "users.parquet").unlink()
    return folder / "store"


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    kept = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    otlp_grpc.add_TraceServiceServicer_to_server(kept, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield kept, address
    server.stop(0).wait()


@pytest.fixture(scope="module")
def token(store: Path) -> str:
    return create_token(store.parent / "tokens", "test", ("recommend", "events", "catalog", "admin"))


@pytest.fixture(scope="module")
def environment(store: Path, collector: tuple[Collector, str], token: str) -> dict[str, str]:
    """Everything that the first server is told."""
    return PATIENT | {
        "RECKG_BUNDLE": str(store),
        "RECKG_PORT": "0",
        "RECKG_WORKERS": "2",
        "RECKG_GRACE_S": "5",
        "RECKG_WATCH_S": "0",
        "RECKG_METRICS_PORT": str(free_port()),
        "RECKG_METRICS_RECALL_PROBE_S": "0.1",
        "RECKG_TRACING_ENDPOINT": f"http://{collector[1]}",
        "RECKG_TRACING_SAMPLE_SHARE": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "RECKG_LOG_LEVEL": "debug",
        "RECKG_AUTH_TOKENS": str(store.parent / "tokens"),
    }


@pytest.fixture(scope="module")
def server(store: Path, environment: dict[str, str]) -> Iterator[ServerProcess]:
    with served(None, store.parent / "log", **environment) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess, token: str) -> Iterator[RecommenderClient]:
    with connected(server, token) as client:
        yield client


def connected(server: ServerProcess, token: str = "") -> RecommenderClient:
    return RecommenderClient(server.address, token=token, timeout_s=30.0, channels=CONNECTIONS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def scraped(environment: dict[str, str]) -> Metrics:
    url = f"http://127.0.0.1:{environment['RECKG_METRICS_PORT']}/metrics"
    text = urllib.request.urlopen(url, timeout=20).read().decode()
    assert PLANTED not in text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.get((name, frozenset(labels.items())), 0.0)


def labelled(metrics: Metrics, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for found, labels in metrics if found == name}


def refusal(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **named)
    return raised.value.code().name, raised.value.details()


def test_calls_are_counted_over_all_workers(
    client: RecommenderClient, server: ServerProcess, environment: dict[str, str]
) -> None:
    before = scraped(environment)
    answers = [client.recommend(user_id) for user_id in USER_IDS[:24]]
    answers += [client.recommend("u03", recent_items=["i01", "gone"], diversity=pb.Diversity(strategy=2, weight=0.5))]
    answers += [client.recommend(PLANTED)]
    for _ in range(3):
        assert refusal(client.recommend, "u01", 100_000)[0] == "INVALID_ARGUMENT"
    with connected(server, "reckg_planted_secret") as stranger:
        assert refusal(stranger.recommend, PLANTED)[0] == "UNAUTHENTICATED"
    client.set_availability(["i05"], False)
    revision = client.set_availability(["i05"], True).catalog_revision
    wait_until(lambda: value(scraped(environment), "reckg_catalog_revision") == revision)
    wait_until(lambda: value(scraped(environment), "reckg_in_flight") == 0)
    after = scraped(environment)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("reckg_requests_total", method="Recommend", code="OK") == len(answers)
    assert more("reckg_requests_total", method="Recommend", code="INVALID_ARGUMENT") == 3
    assert more("reckg_requests_total", method="Recommend", code="UNAUTHENTICATED") == 1
    assert more("reckg_rejected_total", reason="unauthenticated") == 1
    assert more("reckg_requests_total", method="SetAvailability", code="OK") == 2
    assert more("reckg_request_seconds_count", method="Recommend") == len(answers) + 3
    assert more("reckg_queue_seconds_count") == len(answers) + 3 + 2
    stages = Counter(pb.Stage.Name(stage)[len("STAGE_") :].lower() for answer in answers for stage in answer.stages)
    assert {name: more("reckg_stage_seconds_count", stage=name) for name in stages} == stages
    assert set(stages) == {"events", "fold_in", "retrieve", "features", "rerank", "diversify", "popular"}
    assert more("reckg_degraded_total", reason="unknown_recent_items") == 1
    assert more("reckg_degraded_total", reason="cold_user") == sum(1 in answer.degraded_reasons for answer in answers)
    assert more("reckg_store_seconds_count", operation="user_events") == len(answers)
    assert more("reckg_store_seconds_count", operation="change_catalog") == 2
    assert value(after, "reckg_store_up") == 1
    assert value(after, "reckg_index_recall") == 1
    assert [value(after, "reckg_workers", state=name) for name in ("wanted", "ready")] == [2, 2]
    assert labelled(after, "reckg_bundle_info", "version") == {"world-1"}


def test_a_span_of_a_call_and_its_stages_go_to_the_collector(
    client: RecommenderClient, server: ServerProcess, collector: tuple[Collector, str], token: str
) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(
            "/reckg.v1.RecommenderService/Recommend",
            pb.RecommendRequest.SerializeToString,
            pb.RecommendResponse.FromString,
        )
        metadata = [("authorization", f"Bearer {token}"), ("traceparent", f"00-{TRACE}-{PARENT}-01")]
        request = pb.RecommendRequest(user_id=PLANTED, recent_item_ids=["i01"], request_id="traced-1")
        answer = call(request, metadata=metadata, timeout=20)
    kept = collector[0]
    wait_until(lambda: len(kept.spans()) >= 1 + len(answer.stages))
    (whole,) = (span for span in kept.spans() if span.name == "reckg.v1.RecommenderService/Recommend")
    stages = [span for span in kept.spans() if span is not whole]
    assert {span.trace_id.hex() for span in kept.spans()} == {TRACE}
    assert whole.parent_span_id.hex() == PARENT and {span.parent_span_id for span in stages} == {whole.span_id}
    assert {f"STAGE_{span.name.upper()}" for span in stages} == {pb.Stage.Name(stage) for stage in answer.stages}
    for span in stages:
        assert whole.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= whole.end_time_unix_nano
    span_attributes = {each.key: each.value.string_value or each.value.int_value for each in whole.attributes}
    assert span_attributes["reckg.request_id"] == "traced-1" and span_attributes["reckg.bundle_version"] == "world-1"
    text = "".join(map(str, kept.requests))
    assert PLANTED not in text and token not in text


def test_a_killed_worker_leaves_its_counters_and_no_gauges(
    client: RecommenderClient, server: ServerProcess, environment: dict[str, str]
) -> None:
    before, killed = scraped(environment), server.workers[0]
    variables = dict(each.split("=", 1) for each in environ(killed) if "=" in each)
    folder = Path(variables["PROMETHEUS_MULTIPROC_DIR"])
    assert list(folder.glob(f"gauge_live*_{killed}.db"))
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: value(scraped(environment), "reckg_worker_respawns_total") == 1)
    wait_until(lambda: value(scraped(environment), "reckg_workers", state="ready") == 2)
    assert not list(folder.glob(f"gauge_live*_{killed}.db"))
    client.recommend("u01")
    after = scraped(environment)
    ok = {"method": "Recommend", "code": "OK"}
    assert value(after, "reckg_requests_total", **ok) == value(before, "reckg_requests_total", **ok) + 1


def environ(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def test_swaps_and_refused_bundles_are_counted(client: RecommenderClient, environment: dict[str, str]) -> None:
    first = scraped(environment)
    began = time.time()
    client.load_bundle("world-2")
    swapped = scraped(environment)
    assert value(swapped, "reckg_bundle_swaps_total", result="done") == 1
    assert value(swapped, "reckg_bundle_swaps_total", result="refused") == 0
    assert labelled(swapped, "reckg_bundle_info", "version") == {"world-2"}
    assert 0 < value(swapped, "reckg_bundle_swap_seconds") <= time.time() - began
    name = "reckg_bundle_loaded_timestamp_seconds"
    assert 0 < value(first, name) < began <= value(swapped, name)
    assert refusal(client.load_bundle, "damaged")[0] == "FAILED_PRECONDITION"
    refused = scraped(environment)
    assert value(refused, "reckg_bundle_swaps_total", result="refused") == 1
    assert labelled(refused, "reckg_bundle_info", "version") == {"world-2"}
    client.rollback_bundle()
    assert labelled(scraped(environment), "reckg_bundle_info", "version") == {"world-1"}


def upsert(client: RecommenderClient, item_id: str) -> None:
    client.upsert_items({item_id: {"title": "solaris", "genres": ["x"]}})


def knows(client: RecommenderClient, item_id: str) -> bool:
    """Whether every connection's worker recommends an item."""
    answers = [client.recommend("u03", 100, include_seen=True) for _ in range(CONNECTIONS)]
    return all(item_id in {item.item_id for item in answer.items} for answer in answers)


def seconds_until_known(client: RecommenderClient, item_id: str) -> float:
    began = time.monotonic()
    wait_until(lambda: knows(client, item_id))
    return time.monotonic() - began


@pytest.fixture(scope="module")
def added(server: ServerProcess, token: str) -> str:
    """An item that every worker of the first server recommends: its embedder is warm."""
    with connected(server, token) as client:
        upsert(client, "n0")
        seconds_until_known(client, "n0")
    return "n0"


def test_an_added_item_is_recommended_by_every_worker_and_after_a_swap(client: RecommenderClient, added: str) -> None:
    upsert(client, "n1")
    assert seconds_until_known(client, "n1") <= KNOWN_S
    for version in ("world-2", "world-1"):
        client.load_bundle(version)
        assert seconds_until_known(client, "n1") <= KNOWN_S
        assert client.recommend("u03").bundle_version == version
    upsert(client, "n2")
    assert seconds_until_known(client, "n2") <= KNOWN_S


def test_an_added_item_is_recommended_by_a_variant_of_another_bundle(store: Path, tmp_path: Path) -> None:
    variants = [{"name": "a", "share": 1}, {"name": "b", "share": 1, "bundle_version": "world-2"}]
    environment = {"RECKG_EXPERIMENT_VARIANTS": json.dumps(variants), "RECKG_STORE_PATH": str(tmp_path / "state.db")}
    with served(store, tmp_path / "log", **PATIENT, **environment) as server, connected(server) as client:
        upsert(client, "n0")

        def knowing() -> set[tuple[str, str]]:
            answers = [client.recommend(user_id, 100, include_seen=True) for user_id in USER_IDS]
            return {(each.variant, each.bundle_version) for each in answers if "n0" in {i.item_id for i in each.items}}

        wait_until(lambda: knowing() == {("a", "world-1"), ("b", "world-2")})


@pytest.mark.long
def test_an_embedder_that_is_killed_comes_back(client: RecommenderClient, server: ServerProcess) -> None:
    wait_until(lambda: bool(server.children("serving.catalog.embedder")))
    (killed,) = server.children("serving.catalog.embedder")
    os.kill(killed, signal.SIGKILL)
    upsert(client, "n3")
    seconds_until_known(client, "n3")
    (back,) = server.children("serving.catalog.embedder")
    assert back != killed


def test_a_failure_is_found_in_the_log_by_its_request_id_and_the_log_names_nobody(
    client: RecommenderClient, server: ServerProcess, store: Path, token: str
) -> None:
    client.record_events([{"event_id": "e1", "user_id": PLANTED, "item_id": "i01"}])
    with socket.create_connection(address_of(server)) as stranger:
        stranger.sendall(f"GET /{PLANTED} HTTP/1.1\r\n\r\n".encode())
        while stranger.recv(1000):
            pass
    undated(store)
    client.load_bundle("undated")
    failed = [refusal(client.describe_serving) for _ in range(3)]
    assert {code for code, _ in failed} == {"INTERNAL"}
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    lines = [json.loads(line) for line in server.logged().splitlines()]
    assert {line["level"] for line in lines} >= {"info", "warning", "error"}
    for _, details in failed:
        request_id = details.split("request ")[1].split()[0]
        (found,) = (line for line in lines if request_id in line["message"])
        assert found["level"] == "error" and "DescribeServing failed" in found["message"]
    secrets = (PLANTED, "planted", token, token.rpartition("_")[2])
    assert [secret for secret in secrets if secret in server.logged()] == []


def address_of(server: ServerProcess) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def undated(store: Path) -> None:
    """A bundle that is whole, and whose manifest holds a fault that no check looks for."""
    folder = Path(shutil.copytree(store / "world-2", store / "undated"))
    (folder / "manifest.json").chmod(0o644)
    manifest = read_manifest(folder) | {"version": "undated", "created": "never"}
    (folder / "manifest.json").write_text(manifest_text(manifest))


def test_added_items_are_there_after_a_restart_and_what_is_shown_is_logged(
    store: Path, added: str, tmp_path: Path
) -> None:
    variants = [{"name": "chance", "share": 1, "explore": 6}, {"name": "plain", "share": 1, "rerank": False}]
    experiment = {"RECKG_EXPERIMENT_VARIANTS": json.dumps(variants), "RECKG_EXPERIMENT_SALT": "s"}
    log = {"RECKG_SERVED_LOG_FOLDER": str(tmp_path / "shown"), "RECKG_WORKERS": "2", "RECKG_EMBEDDER": "false"}
    settings = ServerSettings.model_validate({"bundle": store, "experiment": {"salt": "s", "variants": variants}})
    with served(store, tmp_path / "log", **PATIENT, **experiment, **log) as server, connected(server) as client:
        assert knows(client, added)
        shown = {user_id: client.recommend(user_id, 4, context=pb.Context(placement="home")) for user_id in USER_IDS}
        assert not list((tmp_path / "shown").glob("*.parquet"))
        drained = server.workers[0]
        os.kill(drained, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{drained}").exists())
        parts = list((tmp_path / "shown").glob("*.parquet"))
        assert len(parts) == 1
    whole = read_served_log(tmp_path / "shown", events_of(shown, tmp_path)).rows
    rows = whole.filter(pl.col("placement") == "home")
    assert {by: len(part) for (by,), part in rows.group_by("user_id")} == dict.fromkeys(USER_IDS, 4)
    for (user_id,), part in rows.group_by("user_id"):
        answer, variant = shown[user_id], variant_of(settings.experiment, user_id).name
        part = part.sort("position")
        assert part["request_id"].unique().to_list() == [answer.request_id]
        assert part["item_id"].to_list() == [item.item_id for item in answer.items]
        assert part["score"].to_list() == [item.score for item in answer.items]
        assert part["variant"].unique().to_list() == [variant] == [answer.variant]
        assert part["propensity"].to_list() == [1 / 6 if variant == "chance" else 1.0] * 4
        assert part["bundle_version"].unique().to_list() == ["world-1"]
        assert (pb.DEGRADED_REASON_NO_RERANK in answer.degraded_reasons) == (variant == "plain" and user_id != COLD)
    report = evaluated(store, tmp_path / "shown", tmp_path)
    assert report["counts"]["requests_used"] == len(USER_IDS) + CONNECTIONS and report["counterfactual"] is not None
    assert report["variants"]["names"] == ["chance", "plain"]
    assert report["served_by"] == {"world-1": whole["request_id"].n_unique()}


def test_interleaved_answers_are_logged_item_by_item(store: Path, tmp_path: Path) -> None:
    variants = [{"name": "a", "share": 1}, {"name": "b", "share": 1, "bundle_version": "world-2", "rerank": False}]
    experiment = {"RECKG_EXPERIMENT_VARIANTS": json.dumps(variants), "RECKG_EXPERIMENT_INTERLEAVE": "true"}
    log = {"RECKG_SERVED_LOG_FOLDER": str(tmp_path / "shown"), "RECKG_EMBEDDER": "false"}
    with served(store, tmp_path / "log", **PATIENT, **experiment, **log) as server, connected(server) as client:
        shown = {user_id: client.recommend(user_id, 6) for user_id in USER_IDS}
    rows = read_served_log(tmp_path / "shown", events_of(shown, tmp_path)).rows.sort("user_id", "position")
    expected = [(i.item_id, i.variant, i.score) for user_id in sorted(shown) for i in shown[user_id].items]
    assert list(rows.select("item_id", "variant", "score").iter_rows()) == expected
    assert {answer.variant for answer in shown.values()} == {"interleaved"}
    assert set(rows["variant"]) == {"a", "b"} and rows["placement"].null_count() == len(rows)
    assert rows["propensity"].is_between(0, 1, closed="right").all() and rows["propensity"].min() < 1
    report = evaluated(store, tmp_path / "shown", tmp_path)
    assert report["interleaving"]["names"] == ["a", "b"] and report["variants"] is None


def test_a_variant_of_a_version_that_is_not_there_is_refused_at_the_start(store: Path, tmp_path: Path) -> None:
    variants = [{"name": "a", "share": 1, "bundle_version": "world-9"}]
    environment = os.environ | {"RECKG_EXPERIMENT_VARIANTS": json.dumps(variants)}
    command = [sys.executable, "-m", "jobs.cli", "serve", str(store), "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "holds no version 'world-9'" in done.stderr, done.stderr


def events_of(shown: dict[str, pb.RecommendResponse], folder: Path) -> Path:
    """Everybody takes the first item."""
    rows = [(answer.request_id, answer.items[0].item_id, int(time.time())) for answer in shown.values()]
    frame = pl.DataFrame(rows, schema=["request_id", "item_id", "timestamp"], orient="row")
    frame.write_parquet(folder / "events.parquet")
    return folder / "events.parquet"


def evaluated(store: Path, log: Path, folder: Path) -> dict[str, Any]:
    """What `reckg evaluate --log` makes of a log for a run with this bundle."""
    shutil.copytree(store / "world-1", folder / "run" / "bundle")
    write_prepared(folder / "run", "utc")
    config = parse_config({"evaluate": {"bootstrap_samples": 100}}, "test")
    return evaluate_log(config, folder / "run", log, events=folder / "events.parquet")
