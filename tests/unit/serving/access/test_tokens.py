"""The tokens file: hashes alone, changed at once, refused where others reach it; and the command that writes it."""

from __future__ import annotations

import re
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.cli import TOKEN_SCOPES, main
from reckg.errors import ConfigError, DataError
from serving.access.authority import SERVICE_SCOPES
from serving.access.tokens import (
    allow_certificate,
    create_token,
    describe_tokens,
    hash_secret,
    read_grants,
    revoke,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


def test_a_token_is_kept_as_a_hash(file: Path) -> None:
    token = create_token(file, "shop", ["recommend", "events"], days=2)
    prefix, token_id, secret = token.split("_", 2)
    assert prefix == "reckg" and len(secret) == 43  # 256 bits
    kept = read_grants(file).tokens[token_id]
    assert (kept.principal, kept.scopes, kept.sha256) == ("shop", ("recommend", "events"), hash_secret(secret))
    assert kept.expires is not None and kept.expires - kept.created == timedelta(days=2)
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["tokens.jsonl"]


def test_tokens_are_added_and_revoked_one_by_one(file: Path) -> None:
    first, second = (create_token(file, "shop", ["recommend"]).split("_")[1] for _ in range(2))
    allow_certificate(file, "backend.example", ["events"])
    allow_certificate(file, "backend.example", ["admin"])
    grants = read_grants(file)
    assert list(grants.tokens) == [first, second]
    assert grants.certificates == {"backend.example": ("admin",)}
    revoke(file, first)
    assert list(read_grants(file).tokens) == [second]
    revoke(file, "backend.example")
    assert read_grants(file).certificates == {}
    with pytest.raises(DataError, match=f"holds no token or certificate '{first}'; `reckg token list` shows"):
        revoke(file, first)


def test_changes_at_the_same_time_are_all_kept(file: Path) -> None:
    threads = [threading.Thread(target=create_token, args=(file, f"p{n}", ["recommend"])) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.principal for token in read_grants(file).tokens.values()} == {f"p{n}" for n in range(12)}


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666, 0o602])
def test_a_file_that_others_reach_is_refused(file: Path, mode: int) -> None:
    create_token(file, "shop", ["recommend"])
    file.chmod(mode)
    said = rf"tokens.jsonl may be read or changed by others \(mode {mode:03o}\): chmod 600 .*tokens.jsonl$"
    with pytest.raises(ConfigError, match=said):
        read_grants(file)
    with pytest.raises(ConfigError, match=said):
        create_token(file, "shop", ["recommend"])
    file.chmod(0o440)  # as Kubernetes mounts a secret for a group
    assert len(read_grants(file).tokens) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "line 2: token_id: Field required"),
        ("not json", "line 2: Invalid JSON"),
        ('{"certificate": "a", "scopes": ["everything"]}', "line 2: scopes.0: Input should be 'recommend', "),
        ('{"certificate": "a", "scopes": [], "more": 1}', "line 2: scopes: Tuple should have at least 1 item"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(file: Path, text: str, said: str) -> None:
    create_token(file, "shop", ["recommend"])
    with file.open("a") as opened:
        opened.write(text + "\n")
    with pytest.raises(ConfigError, match=said) as raised:
        read_grants(file)
    assert "everything" not in str(raised.value)


def test_what_is_there_twice_is_refused(file: Path) -> None:
    create_token(file, "shop", ["recommend"])
    file.write_text(file.read_text() * 2)
    with pytest.raises(ConfigError, match="names a token or a certificate twice"):
        read_grants(file)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.jsonl cannot be read: No such file or directory"):
        read_grants(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist"):
        create_token(tmp_path / "nowhere" / "tokens.jsonl", "shop", ["recommend"])
    with pytest.raises(DataError, match="principal: String should have at least 1 character, got ''"):
        create_token(tmp_path / "tokens.jsonl", "", ["recommend"])


def test_the_list_shows_no_secrets_and_what_has_expired(file: Path) -> None:
    token = create_token(file, "shop", ["recommend"], days=1)
    create_token(file, "jobs", ["catalog", "admin"])
    allow_certificate(file, "backend.example", ["events"])
    now = datetime.now(UTC)
    lines = describe_tokens(file, now).splitlines()
    assert re.fullmatch(r"[0-9a-f]{12}  shop  recommend  expires \d{4}-\d\d-\d\d \d\d:\d\d", lines[0])
    assert lines[1].endswith("  jobs  catalog,admin  never expires")
    assert lines[2] == "certificate backend.example  events"
    assert describe_tokens(file, now + timedelta(days=2)).splitlines()[0].endswith("  expired")
    assert token.split("_", 2)[2] not in "".join(lines) and read_grants(file).tokens[token.split("_")[1]]


def test_the_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["token", "create", "--file", str(file), "--principal", "shop", "--scope", "recommend"]
    assert main([*arguments, "--scope", "events", "--days", "7"]) == 0
    token = capsys.readouterr().out.strip()
    token_id = token.split("_")[1]
    assert read_grants(file).tokens[token_id].scopes == ("recommend", "events")
    assert main(["token", "certificate", "--file", str(file), "--name", "a.example", "--scope", "admin"]) == 0
    assert main(["token", "list", "--file", str(file)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [token_id, "certificate"]
    assert main(["token", "revoke", "--file", str(file), token_id]) == 0
    assert main(["token", "revoke", "--file", str(file), token_id]) == 2
    assert f"holds no token or certificate '{token_id}'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--scope", "everything"])


def test_the_scopes_are_those_of_the_services() -> None:
    assert tuple(SERVICE_SCOPES.values()) == TOKEN_SCOPES
