"""How often each caller may call: a token bucket for each principal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MANY = 10_000  # buckets, above which the full ones are dropped: a full bucket is as good as none


class RateLimits:
    """Lets each principal call ``per_s`` times a second, and up to a second's calls at once.

    A server of n workers gives each worker 1/n of its limit: connections are spread over the workers, and a caller with
    a single connection reaches 1/n of the limit.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s, self.burst = per_s, max(1.0, per_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # principal -> calls left, and when that was so

    def wait_s(self, principal: str) -> float:
        """0: the call may be made, and was counted. Else the seconds after which one may be."""
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
