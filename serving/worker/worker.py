"""A worker: one process that answers clients. It obeys the supervisor, and ends when the supervisor is gone.

    python -m serving.worker.worker --control-fd N

The supervisor calls ``start`` (settings), ``prepare``, ``commit``, ``abort`` and ``stop``. The worker listens from the
first ``commit`` on.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from serving.monitoring.logs import log_to_stderr
from serving.processes.channel import CallError, Channel, Values
from serving.processes.child_process import do_without_pandas
from serving.processes.signals import stop_on_signal
from serving.settings import ServerSettings
from serving.store.open_store import open_store

if TYPE_CHECKING:
    from serving.worker.server import RunningServer

logger = logging.getLogger("reckg.serving")


class Worker:
    """A worker's side of the control channel, and its server.

    Args:
        control: socket to the supervisor.
    """

    def __init__(self, control: socket.socket) -> None:
        from serving.catalog.snapshot import ServingState
        from serving.monitoring.metrics import observe_store
        from serving.worker.instruments import Instruments
        from serving.worker.server import start_server

        self.state, self._start_server, self._observe_store = ServingState(), start_server, observe_store
        self._open_instruments = Instruments
        self.instruments: Instruments | None = None
        self.running: RunningServer | None = None
        self.settings: ServerSettings | None = None
        self.stopping = threading.Event()
        self.channel = Channel(control, self._answer)
        self._committing = threading.Lock()

    def run(self) -> None:
        """Runs until a signal, the supervisor's ``stop`` or the supervisor's end, and then drains the server."""
        threading.Thread(target=self._take_calls, name="control", daemon=True).start()
        self.stopping.wait()
        with self._committing:
            running = self.running
        if running is not None and self.settings is not None:
            running.stop(self.settings.grace_s)

    def _take_calls(self) -> None:
        try:
            self.channel.serve()
        finally:
            self.stopping.set()

    def _answer(self, name: str, arguments: Values) -> Values:
        if name == "start":
            self.settings = ServerSettings.model_validate(arguments["settings"])
            logging.getLogger().setLevel(self.settings.log.level.upper())
            self.state.store = open_store(self.settings.store, self.settings.bundle, observe=self._observe_store)
            self.instruments = self._open_instruments(self.settings, self.state)
        elif name == "prepare":
            self.state.prepare(Path(arguments["path"]), arguments["manifest_sha256"])
        elif name == "commit":
            self._commit()
        elif name == "abort":
            self.state.abort()
        elif name == "stop":
            self.stopping.set()
        else:
            raise CallError("UNIMPLEMENTED", f"a worker has no {name!r}")
        return {}

    def _commit(self) -> None:
        with self._committing:
            if self.stopping.is_set():
                raise CallError("UNAVAILABLE", "the worker is stopping")
            self.state.commit()
            gc.collect()  # of the new bundle's objects; the old bundle has no cycles and is freed without a collection
            gc.freeze()  # a bundle's objects stay, so later collections during requests skip them
            if self.running is None:
                self.running = self._start_server(
                    self.settings,
                    state=self.state,
                    call_supervisor=self.channel.call,
                    share_port=True,
                    instruments=self.instruments,
                )
                self.running.set_ready()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A worker of `reckg serve`; not to be started by hand.")
    parser.add_argument("--control-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    log_to_stderr()
    do_without_pandas()
    worker = Worker(socket.socket(fileno=options.control_fd))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor too, which stops its workers
    stop_on_signal(worker.stopping.set, signal.SIGTERM)
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
