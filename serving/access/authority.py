"""Who calls, and what they may call: bearer tokens and client certificates.

A token reads ``reckg_<id>_<secret>``. It is looked up by its id, and the hash of its secret compared.
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
CHECK_S = 1.0  # the file is looked at no more often
NO_HASH = hash_secret("")

Metadata = Iterable[tuple[str, str | bytes]]


def scope_of(method: str) -> str | None:
    """The scope that a method, as "/reckg.v1.EventService/RecordEvents", needs; None: none. Unknown services: admin."""
    service = method.rpartition("/")[0].lstrip("/")
    return None if service in OPEN_SERVICES else SERVICE_SCOPES.get(service, "admin")


class Authority:
    """Knows callers by the tokens file, which is read again when it changes. Safe to share between threads.

    A changed file that is wrong is reported in the log, and what it said before goes on to count.

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
        """The principal of the token that a call brings; None where it brings none.

        Raises:
            RefusedError: UNAUTHENTICATED: no known token, or an expired one. PERMISSION_DENIED: without the scope.
        """
        given = [value for name, value in metadata if name == "authorization"]
        if not given:
            return None
        kind, _, text = str(given[0]).partition(" ")
        prefix, _, rest = text.strip().partition("_")
        token_id, _, secret = rest.partition("_")
        if len(given) > 1 or kind.lower() != "bearer" or prefix != TOKEN_PREFIX or not secret:
            raise _unauthenticated(f"the metadata 'authorization' must be one 'Bearer {TOKEN_PREFIX}_<id>_<secret>'")
        token = self._current().tokens.get(token_id)
        right = hmac.compare_digest(hash_secret(secret), NO_HASH if token is None else token.sha256)
        if token is None or not right:
            raise _unauthenticated("the token is not known")
        if token.expires is not None and token.expires.timestamp() <= self._now():
            raise _unauthenticated("the token has expired")
        if scope not in token.scopes:
            raise _denied(scope)
        return token.principal

    def by_certificate(self, auth_context: Mapping[str, Iterable[bytes]], scope: str) -> str:
        """The name in a client's certificate that the tokens file gives scopes to.

        Raises:
            RefusedError: UNAUTHENTICATED: there is no certificate. PERMISSION_DENIED: no name of it has the scope.
        """
        names = certificate_names(auth_context)
        if not names:
            raise _unauthenticated("the call brings no token")
        known = self._current().certificates
        for name in names:
            if scope in known.get(name, ()):
                return name
        raise _denied(scope)

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
                        logger.error("%s; what it said before goes on to count", error)
            return self._grants


def certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names in a client's verified certificate: alternative names, then the common name; none without one."""
    fields = ("x509_subject_alternative_name", "x509_common_name")
    return [name.decode("utf-8", "replace") for field in fields for name in auth_context.get(field, ())]


def _unauthenticated(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAUTHENTICATED, message)


def _denied(scope: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, f"this method needs the scope {scope!r}")
