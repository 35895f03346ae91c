"""Authorization: callers are known by bearer tokens or client certificates, and have scopes.

A token reads ``reckg_<id>_<secret>``. The id finds the token in the file, and the hash of the secret is compared.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc

from reckg.errors import ConfigError
from serving.access.file_state import file_state
from serving.access.tokens import TOKEN_PREFIX, Grants, hash_secret, read_grants
from serving.errors import RefusedError

logger = logging.getLogger("reckg.serving")

SERVICE_SCOPES = {
    "reckg.v1.RecommenderService": "recommend",
    "reckg.v1.EventService": "events",
    "reckg.v1.CatalogService": "catalog",
    "reckg.v1.AdminService": "admin",
}
OPEN_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
)
CHECK_S = 1.0  # least time between two looks at the file
NO_HASH = hash_secret("")

Metadata = Iterable[tuple[str, str | bytes]]


def scope_of(method: str) -> str | None:
    """Returns the scope that a method needs, or None for a method that anybody may call.

    Args:
        method: full name, as "/reckg.v1.EventService/RecordEvents". Methods of unknown services need "admin".
    """
    service = method.rpartition("/")[0].lstrip("/")
    return None if service in OPEN_SERVICES else SERVICE_SCOPES.get(service, "admin")


class Authority:
    """Callers of the tokens file, which is read again when it changes. Safe to share between threads.

    A changed file with a mistake is reported in the log, and the callers of the file before it stay valid.

    Args:
        path: the tokens file.
        clock: seconds that never go back.
        now: epoch seconds.

    Raises:
        ConfigError: the file is wrong at the start.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._clock, self._now = path, clock, now
        self._lock = threading.Lock()
        self._seen = file_state(path)
        self._grants = read_grants(path)
        self._checked = clock()

    def by_token(self, metadata: Metadata, scope: str) -> str | None:
        """Returns the principal of a call's token, or None for a call without a token.

        Args:
            metadata: of the call.
            scope: scope that the token must have.

        Raises:
            RefusedError: UNAUTHENTICATED for an unknown or expired token, PERMISSION_DENIED for a missing scope.
        """
        headers = [value for name, value in metadata if name == "authorization"]
        if not headers:
            return None
        kind, _, text = str(headers[0]).partition(" ")
        prefix, _, rest = text.strip().partition("_")
        token_id, _, secret = rest.partition("_")
        if len(headers) > 1 or kind.lower() != "bearer" or prefix != TOKEN_PREFIX or not secret:
            raise _make_unauthenticated(
                f"the metadata 'authorization' must be one 'Bearer {TOKEN_PREFIX}_<id>_<secret>'"
            )
        token = self._current().tokens.get(token_id)
        matches = hmac.compare_digest(hash_secret(secret), NO_HASH if token is None else token.sha256)
        if token is None or not matches:
            raise _make_unauthenticated("the token is not known")
        if token.expires is not None and token.expires.timestamp() <= self._now():
            raise _make_unauthenticated("the token has expired")
        if scope not in token.scopes:
            raise _make_denied(scope)
        return token.principal

    def by_certificate(self, auth_context: Mapping[str, Iterable[bytes]], scope: str) -> str:
        """Returns the first name in a client's certificate that has the scope in the tokens file.

        Args:
            auth_context: of the call, as gRPC gives it.
            scope: scope that the name must have.

        Raises:
            RefusedError: UNAUTHENTICATED for a call without a certificate, PERMISSION_DENIED if no name has the scope.
        """
        names = certificate_names(auth_context)
        if not names:
            raise _make_unauthenticated("the call brings no token")
        known = self._current().certificates
        for name in names:
            if scope in known.get(name, ()):
                return name
        raise _make_denied(scope)

    def _current(self) -> Grants:
        with self._lock:
            if self._clock() - self._checked >= CHECK_S:
                self._checked = self._clock()
                state = file_state(self._path)
                if state != self._seen:
                    self._seen = state
                    try:
                        self._grants = read_grants(self._path)
                        logger.info("the tokens file was read again: %d tokens", len(self._grants.tokens))
                    except ConfigError as error:
                        logger.error("%s; the tokens file as it was before stays in force", error)
            return self._grants


def certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Returns the names in a client's verified certificate: alternative names, then the common name."""
    fields = ("x509_subject_alternative_name", "x509_common_name")
    return [name.decode("utf-8", "replace") for field in fields for name in auth_context.get(field, ())]


def _make_unauthenticated(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAUTHENTICATED, message)


def _make_denied(scope: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, f"this method needs the scope {scope!r}")
