"""The snapshot that a worker answers from: immutable, taken once by each request and replaced in one step."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from reckg.bundle.manifest import GOLDEN, MANIFEST
from reckg.bundle.read import load_bundle
from reckg.errors import ArtifactError
from reckg.live.overlay import Overlay
from reckg.recommend.golden import replay_golden_file
from reckg.recommend.recommender import Recommender
from serving.errors import StartingError
from serving.store import StateStore, StoreError

REFRESH_S = 0.5  # seconds between two looks of a worker for catalog changes

logger = logging.getLogger("reckg.serving")


@dataclass(frozen=True, eq=False)
class Served:
    """A served bundle with the catalog changes up to ``catalog_revision``.

    Attributes:
        stale_catalog: whether the store did not answer the latest call.
        added_count: number of items added since the bundle was built.
        blocked_count: number of items that were removed or are not available.
    """

    recommender: Recommender
    catalog_revision: int = 0
    stale_catalog: bool = False
    added_count: int = 0
    blocked_count: int = 0

    @property
    def bundle_version(self) -> str:
        """The version of the bundle."""
        return self.recommender.bundle.version

    def is_added(self, item_idx: int) -> bool:
        """Returns whether an item was added since the bundle was built."""
        return item_idx >= len(self.recommender.bundle.built.item_ids)


class ServingState:
    """The state of a worker. A request reads ``current`` once, and so answers from one version.

    Args:
        store: the state store with catalog changes; None: no changes.
    """

    def __init__(self, store: StateStore | None = None) -> None:
        self.store = store
        self._current: Served | None = None
        self._overlay: Overlay | None = None
        self._prepared: Overlay | None = None
        self._changing = threading.Lock()  # held by whoever replaces the snapshot, never by requests
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Served:
        """The snapshot. Raises StartingError before the first."""
        current = self._current
        if current is None:
            raise StartingError("the bundle is still loading; try again")
        return current

    def serve(self, recommender: Recommender) -> None:
        """Answers from a recommender from now on, with the store's catalog changes."""
        if self.store is None:
            self._current = Served(recommender)
        else:
            self._take(Overlay.of(recommender.bundle), recommender)

    def prepare(self, path: Path, manifest_sha256: str) -> None:
        """Loads a bundle beside the served one and replays its golden requests, which also warm it.

        Another process has verified the bundle. Sizes, shapes and the hashes of files with fragile parsers are checked
        again, so that a file that changed in between ends no worker.

        Args:
            path: the bundle.
            manifest_sha256: hash of the manifest under which the bundle was verified.

        Raises:
            ArtifactError: the bundle changed after it was verified, or cannot be loaded.
        """
        self.abort()
        bundle = load_bundle(path, verify=False)
        if hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest() != manifest_sha256:
            raise ArtifactError(f"{path} was changed after it was verified")
        if bundle.ranker is not None:
            bundle.ranker.compile()
        replay_golden_file(bundle, path / GOLDEN)
        self._prepared = self._refresh_overlay(Overlay.of(bundle))[0]

    def commit(self) -> None:
        """Answers from the prepared bundle. Requests that began with the old bundle finish with it."""
        if self._prepared is None:
            raise ArtifactError("no bundle is prepared")
        prepared, self._prepared = self._prepared, None
        self._take(prepared, None)

    def abort(self) -> None:
        """Forgets the prepared bundle, if any."""
        self._prepared = None

    def follow(self, every_s: float = REFRESH_S) -> None:
        """Follows the catalog in a thread of its own until ``stop``.

        Args:
            every_s: seconds between two looks.
        """
        if self.store is not None and self._thread is None:
            self._thread = threading.Thread(target=self._follow, args=(every_s,), name="catalog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends ``follow``. The served snapshot stays."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def refresh(self) -> None:
        """Applies the catalog changes that the store holds now."""
        with self._changing:
            before = self._overlay
            if before is None or self.store is None:
                return
            overlay, answered = self._refresh_overlay(before)
            current = self.current
            if overlay is not before or current.stale_catalog == answered:
                self._publish(overlay, answered, current.recommender if overlay.served is before.served else None)

    def _follow(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                self.refresh()
            except Exception as error:
                logger.exception("changes of the catalog could not be applied: %s", type(error).__name__)

    def _take(self, overlay: Overlay, recommender: Recommender | None) -> None:
        """Serves another bundle with the store's latest changes."""
        with self._changing:
            refreshed, answered = self._refresh_overlay(overlay)
            self._publish(refreshed, answered, recommender if refreshed is overlay else None)

    def _publish(self, overlay: Overlay, answered: bool, recommender: Recommender | None) -> None:
        self._overlay = overlay
        recommender, counts = recommender or Recommender(overlay.served), (overlay.added_count, overlay.blocked_count)
        self._current = Served(recommender, overlay.known_revision, not answered, *counts)

    def _refresh_overlay(self, overlay: Overlay) -> tuple[Overlay, bool]:
        """Returns the overlay with the store's new changes, and whether the store answered."""
        if self.store is None:
            return overlay, True
        try:
            revision = self.store.catalog_revision()
            if revision < overlay.revision or overlay.is_worn:  # the store was replaced, or the overlay is worn out
                overlay = Overlay.of(overlay.base)
            changes = self.store.catalog_changes(overlay.revision) if revision > overlay.revision else []
            waiting = {change.item_id for change in changes if change.kind == "upsert"} | overlay.pending.keys()
            waiting = {item_id for item_id in waiting if item_id not in overlay.base.item_ids}
            embedded = self.store.embedded(overlay.base.version, sorted(waiting)) if waiting else []
        except StoreError:
            return overlay, False
        return overlay.apply(changes, embedded), True
