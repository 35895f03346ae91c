"""Signals that end a process in good order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable


def stop_on_signal(stop: Callable[[], object], *numbers: signal.Signals) -> None:
    """Calls ``stop`` in a thread of its own after the first of these signals. To be called in the main thread.

    A handler in Python is not enough. It runs in the main thread between two of its instructions: if ``Event.set`` is
    called there while the main thread enters ``Event.wait``, it waits for ever for the thread's own lock; and a signal
    in the moment before the wait begins is noticed after the wait. So the signal is written to a pipe as it arrives.

    Args:
        stop: as ``Event.set``.
        numbers: of the signals.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        while os.read(reader, 1)[0] not in numbers:
            pass  # another signal
        stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
