"""The tokens file: callers and their scopes. Each line is one JSON object for a token or for a certificate:

    {"token_id": "3f...", "principal": "shop", "sha256": "...", "scopes": ["events"], "created": "...", "expires": null}
    {"certificate": "backend.shop.example", "scopes": ["recommend", "events"]}

The file keeps only the hash of a token's secret. The secret has 256 random bits, so that nobody can find it from a
plain hash.
"""

from __future__ import annotations

import hashlib
import secrets
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from reckg.errors import ConfigError, DataError
from reckg.files.atomic_folder import write_atomically
from reckg.files.folder_lock import locked

Scope = Literal["recommend", "events", "catalog", "admin"]
TOKEN_PREFIX = "reckg"


class TokenLine(BaseModel):
    """A line for a token, with the hash of its secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_id: str = Field(pattern=r"^[A-Za-z0-9]{1,32}$")
    principal: str = Field(min_length=1, max_length=256)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created: AwareDatetime
    expires: AwareDatetime | None = None


class CertificateLine(BaseModel):
    """A line for a name in client certificates, with the scopes of its holders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: str = Field(min_length=1, max_length=256)
    scopes: tuple[Scope, ...] = Field(min_length=1)


Line = TokenLine | CertificateLine
LINE: TypeAdapter[Line] = TypeAdapter(
    Annotated[
        Annotated[TokenLine, Tag("token")] | Annotated[CertificateLine, Tag("certificate")],
        Discriminator(lambda line: "certificate" if isinstance(line, dict) and "certificate" in line else "token"),
    ]
)


@dataclass(frozen=True)
class Grants:
    """The content of a tokens file.

    Attributes:
        tokens: by id.
        certificates: scopes by the name in a client certificate.
    """

    tokens: dict[str, TokenLine]
    certificates: dict[str, tuple[Scope, ...]]


def hash_secret(secret: str) -> str:
    """Returns the SHA-256 of a secret in hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def read_lines(path: Path) -> list[Line]:
    """Reads and checks the lines of a tokens file.

    Raises:
        ConfigError: the file is missing, others than its owner may change it, strangers may read it, or a line is
            wrong. The message names the line's number and shows nothing from the line.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"tokens file {path} cannot be read: {why}") from error
    if mode & 0o027:
        raise ConfigError(f"tokens file {path} may be read or changed by others (mode {mode:03o}): chmod 600 {path}")
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(LINE.validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"][1:])
            reason = ": ".join(filter(None, (where, problem["msg"])))
            raise ConfigError(f"tokens file {path}, line {number}: {reason}") from None
    ids = [_name(line) for line in lines]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"tokens file {path} names a token or a certificate twice")
    return lines


def read_grants(path: Path) -> Grants:
    """Reads a tokens file for lookups. Raises ConfigError as read_lines."""
    lines = read_lines(path)
    return Grants(
        {line.token_id: line for line in lines if isinstance(line, TokenLine)},
        {line.certificate: line.scopes for line in lines if isinstance(line, CertificateLine)},
    )


def create_token(path: Path, principal: str, scopes: Sequence[Scope], days: float | None = None) -> str:
    """Adds a token to a tokens file and returns the token. The token itself is stored nowhere.

    Args:
        path: the tokens file; a missing file is created.
        principal: name of the caller in logs and rate limits.
        scopes: groups of methods that the caller may call.
        days: days until the token expires; None: never.

    Raises:
        ConfigError: as read_lines.
        DataError: the principal is empty or too long.
    """
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    created = datetime.now(UTC).replace(microsecond=0)
    line = _line(
        token_id=token_id,
        principal=principal,
        sha256=hash_secret(secret),
        scopes=scopes,
        created=created,
        expires=None if days is None else created + timedelta(days=days),
    )
    _change(path, lambda lines: [*lines, line])
    return f"{TOKEN_PREFIX}_{token_id}_{secret}"


def allow_certificate(path: Path, name: str, scopes: Sequence[Scope]) -> None:
    """Gives scopes to clients whose certificate holds a name, in place of the name's earlier scopes.

    Args:
        path: the tokens file; a missing file is created.
        name: alternative name or common name in the certificate.
        scopes: groups of methods that the clients may call.

    Raises:
        ConfigError: as read_lines.
        DataError: the name is empty or too long.
    """
    line = _line(certificate=name, scopes=scopes)
    _change(path, lambda lines: [*(each for each in lines if _name(each) != _name(line)), line])


def revoke(path: Path, name: str) -> None:
    """Removes a token or a certificate's name from a tokens file.

    Args:
        path: the tokens file.
        name: id of the token, or the certificate's name.

    Raises:
        ConfigError: as read_lines.
        DataError: the file has no line with that name.
    """

    def remove(lines: list[Line]) -> list[Line]:
        kept = [each for each in lines if _name(each)[1] != name]
        if len(kept) == len(lines):
            raise DataError(f"{path} holds no token or certificate {name!r}; `reckg token list` shows its lines")
        return kept

    _change(path, remove)


def describe_tokens(path: Path, now: datetime | None = None) -> str:
    """Describes a tokens file in one line for each token and certificate.

    Args:
        path: the tokens file.
        now: decides which tokens are expired; default: the present.

    Raises:
        ConfigError: as read_lines.
    """
    now = now or datetime.now(UTC)
    rows = []
    for line in read_lines(path):
        if isinstance(line, TokenLine):
            ends = "never expires" if line.expires is None else f"expires {line.expires:%Y-%m-%d %H:%M}"
            ends = "expired" if line.expires is not None and line.expires <= now else ends
            rows.append(f"{line.token_id}  {line.principal}  {','.join(line.scopes)}  {ends}")
        else:
            rows.append(f"certificate {line.certificate}  {','.join(line.scopes)}")
    return "\n".join(rows) or "no tokens"


def _name(line: Line) -> tuple[str, str]:
    return ("token", line.token_id) if isinstance(line, TokenLine) else ("certificate", line.certificate)


def _line(**values: object) -> Line:
    try:
        return LINE.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise DataError(f"{problem['loc'][-1]}: {problem['msg']}, got {problem['input']!r}") from None


def _change(path: Path, change: Callable[[list[Line]], list[Line]]) -> None:
    """Replaces a tokens file by changed lines in one step. Several processes change it one after the other."""
    path = path.resolve()
    if not path.parent.is_dir():
        raise ConfigError(f"tokens file {path}: the folder {path.parent} does not exist")
    with locked(path.parent):
        lines = change(read_lines(path) if path.exists() else [])
        write_atomically(path, "".join(line.model_dump_json() + "\n" for line in lines), mode=0o600)
