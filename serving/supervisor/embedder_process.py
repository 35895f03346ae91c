"""The embedder's process (serving/catalog/embedder.py), kept running by the supervisor."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import threading
import time
from typing import Any

from serving.processes.child_process import child_command, child_environment
from serving.settings import ServerSettings
from serving.supervisor.verify import VersionedBundle

BACK_OFF_S = (1.0, 60.0)  # shortest and longest wait before the next start
STOP_S = 5.0

logger = logging.getLogger("reckg.serving")


class EmbedderProcess:
    """The embedder's process. Without a state store, or if the settings turn it off, it never starts.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._bundle: VersionedBundle | None = None
        self._embedded = ""  # the version for which all items are embedded
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    def follow(self, bundle: VersionedBundle, wait_s: float = 0.0) -> None:
        """Embeds for a bundle from now on, and waits until the store's items are embedded for it.

        A process that is still at its first bundle is not waited for.

        Args:
            bundle: the served bundle, or the next one.
            wait_s: longest wait.
        """
        has_store = self._settings.embedder and self._settings.store.kind != "none"
        if not has_store or not (bundle.path / "inductive").is_dir():
            return
        with self._changed:
            wait_s = wait_s if self._embedded else 0.0
            self._bundle = bundle
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="embedder", daemon=True)
                self._keeper.start()
            elif self._process is not None:
                self._send(self._process, {"bundle": str(bundle.path)})
            if not wait_s:  # no wait for the lock either, which the keeper holds while it starts a process
                return
            if not self._changed.wait_for(lambda: self._embedded == bundle.version or self._stopping.is_set(), wait_s):
                logger.warning("added items are not all embedded for %s after %.1f s", bundle.version, wait_s)

    def stop(self) -> None:
        """Ends the process by the end of its input, or kills it after STOP_S."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
            process = self._process
            self._end_input()
        if process is not None:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._keeper is not None:
            self._keeper.join()

    def _keep(self) -> None:
        delay_s = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            with self._changed:
                if self._stopping.is_set():
                    return
                process = self._process = subprocess.Popen(
                    child_command("serving.catalog.embedder", "--nice"),
                    env=child_environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                self._send(process, {"settings": self._settings.model_dump(mode="json")})
                if self._bundle is not None:
                    self._send(process, {"bundle": str(self._bundle.path)})
            self._listen(process)
            code = process.wait()
            with self._changed:
                self._end_input()
            if self._stopping.is_set():
                return
            settled = time.monotonic() - began > BACK_OFF_S[1]
            delay_s = BACK_OFF_S[0] if settled else min(max(2 * delay_s, BACK_OFF_S[0]), BACK_OFF_S[1])
            logger.warning("the embedder ended with %d; another one starts in %.1f s", code, delay_s)
            self._stopping.wait(delay_s)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.startswith("{"):  # libraries print too
                    report = json.loads(line)
                    with self._changed:
                        self._embedded = report["embedded"]
                        self._changed.notify_all()

    def _send(self, process: subprocess.Popen[str], line: dict[str, Any]) -> None:
        """Sends a line. A process that has ended is started again and gets its lines then."""
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()

    def _end_input(self) -> None:
        """Closes the input of the process, which may have ended with lines unread."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
