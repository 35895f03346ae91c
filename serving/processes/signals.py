"""Signals that end a process in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable


def stop_on_signal(stop: Callable[[], object], *numbers: signal.Signals) -> None:
    """Calls ``stop`` in a thread of its own after the first of these signals. To be called in the main thread.

    A handler runs in the main thread between any two of its instructions. ``Event.set`` in it would wait for ever for
    the lock that the main thread holds while it enters ``Event.wait``. So the handler only writes to a pipe.

    Args:
        stop: as ``Event.set``.
        numbers: of the signals.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wait() -> None:
        os.read(reader, 1)
        stop()

    def handle(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):  # 65,536 signals that nobody has read yet
            os.write(writer, b"\0")

    threading.Thread(target=wait, name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, handle)
