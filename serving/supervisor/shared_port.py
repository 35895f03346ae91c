"""The port that the workers of a server share. One supervisor keeps it."""

from __future__ import annotations

import contextlib
import socket
from types import TracebackType

from reckg.errors import ConfigError


class SharedPort:
    """A port kept for the workers, which listen there with SO_REUSEPORT.

    SO_REUSEPORT alone would let two servers share a port silently. So the port is first bound without it, which fails
    if anybody listens there, and then opened to the workers. An abstract socket with the port's name finds a second
    server while the workers of the first do not listen yet.

    Args:
        host: address to listen on.
        port: its port; 0: a free one.

    Raises:
        ConfigError: the host is unknown, or another process listens there.
    """

    def __init__(self, host: str, port: int) -> None:
        self.shown_host = f"[{host}]" if ":" in host else host
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._port = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(f"cannot listen at {self.shown_host}:{port}: {error.strerror or error}") from error
        self._name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._port.bind(address)
            self.number: int = self._port.getsockname()[1]
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._name.bind(f"\0reckg {address[0]}:{self.number}")
        except OSError as error:
            self.close()
            raise ConfigError(
                f"cannot listen at {self.shown_host}:{port}: {error.strerror}; another server does? Stop it, or choose "
                "another port, or 0 for a free one."
            ) from error

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.shown_host}:{self.number}"

    def close(self) -> None:
        """Frees the port."""
        with contextlib.suppress(OSError):
            self._port.close()
            self._name.close()

    def __enter__(self) -> SharedPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
