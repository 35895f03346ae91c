"""The one table from errors to gRPC status codes."""

from __future__ import annotations

import logging
import traceback
import uuid

import grpc

from reckg.errors import ArtifactError, CannotEmbedError, DataError, DeadlineError, FilterError, UnknownIdError
from serving.errors import ExpiredRequestError, InvalidRequestError, NoStoreError, RefusedError, StartingError
from serving.processes.channel import CallError, ChannelClosedError
from serving.store import StoreError

logger = logging.getLogger("reckg.serving")

# The first matching row decides. Clients see the messages of these errors. A ValueError that is no InvalidRequestError
# is a fault of the server, not of the client.
CLIENT_ERRORS = (
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
# The messages of all other errors stay in the server's log.
SERVER_ERRORS = (
    ((ArtifactError, DataError), grpc.StatusCode.FAILED_PRECONDITION, "the bundle cannot answer this request"),
    (Exception, grpc.StatusCode.INTERNAL, "internal error"),
)


def status_of(error: Exception, method: str) -> tuple[grpc.StatusCode, str]:
    """Returns the status code and the message that a client gets for an error.

    An error that the client cannot mend is logged under a new request id, and the client gets that id alone. The log
    holds the error's type and the place where it was raised. It leaves out the message, which may hold user ids.

    Args:
        error: raised by a method or on the way to it.
        method: full name of the method, as "/reckg.v1.EventService/RecordEvents".
    """
    if isinstance(error, RefusedError):
        return error.code, str(error)
    if isinstance(error, CallError) and error.code != grpc.StatusCode.INTERNAL.name:
        return grpc.StatusCode[error.code], str(error)
    for kind, code in CLIENT_ERRORS:
        if isinstance(error, kind):
            return code, f"{error}; try again" if kind is StoreError else str(error)
    request_id = uuid.uuid4().hex
    code, message = next((code, message) for kind, code, message in SERVER_ERRORS if isinstance(error, kind))
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: request %s: %s: %s\n%s", method, request_id, code.name, type(error).__name__, where)
    return code, f"{message}; request {request_id} in the server's log"
