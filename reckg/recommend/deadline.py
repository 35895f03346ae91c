"""Deadline: no stage of a request begins after it, and each stage is timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from reckg.errors import DeadlineError

Stage = Literal["events", "fold_in", "retrieve", "features", "rerank", "diversify", "popular"]


class Deadline:
    """Time left for one request and the stages done so far. Belongs to one thread.

    Args:
        left_s: seconds from now until the deadline.
        min_rerank_s: seconds that must be left for ranking; with fewer the answer stays in retrieval order.
        wanted: asked before each stage whether a caller still waits for the answer.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        left_s: float = math.inf,
        *,
        min_rerank_s: float = 0.0,
        wanted: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds: dict[Stage, float] = {}  # in the order of their first begin; repeated stages add up
        self.began: dict[Stage, float] = {}  # by the clock, the first time
        self._clock, self._wanted, self._min_rerank_s = clock, wanted, min_rerank_s
        self._deadline = clock() + left_s
        self._present: Stage | None = None
        self._began = 0.0
        self.rerank_skipped = False  # True once too little time was left to rank

    def time_left(self) -> float:
        """Returns the seconds until the deadline; negative after it."""
        return self._deadline - self._clock()

    def begin(self, stage: Stage) -> None:
        """Ends the present stage and begins another.

        Args:
            stage: name under which the seconds are counted.
        Raises:
            DeadlineError: the deadline has passed, or nobody waits for the answer; the stage is not begun.
        """
        self.end()
        now = self._clock()
        if now >= self._deadline:
            raise DeadlineError(f"the deadline passed before the stage {stage}")
        if not self._wanted():
            raise DeadlineError(f"the caller went away before the stage {stage}")
        self._present, self._began = stage, now
        self.began.setdefault(stage, now)

    def end(self) -> None:
        """Ends the present stage, if any."""
        if self._present is not None:
            self.seconds[self._present] = self.seconds.get(self._present, 0.0) + self._clock() - self._began
            self._present = None

    def may_rerank(self) -> bool:
        """Tests whether enough time is left to compute features and rank. Once False, always False."""
        self.rerank_skipped = self.rerank_skipped or self.time_left() < self._min_rerank_s
        return not self.rerank_skipped
