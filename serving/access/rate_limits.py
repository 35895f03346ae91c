"""Rate limits: a token bucket for each principal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MANY = 10_000  # above so many buckets the full ones are dropped, since a full bucket equals a missing one


class RateLimits:
    """Allows each principal ``per_s`` calls a second, and up to a second's calls at once.

    A server of n workers gives each worker 1/n of its limit, because connections are spread over the workers. A caller
    with a single connection reaches 1/n of the limit.

    Args:
        per_s: calls a second of a principal.
        clock: seconds that never go back.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s, self.burst = per_s, max(1.0, per_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # principal -> calls left, and the time of that count

    def wait_s(self, principal: str) -> float:
        """Counts a call and returns 0, or returns the seconds after which the principal may call again."""
        now = self._clock()
        with self._lock:
            left, since = self._buckets.get(principal, (self.burst, now))
            left = min(self.burst, left + (now - since) * self.per_s)
            allowed = left >= 1
            self._buckets[principal] = (left - 1 if allowed else left), now
            if len(self._buckets) > MANY:
                self._drop_full(now)
        return 0.0 if allowed else (1 - left) / self.per_s

    def _drop_full(self, now: float) -> None:
        buckets = self._buckets.items()
        self._buckets = {p: (n, since) for p, (n, since) in buckets if n + (now - since) * self.per_s < self.burst}
