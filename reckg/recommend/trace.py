"""Trace: the deadline of a request and the evidence of its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from reckg.recommend.deadline import Deadline
from reckg.recommend.evidence import Evidence


@dataclass(frozen=True)
class Trace:
    """Deadline and evidence that accompany a request through its stages.

    Args:
        deadline: times the stages and refuses to begin one too late. When too little time is left to rank, items are
            returned in retrieval order.
        evidence: collects the data that the answer is made from. For a single user only.
    """

    deadline: Deadline = field(default_factory=Deadline)
    evidence: Evidence | None = None
