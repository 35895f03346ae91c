"""Encryption: the server's certificate, the authority of its clients, and whether an address needs them."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc

from reckg.errors import ConfigError
from serving.file_state import file_state
from serving.settings import ServerSettings, TlsSettings

logger = logging.getLogger("reckg.serving")

CHECK_S = 1.0  # the files are looked at no more often


def check_exposure(settings: ServerSettings) -> None:
    """Refuses to listen beyond this machine without TLS, unless that was asked for.

    Raises:
        ConfigError
    """
    if settings.tls.certificate is None and not settings.insecure and not is_loopback(settings.host):
        raise ConfigError(
            f"host {settings.host} is reached from other machines: set tls.certificate and tls.key, "
            "or allow unencrypted calls with --insecure"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Credentials:
    """The PEM files of a server, read again when they change: a new connection gets the new certificate.

    Changed files that are wrong are reported in the log, and those before go on to count.

    Raises:
        ConfigError: a file is missing or is no PEM, key and certificate do not fit, or the certificate is not valid.
    """

    def __init__(self, settings: TlsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._seen, self._checked = self._state(), clock()
        self._current, self.expires = self._read()

    def for_grpc(self) -> grpc.ServerCredentials:
        """What a gRPC server is given; clients must show a certificate where there is a client_ca."""
        clients = self.settings.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._current, self._changed, clients)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at every handshake, in threads of its own. None: nothing changed."""
        with self._lock:
            if self._clock() - self._checked < CHECK_S:
                return None
            self._checked = self._clock()
            state = self._state()
            if state == self._seen:
                return None
            self._seen = state
            try:
                self._current, self.expires = self._read()
            except ConfigError as error:
                logger.error("%s; the certificate before goes on to count", error)
                return None
            logger.info("the certificate was read again; it is valid until %s", self.expires)
            return self._current

    def _files(self) -> list[Path]:
        return [path for path in (self.settings.certificate, self.settings.key, self.settings.client_ca) if path]

    def _state(self) -> list[tuple[int, ...]]:
        return [file_state(path) for path in self._files()]

    def _read(self) -> tuple[grpc.ServerCertificateConfiguration, datetime]:
        certificate, key, *client_ca = (_pem(path) for path in self._files())
        expires = _check_pair(*self._files()[:2])
        for path in self._files()[2:]:
            try:
                ssl.create_default_context(cafile=path)
            except ssl.SSLError as error:
                raise ConfigError(f"tls.client_ca {path} holds no certificate of an authority") from error
        return grpc.ssl_server_certificate_configuration([(key, certificate)], *client_ca), expires


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"TLS file {path} cannot be read: {error.strerror}") from error


def _check_pair(certificate: Path, key: Path) -> datetime:
    """When a server's certificate expires.

    Raises:
        ConfigError: it is no certificate, the key is not its own, or it is not valid now.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls.certificate {certificate} and tls.key {key} are no PEM certificate and key that fit: "
            f"{error.reason or error}"
        ) from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is trusted itself, so that nothing but its dates counts
    client.load_verify_locations(certificate)
    try:
        return _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"tls.certificate {certificate}: {error.verify_message}") from error


def _no_password() -> str:
    raise ConfigError("tls.key is protected by a password; give the key without one, in a file that only reckg reads")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> datetime:
    """Shakes hands in memory. Returns when the server's certificate expires."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = sides[0].getpeercert()
    assert shown is not None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
