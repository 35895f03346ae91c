"""The interceptor of a server: it finds the caller, counts the call, and gives it a place or rejects it.

It decides from a call's metadata in gRPC's own thread, so that a rejection costs no other. serving/calls/handler.py
takes over from there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from serving.access.authority import Authority, certificate_names, scope_of
from serving.access.rate_limits import RateLimits
from serving.calls.call import CALL, Call, Metadata
from serving.calls.handler import CallHandler, Observer
from serving.calls.lanes import Lane
from serving.calls.rejection import rejection
from serving.errors import RefusedError
from serving.settings import ServerSettings

MOST_REQUESTS = 512  # in a worker; calls whose message has not come yet count too
STREAM_PAUSE_S = 1.0  # a stream that found no place may be tried again after so long
BULK_METHODS = ("/reckg.v1.RecommenderService/BatchRecommend",)


class Interceptor(grpc.ServerInterceptor):
    """Lets calls in. It must be the outermost interceptor, because its handlers take messages as bytes.

    Args:
        settings: of the server.
        observe: called with every call that ended, and its status, in any thread.
        initializer: called in every thread that answers, before its first call.
        clock: seconds that never go back.

    Raises:
        ConfigError: the tokens file is wrong.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        observe: Observer = lambda call, code: None,
        initializer: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = settings.limits
        self._observe, self._clock = observe, clock
        self._authority = None if settings.auth.tokens is None else Authority(settings.auth.tokens)
        self._certificates = settings.tls.client_ca is not None
        per_s = limits.requests_per_s / settings.workers
        self._rates = RateLimits(per_s, clock) if per_s else None
        self._max_bytes, self._max_write_bytes = limits.max_request_bytes, limits.max_write_bytes
        shared: dict[str, Any] = {"initializer": initializer, "clock": clock}
        self.requests = Lane("request", settings.threads, MOST_REQUESTS, limits.max_queue_ms / 1000, **shared)
        self.streams = Lane("stream", 1, limits.max_streams, **shared)  # one message at a time, beside the requests
        self.admin = Lane("admin", 4, 16, **shared)
        self.others = Lane("other", 16, 128, **shared)  # health and reflection
        self._handlers: dict[str, CallHandler] = {}  # by method

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes."""
        return self.requests, self.streams, self.admin, self.others

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Lets a call in or rejects it.

        Args:
            continuation: returns gRPC's handler of the method.
            details: method and metadata of the call.

        Returns:
            The handler of the method in its lane, a handler that rejects the call, or None for an unknown method.
        """
        call_handler = self._handlers.get(details.method)
        if call_handler is None:
            handler = continuation(details)
            if handler is None:
                return None  # gRPC answers UNIMPLEMENTED
            call_handler = self._handlers[details.method] = self._wrap(details.method, handler)
        call = Call(details.method, self._clock(), details.invocation_metadata)
        CALL.set(call)
        try:
            self._look_at_metadata(call, details.invocation_metadata, call_handler.scope)
            wait_s = call_handler.lane.admit(call)
            if wait_s is not None:
                raise self._no_place(call_handler.lane, wait_s)
        except RefusedError as error:
            call.refuse(error)
            self._observe(call, error.code)
            return rejection(error)
        return call_handler.handler

    def _look_at_certificate(self, call: Call, auth_context: Mapping[str, Iterable[bytes]], scope: str) -> None:
        """Finds the principal in the client's certificate, and counts the call. Raises RefusedError."""
        if self._authority is not None:
            call.principal = self._authority.by_certificate(auth_context, scope)
        else:
            call.principal = next(iter(certificate_names(auth_context)), "")
        self._count(call.principal)

    def _look_at_metadata(self, call: Call, metadata: Metadata, scope: str | None) -> None:
        """Finds the principal by its token, and counts the call. Raises RefusedError.

        The principal stays None for a caller without a token who may be known by a certificate.
        """
        if scope is None:
            call.principal = ""
            return
        if self._authority is not None:
            call.principal = self._authority.by_token(metadata, scope)
        elif not self._certificates:
            call.principal = ""
        if call.principal is not None:
            self._count(call.principal)
        elif not self._certificates:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, "the call brings no token")

    def _count(self, principal: str) -> None:
        wait_s = 0.0 if self._rates is None else self._rates.wait_s(principal)
        if wait_s:
            message = "this caller sends more requests than it may"
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_s=wait_s, reason="rate")

    def _no_place(self, lane: Lane, wait_s: float) -> RefusedError:
        if lane is not self.requests:
            wait_s = STREAM_PAUSE_S
        message = "too many calls are in flight"
        pause_s = wait_s * (1 + random.random())  # spread, so that rejected calls do not all come back at once
        reason = "queue" if lane is self.requests else "places"
        return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_s=pause_s, reason=reason)

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler) -> CallHandler:
        scope = scope_of(method)
        if scope is None:
            lane = self.others
        elif scope == "admin":
            lane = self.admin
        else:
            lane = self.streams if handler.response_streaming else self.requests
        bulk = method in BULK_METHODS or scope in ("events", "catalog")
        return CallHandler(
            method,
            handler,
            lane=lane,
            scope=scope,
            max_bytes=self._max_write_bytes if bulk else self._max_bytes,
            look_at_certificate=self._look_at_certificate,
            observe=self._observe,
        )
