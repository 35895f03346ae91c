"""Errors of the server beside those of the library; serving/calls/status.py gives each one a gRPC status."""

from __future__ import annotations

import grpc


class InvalidRequestError(ValueError):
    """A field of a request is missing or out of range."""


class ExpiredRequestError(Exception):
    """The deadline passed, or the client went away, before the work began."""


class NoStoreError(Exception):
    """The server runs without a state store."""


class StartingError(Exception):
    """The server is not ready yet."""


class RefusedError(Exception):
    """A refused call. The message names neither tokens nor callers.

    Args:
        code: gRPC status of the refusal.
        message: text for the client.
        retry_after_s: seconds after which the client may try again; None if waiting does not help.
        reason: label of the metric ``reckg_rejected``; default: the status in lower case.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, retry_after_s: float | None = None, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.code, self.retry_after_s, self.reason = code, retry_after_s, reason or code.name.lower()
