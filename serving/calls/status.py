"""The one table from errors to gRPC status codes."""

from __future__ import annotations

import logging
import traceback
import uuid

import grpc

from reckg.errors import ArtifactError, CannotEmbedError, DataError, DeadlineError, FilterError, UnknownIdError
from serving.processes.channel import CallError, ChannelClosedError
from serving.store import StoreError

logger = logging.getLogger("reckg.serving")


class InvalidRequestError(ValueError):
    """A field of a request is missing or out of range."""


class ExpiredRequestError(Exception):
    """The client's deadline passed, or it went away, before the work began."""


class NoStoreError(Exception):
    """The server was started without a state store."""


class StartingError(Exception):
    """The server is not ready yet."""


class RefusedError(Exception):
    """A call that is not let in. The message holds neither tokens nor names.

    retry_after_s: seconds after which it may be tried again; None where waiting does not help. reason: a word for the
    metrics; default: the status in lower case.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, retry_after_s: float | None = None, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.code, self.retry_after_s, self.reason = code, retry_after_s, reason or code.name.lower()


# The first row that fits decides. Only the errors above the line carry their message to the client; a ValueError
# that is no InvalidRequestError is a fault of ours, not of the client.
TOLD = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (FilterError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownIdError, grpc.StatusCode.NOT_FOUND),
    (CannotEmbedError, grpc.StatusCode.FAILED_PRECONDITION),
    (DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (ExpiredRequestError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (StartingError, grpc.StatusCode.UNAVAILABLE),
    (ChannelClosedError, grpc.StatusCode.UNAVAILABLE),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (NoStoreError, grpc.StatusCode.FAILED_PRECONDITION),
)
LOGGED = (
    ((ArtifactError, DataError), grpc.StatusCode.FAILED_PRECONDITION, "the bundle cannot answer this request"),
    (Exception, grpc.StatusCode.INTERNAL, "internal error"),
)


def status_of(error: Exception, method: str) -> tuple[grpc.StatusCode, str]:
    """The status code and the message a client gets for an error.

    What the client cannot mend is logged under a new request id, and the client gets only that id. The log has the
    error's type and where it was raised but not its message, which may hold user ids.
    """
    if isinstance(error, RefusedError):
        return error.code, str(error)
    if isinstance(error, CallError) and error.code != grpc.StatusCode.INTERNAL.name:
        return grpc.StatusCode[error.code], str(error)
    for kind, code in TOLD:
        if isinstance(error, kind):
            return code, f"{error}; try again" if kind is StoreError else str(error)
    request_id = uuid.uuid4().hex
    code, message = next((code, message) for kind, code, message in LOGGED if isinstance(error, kind))
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: request %s: %s: %s\n%s", method, request_id, code.name, type(error).__name__, where)
    return code, f"{message}; request {request_id} in the server's log"
