"""TLS credentials of a server. They change without a restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

import grpc

from reckg.errors import ConfigError
from serving.access.certificate import check_certificate, tls_files
from serving.access.file_state import file_state
from serving.settings import TlsSettings

logger = logging.getLogger("reckg.serving")

CHECK_S = 1.0  # least time between two looks at the files


class Credentials:
    """The PEM files of a server, read again when they change, so that a new connection gets the new certificate.

    Changed files with a mistake are reported in the log, and the certificate before them stays in force.

    Args:
        settings: with a certificate and a key.
        clock: seconds that never go back.

    Raises:
        ConfigError: as check_certificate.
    """

    def __init__(self, settings: TlsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._seen, self._checked = self._states(), clock()
        self._current, self.expires = self._read()

    def for_grpc(self) -> grpc.ServerCredentials:
        """Makes credentials for a gRPC server. With a client_ca, clients must show a certificate."""
        clients = self._settings.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._current, self.changed, clients)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the new configuration, or None if nothing changed. gRPC calls this at every handshake."""
        with self._lock:
            if self._clock() - self._checked < CHECK_S:
                return None
            self._checked = self._clock()
            states = self._states()
            if states == self._seen:
                return None
            self._seen = states
            try:
                self._current, self.expires = self._read()
            except ConfigError as error:
                logger.error("%s; the certificate before it stays in force", error)
                return None
            logger.info("the certificate was read again; it is valid until %s", self.expires)
            return self._current

    def _states(self) -> list[tuple[int, ...]]:
        return [file_state(path) for path in tls_files(self._settings)]

    def _read(self) -> tuple[grpc.ServerCertificateConfiguration, datetime]:
        expires = check_certificate(self._settings)
        certificate, key, *client_ca = (path.read_bytes() for path in tls_files(self._settings))
        return grpc.ssl_server_certificate_configuration([(key, certificate)], *client_ca), expires
