"""Calls between the supervisor and a worker, in both directions over one socket: one JSON object a line.

{"id": 7, "call": "prepare", "with": {...}}
{"id": 7, "result": {...}}  or  {"id": 7, "code": "FAILED_PRECONDITION", "error": "..."}
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypedDict

from reckg.errors import ReckgError

logger = logging.getLogger("reckg.serving")

Values = dict[str, Any]  # a call's arguments or its result, JSON values by name
Answer = Callable[[str, Values], Values]

Message = TypedDict(
    "Message", {"id": int, "call": str, "with": Values, "result": Values, "code": str, "error": str}, total=False
)


class CallError(Exception):
    """A refusal by the other end. ``code`` is the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ChannelClosedError(Exception):
    """The other end is gone, or does not answer in time."""


class Channel:
    """One end of a connection. Any thread may call once ``serve`` runs in one.

    Args:
        connection: a socket to the other end.
        answer: gets the name and the arguments of a call from the other end and returns the result, in a thread of its
            own. The caller gets a CallError unchanged, and any other ReckgError as FAILED_PRECONDITION.
    """

    def __init__(self, connection: socket.socket, answer: Answer) -> None:
        self._socket, self._answer = connection, answer
        self._ids = itertools.count()
        self._sending, self._waiting_lock = threading.Lock(), threading.Lock()
        self._waiting: dict[int, Future[Values]] | None = {}  # None: closed

    def call(self, name: str, timeout_s: float, **arguments: Any) -> Values:
        """Calls the other end and returns its result.

        Args:
            name: of the call.
            timeout_s: longest wait for the answer.
            arguments: of the call, JSON values.

        Raises:
            CallError: the other end refused.
            ChannelClosedError: the other end is gone, or did not answer within ``timeout_s``.
        """
        number, reply = next(self._ids), Future[Values]()
        with self._waiting_lock:
            if self._waiting is None:
                raise ChannelClosedError(f"the other end was gone before {name!r}")
            self._waiting[number] = reply
        try:
            self._send({"id": number, "call": name, "with": arguments})
            return reply.result(timeout_s)
        except TimeoutError:
            raise ChannelClosedError(f"no answer to {name!r} within {timeout_s:g} s") from None
        finally:
            with self._waiting_lock:
                if self._waiting is not None:
                    self._waiting.pop(number, None)

    def serve(self) -> None:
        """Reads until the other end closes. Then every call that waits, and every later call, fails."""
        try:
            with self._socket.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except OSError as error:  # reset: the other end was killed with calls unread
            logger.debug("control channel: %s", error)
        finally:
            self._close()

    def _take(self, message: Message) -> None:
        if "call" in message:
            threading.Thread(target=self._reply, args=(message,), name=message["call"], daemon=True).start()
            return
        with self._waiting_lock:
            reply = (self._waiting or {}).pop(message["id"], None)
        if reply is None:  # the caller gave up meanwhile
            return
        if "error" in message:
            reply.set_exception(CallError(message["code"], message["error"]))
        else:
            reply.set_result(message["result"])

    def _reply(self, message: Message) -> None:
        try:
            reply: Message = {"result": self._answer(message["call"], message["with"])}
        except CallError as error:
            reply = {"code": error.code, "error": str(error)}
        except ReckgError as error:
            reply = {"code": "FAILED_PRECONDITION", "error": str(error)}
        except Exception as error:
            logger.exception("%s failed", message["call"])
            reply = {"code": "INTERNAL", "error": f"{type(error).__name__}: {error}"}
        try:
            self._send({**reply, "id": message["id"]})
        except ChannelClosedError:
            logger.debug("nobody waits for the answer to %s", message["call"])

    def _send(self, message: Message) -> None:
        data = (json.dumps(message) + "\n").encode()
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosedError(f"the other end is gone: {error}") from error

    def _close(self) -> None:
        with self._waiting_lock:
            waiting, self._waiting = self._waiting or {}, None
        for reply in waiting.values():
            reply.set_exception(ChannelClosedError("the other end is gone"))
        self._socket.close()
