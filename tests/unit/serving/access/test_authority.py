"""Who calls: tokens and certificates, right and wrong, and changes of the file while it is used."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import grpc
import pytest

from reckg.errors import ConfigError
from serving.access.authority import Authority, certificate_names, scope_of
from serving.access.tokens import allow_certificate, create_token, revoke
from serving.errors import RefusedError

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("authorization", f"Bearer {token}")]


def refusal(authority: Authority, metadata: list[tuple[str, str | bytes]], scope: str = "recommend") -> RefusedError:
    with pytest.raises(RefusedError) as raised:
        authority.by_token(metadata, scope)
    assert raised.value.retry_after_s is None
    return raised.value


def test_a_token_opens_its_scopes(file: Path) -> None:
    token = create_token(file, "shop", ["recommend", "events"])
    authority = Authority(file)
    assert authority.by_token(bearer(token), "recommend") == "shop"
    assert authority.by_token(bearer(token), "events") == "shop"
    assert authority.by_token([("authorization", f"bearer {token}")], "events") == "shop"
    error = refusal(authority, bearer(token), "admin")
    assert (error.code, str(error)) == (DENIED, "this method needs the scope 'admin'")
    assert authority.by_token([("user-agent", "x")], "recommend") is None


def test_what_is_no_token_of_the_file_is_refused(file: Path) -> None:
    token = create_token(file, "shop", ["recommend"])
    other = create_token(file, "other", ["recommend"])
    authority = Authority(file)
    _, token_id, secret = token.split("_", 2)
    other_secret = other.split("_", 2)[2]
    for wrong in (f"{token_id}_{secret}x", f"{token_id}x_{secret}", f"{token_id}_{other_secret}"):
        error = refusal(authority, bearer(f"reckg_{wrong}"))
        assert (error.code, str(error)) == (UNAUTHENTICATED, "the token is not known")
    shapeless: tuple[list[tuple[str, str | bytes]], ...] = (
        bearer(""),
        bearer("reckg_"),
        bearer(f"reckg_{token_id}"),
        bearer(f"other_{token_id}_{secret}"),
        [("authorization", token)],
        [("authorization", f"Basic {token}")],
        [("authorization", "")],
        [*bearer(token), *bearer(token)],
    )
    for metadata in shapeless:
        error = refusal(authority, metadata)
        assert error.code == UNAUTHENTICATED
        assert str(error) == "the metadata 'authorization' must be one 'Bearer reckg_<id>_<secret>'"


def test_a_token_of_any_characters_is_refused_and_does_not_break(file: Path) -> None:
    create_token(file, "shop", ["recommend"])
    for text in ("reckg_a_é", "reckg_\udcff_\udcff", "reckg_\x00_\x00", "reckg___", "reckg_a_" + "x" * 100_000):
        assert refusal(Authority(file), bearer(text)).code == UNAUTHENTICATED


def test_a_token_expires(file: Path) -> None:
    token = create_token(file, "shop", ["recommend"], days=1)
    now = [0.0]
    authority = Authority(file, now=lambda: now[0])
    assert authority.by_token(bearer(token), "recommend") == "shop"
    now[0] = file.stat().st_mtime + 2 * 86_400
    assert str(refusal(authority, bearer(token))) == "the token has expired"


def test_the_file_is_read_again_when_it_changes_but_not_at_every_call(file: Path) -> None:
    clock = Clock()
    first = create_token(file, "shop", ["recommend"])
    authority = Authority(file, clock=clock)
    second = create_token(file, "shop", ["recommend"])
    revoke(file, first.split("_")[1])
    assert authority.by_token(bearer(first), "recommend") == "shop"
    refusal(authority, bearer(second))
    clock.now += 1.0
    assert authority.by_token(bearer(second), "recommend") == "shop"
    refusal(authority, bearer(first))


def test_a_file_that_becomes_wrong_changes_nothing_and_is_reported(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    token = create_token(file, "shop", ["recommend"])
    authority = Authority(file, clock=clock)
    with file.open("a") as opened:
        opened.write("SECRET\n")
    for _ in range(3):
        clock.now += 1.0
        assert authority.by_token(bearer(token), "recommend") == "shop"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and "line 2" in errors[0] and "the tokens file as it was before stays in force" in errors[0]
    os.unlink(file)
    clock.now += 1.0
    assert authority.by_token(bearer(token), "recommend") == "shop"
    assert "SECRET" not in caplog.text
    with pytest.raises(ConfigError, match="cannot be read"):
        Authority(file)


def test_a_certificate_opens_the_scopes_of_its_names(file: Path) -> None:
    allow_certificate(file, "backend.example", ["recommend"])
    allow_certificate(file, "Operator", ["admin"])
    authority = Authority(file)
    shown = {"x509_common_name": [b"Operator"], "x509_subject_alternative_name": [b"other", b"backend.example"]}
    assert authority.by_certificate(shown, "recommend") == "backend.example"
    assert authority.by_certificate(shown, "admin") == "Operator"
    with pytest.raises(RefusedError) as raised:
        authority.by_certificate(shown, "events")
    assert raised.value.code == DENIED
    for nothing in ({}, {"transport_security_type": [b"ssl"]}):
        with pytest.raises(RefusedError) as raised:
            authority.by_certificate(nothing, "recommend")
        assert raised.value.code == UNAUTHENTICATED
    assert certificate_names(shown) == ["other", "backend.example", "Operator"]


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("/reckg.v1.RecommenderService/Recommend", "recommend"),
        ("/reckg.v1.EventService/RecordEvents", "events"),
        ("/reckg.v1.CatalogService/UpsertItems", "catalog"),
        ("/reckg.v1.AdminService/LoadBundle", "admin"),
        ("/grpc.health.v1.Health/Check", None),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None),
        ("/some.Other/Method", "admin"),
        ("/grpc.health.v1.HealthX/Check", "admin"),
        ("nonsense", "admin"),
    ],
)
def test_the_scope_of_a_method(method: str, scope: str | None) -> None:
    assert scope_of(method) == scope
