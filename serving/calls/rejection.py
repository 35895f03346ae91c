"""Rejections: a call ends before its message is received and before it costs a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from serving.errors import RefusedError


class _CallingThread(ThreadPoolExecutor):
    """A pool that runs its tasks in the calling thread. Only for tasks that wait for nothing, as a rejection."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments, **named))
        return done


_CALLING_THREAD = _CallingThread(1)


def rejection(error: RefusedError) -> grpc.RpcMethodHandler:
    """Makes a handler that ends a call with a status, in gRPC's own thread.

    gRPC runs a behaviour in the pool of its attribute ``experimental_thread_pool``. The handler takes a stream, so that
    gRPC calls it before any message has come.
    """

    def reject(_messages: object, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(push_back(error.retry_after_s, context.time_remaining()))
        context.abort(error.code, str(error))

    reject.experimental_thread_pool = _CALLING_THREAD  # type: ignore[attr-defined]  # a function takes attributes
    return grpc.stream_unary_rpc_method_handler(reject)


def push_back(seconds: float | None, left_s: float | None) -> tuple[tuple[str, str], ...]:
    """Returns the trailing metadata with the pause before a client's next try (gRFC A6).

    Args:
        seconds: pause before the next try; None if another try does not help.
        left_s: seconds to the call's deadline; None without a deadline.

    Returns:
        ``grpc-retry-pushback-ms`` in milliseconds, or -1 if the pause ends after the deadline or another try does not
        help.
    """
    hopeless = seconds is None or (left_s is not None and seconds >= left_s)
    return (("grpc-retry-pushback-ms", "-1" if hopeless else str(max(1, round((seconds or 0) * 1000)))),)
