"""Compacts the state store now and then."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from reckg.bundle.manifest import MANIFEST
from reckg.bundle.store import is_store
from serving.store import StateStore, StoreError

FIRST_S, EVERY_S = 120.0, 3600.0  # half to one and a half of it, so that processes do not do it at once

logger = logging.getLogger("reckg.serving")


class Compaction:
    """A thread that compacts a store until it is stopped.

    Args:
        store: None: there is nothing to do.
        versions: of the bundles that are served or may be.
    """

    def __init__(
        self,
        store: StateStore | None,
        versions: Callable[[], Collection[str]],
        first_s: float = FIRST_S,
        every_s: float = EVERY_S,
    ) -> None:
        self._store, self._versions, self._waits = store, versions, (first_s, every_s)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._store is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._store,), name="compaction", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Does not wait for a compaction under way: it is done in steps, and any of them may be its last."""
        self._stopped.set()

    def _run(self, store: StateStore) -> None:
        wait_s, every_s = self._waits
        while not self._stopped.wait(wait_s * random.uniform(0.5, 1.5)):
            wait_s = every_s
            try:
                store.compact(int(time.time()), sorted(self._versions()))
            except StoreError as error:
                logger.warning("the state store was not compacted: %s", error)
            except Exception as error:
                logger.exception("the state store was not compacted: %s", type(error).__name__)


def versions_in(path: Path) -> set[str]:
    """Of the bundles in a bundle store; none in a bundle."""
    return {folder.name for folder in path.iterdir() if (folder / MANIFEST).is_file()} if is_store(path) else set()
