"""A signal that arrives at the worst moments: as the main thread enters its wait, and where it does not notice."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import os, signal, threading, time
from serving.processes.signals import stop_on_signal

stopping = threading.Event()
stop_on_signal(stopping.set, signal.SIGTERM, signal.SIGINT)
"""
# Event.wait holds the lock before it waits.
IN_THE_LOCK = """
with stopping._cond:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
assert stopping.wait(20)
"""
# A signal that another thread receives does not wake the main thread.
UNNOTICED = """
def kill():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=kill).start()
stopping.wait()
"""
OTHERS_ARE_NONE = """
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.raise_signal(signal.SIGUSR1)
assert not stopping.wait(0.5)
signal.raise_signal(signal.SIGTERM)
stopping.wait()
"""


@pytest.mark.parametrize("moment", [IN_THE_LOCK, UNNOTICED, OTHERS_ARE_NONE])
def test_a_signal_is_never_lost(moment: str) -> None:
    program = BEGIN + moment + "print('stopped')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
