"""From the interceptor to a method: the message is received and read, its turn comes, and errors get a status."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.calls.call import CALL, Call
from serving.calls.lanes import Lane
from serving.calls.rejection import push_back
from serving.calls.status import status_of
from serving.errors import ExpiredRequestError, InvalidRequestError, RefusedError

LookAtCertificate = Callable[[Call, Mapping[str, Iterable[bytes]], str], None]
Observer = Callable[[Call, grpc.StatusCode], None]


class _CallbacksInLane:
    """A context whose callbacks run in a lane's threads, not in gRPC's only one.

    The health service takes a lock in its callback. It also holds that lock while it waits for gRPC's thread to send a
    message. A client that goes away while another comes would stop the server for good.
    """

    def __init__(self, context: grpc.ServicerContext, lane: Lane) -> None:
        self._context, self._lane = context, lane

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._context.add_callback(functools.partial(self._lane.pool.submit, callback))


class CallHandler:
    """Wraps a method's handler, so that gRPC calls it in a thread of the lane before any message has come.

    Args:
        method: full name of the method.
        handler: the handler that gRPC generated for the method.
        lane: calls that the method shares turns with.
        scope: right that the caller needs; None if anybody may call.
        max_bytes: largest size of a message.
        look_at_certificate: finds the caller in a client's certificate, or raises RefusedError.
        observe: called with every call that ended, and its status.
    """

    def __init__(
        self,
        method: str,
        handler: grpc.RpcMethodHandler,
        *,
        lane: Lane,
        scope: str | None,
        max_bytes: int,
        look_at_certificate: LookAtCertificate,
        observe: Observer,
    ) -> None:
        self.lane, self.scope = lane, scope
        self._method, self._max_bytes = method, max_bytes
        self._look_at_certificate, self._observe = look_at_certificate, observe
        self._read: Callable[[bytes], Any] = handler.request_deserializer
        self._behaviour: Callable[..., Any] = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        self.handler = self._in_lane(handler)

    def _in_lane(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        wrapped: Callable[..., Any]
        make = grpc.stream_stream_rpc_method_handler
        calls_back = getattr(self._behaviour, "experimental_non_blocking", False)
        if not handler.response_streaming:
            wrapped, make = self._answer, grpc.stream_unary_rpc_method_handler
        elif handler.request_streaming:
            wrapped = self._converse
        else:
            wrapped = self._watch if calls_back else self._stream
        behaviour: Any = functools.partial(wrapped)  # unlike a method, it takes attributes
        behaviour.experimental_thread_pool = self.lane.pool
        behaviour.experimental_non_blocking = calls_back
        return make(behaviour, None, handler.response_serializer)

    def _answer(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        with self._passage(context) as call:
            message = self._receive(call, messages)
            with self.lane.turn(call):
                began = self.lane.clock()
                self._check_time(context)
                try:
                    return self._behaviour(self._parse(message), context)
                finally:
                    call.worked_s = self.lane.clock() - began

    def _stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._passage(context) as call:
            message = self._receive(call, messages)
            responses = None
            while True:
                with self.lane.turn(call):
                    self._check_time(context)
                    if responses is None:
                        responses = self._behaviour(self._parse(message), context)
                    response = next(responses, None)
                if response is None:
                    return
                call.idle_since = self.lane.clock()
                yield response
                call.idle_since = None

    def _converse(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._passage(context) as call:
            yield from self._behaviour(self._parse_all(call, messages), context)

    def _watch(self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        with self._passage(context) as call:
            watched = _CallbacksInLane(context, self.lane)
            self._behaviour(self._parse(self._receive(call, messages)), watched, send)

    @contextmanager
    def _passage(self, context: grpc.ServicerContext) -> Iterator[Call]:
        """Spans a call from its first thread to its end, and gives every error its status."""
        call = CALL.get()
        call.context = context
        code = grpc.StatusCode.CANCELLED
        try:
            if call.principal is None and self.scope is not None:
                self._look_at_certificate(call, context.auth_context(), self.scope)
            yield call
            code = context.code() or grpc.StatusCode.OK
        except grpc.RpcError:
            raise  # from gRPC, because the client went away
        except Exception as error:
            code = context.code()
            if code is not None and not isinstance(error, NotImplementedError):
                raise  # the method ended the call itself
            code, details = (code, "not served") if code is not None else status_of(error, self._method)
            if isinstance(error, RefusedError):
                call.refuse(error)
                context.set_trailing_metadata(push_back(error.retry_after_s, context.time_remaining()))
            context.abort(code, details)
        finally:
            self.lane.leave(call, call.worked_s)
            self._observe(call, code)
            call.context = None  # gRPC counts a call as open while anybody holds this

    def _receive(self, call: Call, messages: Iterator[bytes]) -> bytes:
        message = next(messages, None)
        self.lane.received(call)
        if message is None:
            raise InvalidRequestError("the call brings no message")
        self._check_size(message)
        return message

    def _parse_all(self, call: Call, messages: Iterator[bytes]) -> Iterator[Any]:
        for message in messages:
            self.lane.received(call)
            self._check_size(message)
            call.idle_since = None
            yield self._parse(message)
            call.idle_since = self.lane.clock()

    def _check_size(self, message: bytes) -> None:
        if len(message) > self._max_bytes:
            problem = f"the message has {len(message)} bytes; at most {self._max_bytes} are allowed"
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, problem, reason="size")

    def _parse(self, message: bytes) -> Any:
        try:
            return self._read(message)
        except DecodeError:
            raise InvalidRequestError("the message cannot be read: it is damaged or of another type") from None

    def _check_time(self, context: grpc.ServicerContext) -> None:
        left_s = context.time_remaining()
        if not context.is_active() or (left_s is not None and left_s <= 0):
            raise ExpiredRequestError("the deadline passed before the work began")
