"""From the entrance to a method: its message is received and read, its turn comes, and its errors get a status."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from serving.calls.lanes import CALL, Call, Lane, push_back
from serving.calls.status import ExpiredRequestError, InvalidRequestError, RefusedError, status_of

if TYPE_CHECKING:
    from serving.calls.interceptor import Entrance


class _EndsElsewhere:
    """A context whose callbacks run in a lane's threads, not in gRPC's only one.

    The health service takes a lock in its callback that it holds while it waits for that thread to send a message: a
    client that goes away while another comes would stop the server for good.
    """

    def __init__(self, context: grpc.ServicerContext, lane: Lane) -> None:
        self._context, self._lane = context, lane

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._context.add_callback(functools.partial(self._lane.pool.submit, callback))


class WayIn:
    """Makes of a method's handler one that gRPC calls at once, before any message is there, in threads of the lane."""

    def __init__(
        self, entrance: Entrance, method: str, handler: grpc.RpcMethodHandler, lane: Lane, scope: str | None, most: int
    ) -> None:
        self.lane, self.scope = lane, scope
        self._entrance, self._method, self._max_bytes = entrance, method, most
        self._read: Callable[[bytes], Any] = handler.request_deserializer
        self._behaviour: Callable[..., Any] = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        self.handler = self._in_lane(handler)

    def _in_lane(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        way: Callable[..., Any]
        make = grpc.stream_stream_rpc_method_handler
        calls_back = getattr(self._behaviour, "experimental_non_blocking", False)
        if not handler.response_streaming:
            way, make = self._answer, grpc.stream_unary_rpc_method_handler
        elif handler.request_streaming:
            way = self._converse
        else:
            way = self._watch if calls_back else self._stream
        behaviour: Any = functools.partial(way)  # unlike a method, it takes attributes
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
                    return self._behaviour(self._parsed(message), context)
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
                        responses = self._behaviour(self._parsed(message), context)
                    response = next(responses, None)
                if response is None:
                    return
                call.idle_since = self.lane.clock()
                yield response
                call.idle_since = None

    def _converse(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._passage(context) as call:
            yield from self._behaviour(self._all_parsed(call, messages), context)

    def _watch(self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        with self._passage(context) as call:
            watched = _EndsElsewhere(context, self.lane)
            self._behaviour(self._parsed(self._receive(call, messages)), watched, send)

    @contextmanager
    def _passage(self, context: grpc.ServicerContext) -> Iterator[Call]:
        """Between a call's first thread and its end. Whatever is raised within gets its status."""
        call = CALL.get()
        call.context = context
        code = grpc.StatusCode.CANCELLED
        try:
            if call.principal is None and self.scope is not None:
                self._entrance.look_at_certificate(call, context.auth_context(), self.scope)
            yield call
            code = context.code() or grpc.StatusCode.OK
        except grpc.RpcError:
            raise  # gRPC's own, where the client went away
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
            self._entrance.observe(call, code)
            call.context = None  # gRPC counts a call as open while anybody holds this

    def _receive(self, call: Call, messages: Iterator[bytes]) -> bytes:
        message = next(messages, None)
        self.lane.received(call)
        if message is None:
            raise InvalidRequestError("the call brings no message")
        self._check_size(message)
        return message

    def _all_parsed(self, call: Call, messages: Iterator[bytes]) -> Iterator[Any]:
        for message in messages:
            self.lane.received(call)
            self._check_size(message)
            call.idle_since = None
            yield self._parsed(message)
            call.idle_since = self.lane.clock()

    def _check_size(self, message: bytes) -> None:
        if len(message) > self._max_bytes:
            what = f"the message has {len(message)} bytes; at most {self._max_bytes} are allowed"
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, what, reason="size")

    def _parsed(self, message: bytes) -> Any:
        try:
            return self._read(message)
        except DecodeError:
            raise InvalidRequestError("the message cannot be read: it is damaged or of another type") from None

    def _check_time(self, context: grpc.ServicerContext) -> None:
        left_s = context.time_remaining()
        if not context.is_active() or (left_s is not None and left_s <= 0):
            raise ExpiredRequestError("the deadline passed before the work began")
