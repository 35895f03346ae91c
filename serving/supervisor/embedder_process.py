"""The embedder, kept running by the supervisor: the process that makes vectors of added items (embedding.py)."""

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

BACK_OFF_S = (1.0, 60.0)  # before it is started again: the first time, and at most
STOP_S = 5.0

logger = logging.getLogger("reckg.serving")


class EmbedderProcess:
    """Follows one bundle after the other; does nothing where there is no state store, or settings say so."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._bundle: VersionedBundle | None = None
        self._embedded = ""  # the version for which everything is embedded
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    def follow(self, bundle: VersionedBundle, wait_s: float = 0.0) -> None:
        """Embeds for this bundle from now on; waits until what the store holds is embedded for it, at most so long.

        It does not wait for a process that is still at its first bundle.
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
                self._say(self._process, {"bundle": str(bundle.path)})
            if not wait_s:  # not even for the lock, which the keeper holds while it starts a process
                return
            if not self._changed.wait_for(lambda: self._embedded == bundle.version or self._stopping.is_set(), wait_s):
                logger.warning("added items are not all embedded for %s after %.1f s", bundle.version, wait_s)

    def stop(self) -> None:
        """Closes its input, at which it ends; kills it where it does not."""
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
                self._say(process, {"settings": self._settings.model_dump(mode="json")})
                if self._bundle is not None:
                    self._say(process, {"bundle": str(self._bundle.path)})
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
                    said = json.loads(line)
                    with self._changed:
                        self._embedded = said["embedded"]
                        self._changed.notify_all()

    def _say(self, process: subprocess.Popen[str], line: dict[str, Any]) -> None:
        """One that ends is started again, and told then."""
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()

    def _end_input(self) -> None:
        """Tells the process nothing any more; it may have ended with lines unread."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
