"""One call on its way through the server, and the report that its method leaves for metrics and traces."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc

from reckg.recommend.deadline import Deadline
from serving.errors import RefusedError

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class CallReport:
    """Figures of a call for metrics and traces. It holds no user and no item.

    Attributes:
        request_id: of the answer.
        bundle_version: of the answer.
        deadlines: with the times of each answer's stages; a batch has several answers.
        degraded: reasons of all answers.
        best_score: highest score of a ranked answer; None if the answer counts for no drift.
    """

    request_id: str = ""
    bundle_version: str = ""
    deadlines: list[Deadline] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    best_score: float | None = None


class Call:
    """One call.

    Attributes:
        arrived: when gRPC handed the call over; seconds of the lane's clock, as all times here.
        began: when the call got its turn.
        worked_s: how long the call had its turn; None for streams, whose length predicts no other call.
        idle_since: since when the client keeps a stream waiting.
        principal: name of the caller; "" if callers need no token; None until the certificate was read.
        refused: reason of the refusal before any work; "" for a call that was let in.
        report: figures that the method leaves.
    """

    __slots__ = (
        "arrived",
        "began",
        "context",
        "idle_since",
        "metadata",
        "method",
        "principal",
        "refused",
        "report",
        "worked_s",
    )

    def __init__(self, method: str, arrived: float, metadata: Metadata = ()) -> None:
        self.method, self.arrived, self.metadata = method, arrived, metadata
        self.report = CallReport()
        self.refused = ""
        self.principal: str | None = None
        self.context: grpc.ServicerContext | None = None
        self.began: float | None = None
        self.worked_s: float | None = None
        self.idle_since: float | None = None

    def refuse(self, error: RefusedError) -> None:
        """Keeps the reason of a refusal."""
        self.refused = error.reason

    def cancel(self) -> None:
        """Cancels the call if it is under way."""
        if self.context is not None:
            self.context.cancel()


CALL: contextvars.ContextVar[Call] = contextvars.ContextVar("call")  # the call that the present thread works on
