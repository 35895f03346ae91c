"""The port that the workers share: found and kept by the supervisor, and by one supervisor only."""

from __future__ import annotations

import contextlib
import socket
from types import TracebackType

from reckg.errors import ConfigError


class SharedPort:
    """Keeps ``host:port`` (port 0: a free one) for the workers, which listen there with SO_REUSEPORT.

    Two servers would share a port silently through SO_REUSEPORT. So the port is bound without it, which fails where
    anybody listens, and only then opened to the workers; and an abstract socket of the port's name tells servers apart
    whose workers do not listen yet.

    Raises:
        ConfigError: the host is unknown, or something listens there.
    """

    def __init__(self, host: str, port: int) -> None:
        self.shown_host = f"[{host}]" if ":" in host else host
        try:
            family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._port = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(f"cannot listen at {self.shown_host}:{port}: {error.strerror or error}") from error
        self._name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._port.bind(where)
            self.number: int = self._port.getsockname()[1]
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._name.bind(f"\0reckg {where[0]}:{self.number}")
        except OSError as error:
            self.close()
            raise ConfigError(
                f"cannot listen at {self.shown_host}:{port}: {error.strerror}; another server does? Stop it, or choose "
                "another port, or 0 for a free one."
            ) from error

    @property
    def address(self) -> str:
        return f"{self.shown_host}:{self.number}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._port.close()
            self._name.close()

    def __enter__(self) -> SharedPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
