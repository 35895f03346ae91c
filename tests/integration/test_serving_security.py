"""Who gets in: plaintext, wrong authorities, expired certificates, every kind of token; and what errors tell nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, generate_latest

from reckg.errors import ConfigError
from reckg.recommend.golden import save_with_golden
from reckg.recommend.recommender import Recommender
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.access.tokens import allow_certificate, create_token, read_lines
from serving.calls.interceptor import Observer
from serving.monitoring.observation import Observation
from serving.monitoring.tracing import start_tracing
from serving.settings import ServerSettings, TracingSettings
from serving.supervisor.supervisor import serve
from serving.worker.server import start_server
from tests.certificates import expired, write_authority, write_pair
from tests.entered_server import BATCH, RECOMMEND, entered_server, raw, status
from tests.serving_process import served
from tests.small_bundle import small_bundle
from tests.waiting import wait_until

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
UNAVAILABLE, OK, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
MESSAGE = pb.RecommendRequest(user_id="u001").SerializeToString()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(tmp_path: Path, authority: trustme.CA) -> dict[str, Path]:
    certificate, key = write_pair(tmp_path, authority.issue_cert("localhost", "127.0.0.1"))
    return {"certificate": certificate, "key": key}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


def credentials(authority: trustme.CA, shown: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    pair = (None, None)
    if shown is not None:
        pair = (shown.private_key_pem.bytes(), b"".join(blob.bytes() for blob in shown.cert_chain_pems))  # type: ignore[assignment]
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *pair)


def ask(
    address: str,
    given: grpc.ChannelCredentials | None = None,
    token: str | None = None,
    method: str = RECOMMEND,
    message: bytes = MESSAGE,
) -> tuple[grpc.StatusCode, str]:
    """The status of one call on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channel = (
        grpc.insecure_channel(address, options)
        if given is None
        else grpc.secure_channel(address, given, [*options, ("grpc.ssl_target_name_override", "localhost")])
    )
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with channel:
        return status(lambda: raw(channel, method)(message, timeout=10, metadata=metadata))


def test_with_tls_only_those_get_in_who_speak_it_and_trust_it(tls: dict[str, Path], authority: trustme.CA) -> None:
    with entered_server(tls=tls) as server:
        assert ask(server.address, credentials(authority))[0] == OK
        assert ask(server.address)[0] == UNAVAILABLE
        assert ask(server.address, credentials(trustme.CA()))[0] == UNAVAILABLE
        assert [code for _, code in server.ended] == [OK]  # the others reached no method


def test_a_renewed_certificate_is_shown_without_a_restart(
    tls: dict[str, Path], authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.access.tls.CHECK_S", 0.0)
    with entered_server(tls=tls) as server:
        other = trustme.CA()
        assert ask(server.address, credentials(other))[0] == UNAVAILABLE
        write_pair(tmp_path, other.issue_cert("localhost"))
        assert ask(server.address, credentials(other))[0] == OK
        assert ask(server.address, credentials(authority))[0] == UNAVAILABLE


def test_with_a_client_authority_a_certificate_is_needed_and_its_names_have_scopes(
    tls: dict[str, Path], authority: trustme.CA, tokens: Path, tmp_path: Path
) -> None:
    """No scopes file: everybody with a certificate may call everything. With one: those of its names."""
    clients = trustme.CA()
    tls = tls | {"client_ca": write_authority(tmp_path, clients)}
    known = clients.issue_cert("backend.example", common_name="Backend")
    stranger = clients.issue_cert("stranger.example")
    refused = (None, trustme.CA().issue_cert("backend.example"), expired(clients, "backend.example"))
    with entered_server(tls=tls) as server:
        for shown in refused:
            assert ask(server.address, credentials(authority, shown))[0] == UNAVAILABLE
        assert server.ended == []
        assert ask(server.address, credentials(authority, known))[0] == OK
        assert [call.principal for call, _ in server.ended] == ["backend.example"]
    allow_certificate(tokens, "Backend", ["recommend"])
    token = create_token(tokens, "jobs", ["recommend"])
    with entered_server(tls=tls, auth={"tokens": tokens}) as server:
        assert ask(server.address, credentials(authority, known))[0] == OK
        code = ask(server.address, credentials(authority, stranger))
        assert code == (DENIED, "this method needs the scope 'recommend'")
        assert ask(server.address, credentials(authority, stranger), token)[0] == OK
        assert [call.principal for call, code in server.ended if code == OK] == ["Backend", "jobs"]
        assert server.in_flight == [0, 0, 0, 0]


def test_every_kind_of_token(tokens: Path) -> None:
    right = create_token(tokens, "shop", ["recommend"])
    other = create_token(tokens, "jobs", ["catalog"])
    old = create_token(tokens, "old", ["recommend"], days=1)
    lines = [
        line.model_copy(update={"expires": line.created}) if getattr(line, "principal", "") == "old" else line
        for line in read_lines(tokens)
    ]
    tokens.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    with entered_server(auth={"tokens": tokens}) as server:
        assert ask(server.address, None, right) == (OK, "")
        assert ask(server.address) == (UNAUTHENTICATED, "the call brings no token")
        assert ask(server.address, None, right + "x") == (UNAUTHENTICATED, "the token is not known")
        assert ask(server.address, None, old) == (UNAUTHENTICATED, "the token has expired")
        assert ask(server.address, None, other) == (DENIED, "this method needs the scope 'recommend'")
        assert ask(server.address, None, "x", method=BATCH)[0] == UNAUTHENTICATED
        assert ask(server.address, None, right, "/reckg.v1.RecommenderService/None")[0] == grpc.StatusCode.UNIMPLEMENTED
        with grpc.insecure_channel(server.address) as channel:
            asked = health_pb2.HealthCheckRequest()
            assert health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10).status  # needs no token
        assert {call.refused for call, code in server.ended if code == DENIED} == {"permission_denied"}
        assert server.in_flight == [0, 0, 0, 0]


def test_a_caller_that_calls_too_often_is_told_when_to_come_back(tokens: Path) -> None:
    busy, calm = (create_token(tokens, name, ["recommend"]) for name in ("busy", "calm"))
    settings = {"auth": {"tokens": tokens}, "limits": {"requests_per_s": 6}, "workers": 2}
    with entered_server(**settings) as server, grpc.insecure_channel(server.address) as channel:
        metadata = (("authorization", f"Bearer {busy}"),)
        codes, pauses = [], []
        for _ in range(8):
            try:
                raw(channel)(MESSAGE, metadata=metadata, timeout=10)
                codes.append(OK)
            except grpc.RpcError as error:
                codes.append(error.code())
                pauses.append(int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]))
        assert codes[:3] == [OK] * 3  # a worker's share of a second's calls
        assert EXHAUSTED in codes[3:] and all(0 < pause <= 334 for pause in pauses)
        assert ask(server.address, None, calm)[0] == OK
        assert {call.refused for call, code in server.ended if code == EXHAUSTED} == {"rate"}


PLANTED = ("planted-user-7f3a", "jane.doe@planted.example", "planted-item-91bc")


class Broken:
    """A recommender whose errors hold what they were about."""

    def __init__(self, error: type[Exception], bundle: Any) -> None:
        self.error, self.bundle = error, bundle

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def fail(*arguments: object, **named: object) -> NoReturn:
            raise self.error(f"{PLANTED} {arguments} {named}")

        return fail


@contextmanager
def real_server(tokens: Path, recommender: Any, observe: Observer) -> Iterator[str]:
    settings = ServerSettings(bundle=Path(), port=0, auth={"tokens": tokens}, log={"level": "debug"})  # type: ignore[arg-type]
    running = start_server(settings, observe=observe)
    running.ready(recommender)
    try:
        yield running.address
    finally:
        running.stop(0)


def calls_that_fail(address: str, token: str) -> list[grpc.StatusCode]:
    """Every way to fail, with the planted names in every field that takes them."""
    user, mail, item = PLANTED
    bad = "reckg_planted_" + token.split("_", 2)[2][::-1]
    request = pb.RecommendRequest(
        user_id=user,
        recent_item_ids=[item, mail],
        attributes=[pb.UserAttribute(name=mail, values=[user])],
        context=pb.Context(item_ids=[item]),
        request_id="r" * 8,
    )
    metadata = (("authorization", f"Bearer {token}"),)
    codes = [ask(address, None, each, message=request.SerializeToString())[0] for each in (None, bad, "Bearer " + mail)]
    with grpc.insecure_channel(address, [("grpc.enable_retries", 0)]) as channel:
        stub = recommender_pb2_grpc.RecommenderServiceStub(channel)

        def tried(call: Callable[..., Any], asked: Any, timeout: float = 20) -> None:
            codes.append(status(lambda: call(asked, metadata=metadata, timeout=timeout))[0])

        tried(stub.Recommend, request)
        tried(stub.Recommend, pb.RecommendRequest(user_id=user, max_item_count=-1, request_id=mail))
        tried(stub.Recommend, pb.RecommendRequest(user_id=user, attributes=[pb.UserAttribute(name=mail)] * 2))
        tried(stub.Recommend, pb.RecommendRequest(user_id=user), -1)
        tried(stub.Recommend, pb.RecommendRequest(user_id=user * 10_000))
        tried(
            stub.Recommend,
            pb.RecommendRequest(
                user_id=user, filter=pb.ItemFilter(predicates=[pb.AttributePredicate(column=mail, values=[user])])
            ),
        )
        tried(stub.SimilarItems, pb.SimilarItemsRequest(item_id=item))
        tried(stub.GetItem, pb.GetItemRequest(item_id=item))
        tried(stub.RankItems, pb.RankItemsRequest(user_id=user, item_ids=[item]))
        tried(lambda *a, **k: list(stub.BatchRecommend(*a, **k)), pb.BatchRecommendRequest(user_ids=[user, mail]))
        damaged = request.SerializeToString()[:-3] + b"\xff\xff\xff"
        tried(raw(channel), damaged)
        tried(raw(channel, BATCH), damaged)
    return codes


@pytest.mark.parametrize("error", [KeyError, ValueError, RuntimeError, UnicodeError, None])
def test_what_was_asked_and_by_whom_is_told_nobody(
    tokens: Path, error: type[Exception] | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = create_token(tokens, "shop", ["recommend"])
    bundle = small_bundle()
    recommender = Recommender(bundle) if error is None else Broken(error, bundle)
    exporter = InMemorySpanExporter()
    observation = Observation(start_tracing(TracingSettings(sample_share=1.0), exporter))
    with real_server(tokens, recommender, observation) as address:
        codes = calls_that_fail(address, token)
    observation.close()
    spans = exporter.get_finished_spans()
    assert len(spans) >= 10
    assert {UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT, EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED} <= set(
        codes
    )
    assert (error is None) == (grpc.StatusCode.INTERNAL not in codes)
    assert grpc.StatusCode.UNKNOWN not in codes
    printed = capfd.readouterr()
    told = caplog.text + printed.out + printed.err + generate_latest(REGISTRY).decode()
    told += "".join(span.to_json() for span in spans)
    assert "Recommend" in told and "reckg_requests_total" in told
    secret = token.split("_", 2)[2]
    for planted in (*PLANTED, secret, secret[::-1]):
        assert planted not in told
    assert (error is None) == ("failed: request" not in caplog.text)


def test_reckg_serve_with_a_certificate_and_tokens(
    tls: dict[str, Path], authority: trustme.CA, tokens: Path, tmp_path: Path
) -> None:
    """All of it at once, as an operator sets it; planted ids are in no line of the processes' log."""
    save_with_golden(small_bundle(), tmp_path / "bundle")
    right, other = create_token(tokens, "shop", ["recommend"]), create_token(tokens, "jobs", ["catalog"])
    environment = {
        "RECKG_TLS_CERTIFICATE": str(tls["certificate"]),
        "RECKG_TLS_KEY": str(tls["key"]),
        "RECKG_AUTH_TOKENS": str(tokens),
        "RECKG_LOG_LEVEL": "debug",
    }
    with served(tmp_path / "bundle", tmp_path / "log", **environment) as server:
        given = credentials(authority)
        wait_until(lambda: ask(server.address, given, right) == (OK, ""))
        assert ask(server.address, given)[0] == UNAUTHENTICATED
        assert ask(server.address, given, other)[0] == DENIED
        assert ask(server.address, None, right)[0] == UNAVAILABLE
        assert ask(server.address, credentials(trustme.CA()), right)[0] == UNAVAILABLE
        planted = pb.RecommendRequest(user_id=PLANTED[0], recent_item_ids=[PLANTED[2]], max_item_count=-1)
        assert ask(server.address, given, right, message=planted.SerializeToString())[0] == INVALID
        assert ask(server.address, given, right, method="/reckg.v1.AdminService/DescribeServing")[0] == DENIED
    log = server.logged()
    assert not [word for word in (*PLANTED, right.split("_", 2)[2], other.split("_", 2)[2]) if word in log]


def test_reckg_serve_does_not_start_with_wrong_files(
    tls: dict[str, Path], authority: trustme.CA, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.supervisor.supervisor.log_to_stderr", lambda level: None)
    write_pair(tmp_path, expired(authority, "localhost"))
    settings = ServerSettings(bundle=tmp_path, port=0, tls=tls)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="certificate has expired"):
        serve(settings)
    create_token(tokens, "shop", ["recommend"])
    tokens.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read or changed by others"):
        serve(ServerSettings(bundle=tmp_path, port=0, auth={"tokens": tokens}))  # type: ignore[arg-type]
