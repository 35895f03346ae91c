"""Waiting for another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Returns as soon as the condition holds. Raises AssertionError after so many seconds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"did not come true within {timeout_s:g} s"
        time.sleep(0.01)
