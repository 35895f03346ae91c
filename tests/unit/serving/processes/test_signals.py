"""A signal that arrives at the worst moment: while the main thread holds the lock of the event that it waits for."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import signal, threading
from serving.processes.signals import stop_on_signal

stopping = threading.Event()
stop_on_signal(stopping.set, signal.SIGTERM, signal.SIGINT)
with stopping._cond:  # as Event.wait does before it waits
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
assert stopping.wait(20)
print("stopped")
"""


def test_a_signal_never_waits_for_the_main_thread() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
