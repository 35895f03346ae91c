"""Checks of a server's PEM files at the start. Without them gRPC would fail at the first connection."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from reckg.errors import ConfigError
from serving.settings import TlsSettings


def check_certificate(settings: TlsSettings) -> datetime:
    """Checks the PEM files and returns when the server's certificate expires (UTC).

    Args:
        settings: with a certificate and a key.

    Raises:
        ConfigError: a file is missing or is no PEM, key and certificate do not match, or the certificate is not valid.
    """
    assert settings.certificate is not None and settings.key is not None
    for path in tls_files(settings):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS file {path} cannot be read: {error.strerror}") from error
    if settings.client_ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"tls.client_ca {settings.client_ca} is no PEM certificate: {error.reason}") from error
    return _check_pair(settings.certificate, settings.key)


def tls_files(settings: TlsSettings) -> list[Path]:
    """Lists certificate, key and, if clients must show certificates, their authority."""
    return [path for path in (settings.certificate, settings.key, settings.client_ca) if path is not None]


def _check_pair(certificate: Path, key: Path) -> datetime:
    """Checks a certificate and its key, and returns when the certificate expires.

    Raises:
        ConfigError: a file is no PEM, the key does not match, or the certificate is not valid now.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls.certificate {certificate} and tls.key {key} are no PEM certificate and key that match: "
            f"{error.reason or error}"
        ) from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate trusts itself, so that only its dates count
    client.load_verify_locations(certificate)
    try:
        return _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"tls.certificate {certificate}: {error.verify_message}") from error


def _no_password() -> str:
    raise ConfigError("tls.key is protected by a password; give the key without one, in a file that only reckg reads")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> datetime:
    """Does a TLS handshake in memory and returns when the server's certificate expires."""
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
    certificate = sides[0].getpeercert()
    assert certificate is not None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
