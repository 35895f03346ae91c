"""Connections of the client: the choice between them, and their retries as options of gRPC."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

# Every call but those of AdminService is idempotent and is repeated after it met a stopping server, at the next address
# if there are several. gRPC ends a few calls with CANCELLED while a server drains. An overloaded server rejects a call
# and names the pause before the next try. While most calls fail, none is repeated.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": f"reckg.v1.{name}"} for name in ("RecommenderService", "EventService", "CatalogService")
            ],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.1},  # a failure takes one token, a success gives a tenth
}
CHANNELS = 8  # connections; each one stays with one of the workers that share the server's port


Stub = Callable[[grpc.Channel], Any]  # a generated stub class


class Connections:
    """Connections to a server. A call takes the one with the fewest calls under way.

    Args:
        address: ``host:port``, or ``ip:port`` of several servers with commas between.
        credentials: for TLS; None: no TLS.
        metadata: sent with every call.
        n: number of connections.
    """

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, metadata: tuple[tuple[str, str], ...], n: int
    ) -> None:
        target = f"ipv4:{address}" if "," in address else address
        self._metadata = metadata
        self._channels = [open_channel(target, credentials) for _ in range(n)]
        self._stubs: dict[Stub, list[Any]] = {}
        self._under_way = [0] * n
        self._turn, self._choosing = itertools.cycle(range(n)), threading.Lock()

    def call(self, stub: Stub, method: str, request: Any, timeout_s: float) -> Any:
        """Calls a method and returns its response.

        Args:
            stub: class of the service's stub.
            method: name of the method.
            request: message.
            timeout_s: deadline.
        """
        number = self._begin()
        try:
            return self._method(number, stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        finally:
            self._end(number)

    def call_stream(self, stub: Stub, method: str, request: Any, timeout_s: float) -> Iterator[Any]:
        """Calls a method and returns the iterator over its responses; the arguments are as of `call`."""
        number = self._begin()
        call = self._method(number, stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        call.add_done_callback(lambda _: self._end(number))
        return call

    def raw_call(self, method: str) -> Callable[..., Any]:
        """Makes a function that starts calls with serialized messages; see RecommenderClient.raw_call."""
        calls = [channel.unary_unary(method) for channel in self._channels]

        def start(request: bytes, timeout: float) -> Any:
            number = self._begin()
            call = calls[number].future(request, timeout=timeout, metadata=self._metadata)
            call.add_done_callback(lambda _: self._end(number))
            return call

        return start

    def close(self) -> None:
        """Closes all connections."""
        for channel in self._channels:
            channel.close()

    def _method(self, number: int, stub: Stub, method: str) -> Any:
        if stub not in self._stubs:
            self._stubs[stub] = [stub(channel) for channel in self._channels]
        return getattr(self._stubs[stub][number], method)

    def _begin(self) -> int:
        """Chooses the connection with the fewest calls under way, in turn among equals.

        The connections are spread at random over a server's workers. A worker with few connections answers sooner on
        each, and so gets more calls.
        """
        with self._choosing:
            first, n = next(self._turn), len(self._under_way)
            number = min(range(n), key=lambda each: (self._under_way[each], (each - first) % n))
            self._under_way[number] += 1
        return number

    def _end(self, number: int) -> None:
        with self._choosing:
            self._under_way[number] -= 1


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """Opens a connection to a server; gRPC connects at the first call.

    Args:
        target: ``host:port``, or several addresses as ``ipv4:ip:port,ip:port``.
        credentials: for TLS; None: no TLS.
    """
    options = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),  # short, because a connection may meet a worker that ends
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
    ]
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)
