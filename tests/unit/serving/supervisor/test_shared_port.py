"""shared_port: one supervisor a port, which its workers share."""

from __future__ import annotations

import socket

import pytest

from reckg.errors import ConfigError
from serving.supervisor.shared_port import SharedPort


def listening(port: int, *, shared: bool) -> socket.socket:
    """As gRPC listens."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_workers_share_what_another_supervisor_cannot_have() -> None:
    with SharedPort("127.0.0.1", 0) as port:
        assert port.number > 0
        assert port.address == f"127.0.0.1:{port.number}"
        message = f"cannot listen at 127.0.0.1:{port.number}: Address already in use; another server does"
        with pytest.raises(ConfigError, match=message):
            SharedPort("127.0.0.1", port.number)  # nobody listens yet
        with listening(port.number, shared=True), listening(port.number, shared=True):
            with pytest.raises(ConfigError, match=message):
                SharedPort("127.0.0.1", port.number)
            client = socket.create_connection(("127.0.0.1", port.number), 5)
            client.close()
    with SharedPort("127.0.0.1", port.number):  # is free again, whatever is left of the connections
        pass


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_where_something_else_listens_is_refused(shared: bool) -> None:
    with listening(0, shared=shared) as other, pytest.raises(ConfigError, match="Address already in use"):
        SharedPort("127.0.0.1", other.getsockname()[1])


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.1:0: Cannot assign requested address"):
        SharedPort("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="cannot listen at no host:0: "):
        SharedPort("no host", 0)
