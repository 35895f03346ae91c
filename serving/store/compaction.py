"""Regular compaction of the state store."""

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

# Each wait is drawn from 0.5 to 1.5 times these seconds, so that processes do not compact at once.
FIRST_S, EVERY_S = 120.0, 3600.0

logger = logging.getLogger("reckg.serving")


class Compaction:
    """A thread that compacts a store until it is stopped.

    Args:
        store: the state store; None: nothing to compact.
        versions: returns the versions of all bundles that are served or may be.
        first_s: mean wait before the first compaction.
        every_s: mean wait between two compactions.
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
        """Starts the thread, once."""
        if self._store is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._store,), name="compaction", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread without a wait for a compaction under way, which may end after any of its steps."""
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
    """Returns the versions of the bundles in a bundle store; none for a bundle's own folder."""
    return {folder.name for folder in path.iterdir() if (folder / MANIFEST).is_file()} if is_store(path) else set()
