"""Hot swaps: from a version's name to a bundle that all workers serve, or a reason why it is not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from reckg.bundle.store import LATEST, UnknownVersionError, hold, is_store, latest_version, resolve
from reckg.errors import ArtifactError, ReckgError
from serving.processes.channel import CallError
from serving.settings import ServerSettings
from serving.supervisor.embedder_process import EmbedderProcess
from serving.supervisor.fleet import Fleet
from serving.supervisor.verify import VersionedBundle, described, verify

EMBED_S = 20.0  # that a swap waits for added items to be embedded for the new bundle

logger = logging.getLogger("reckg.serving")


def find_bundle(path: Path, version: str = LATEST) -> VersionedBundle:
    """A version of a bundle store, or the bundle itself; not verified.

    Raises:
        UnknownVersionError: the store holds no such version. ArtifactError: it has no readable manifest.
    """
    if not is_store(path):
        return described(path)
    folder = resolve(path, version)
    bundle = described(folder)
    if bundle.version != folder.name:
        raise ArtifactError(f"{folder} holds the version {bundle.version!r}, not the one that it is named for")
    return bundle


class Swaps:
    """Swaps the fleet's bundle, one swap at a time. ``done`` and ``failed`` count, ``last_error`` says why.

    seconds: how long the last one took. served_since: when the present bundle was committed, epoch seconds.

    Raises:
        UnknownVersionError: a variant of the experiment names a version that the store does not hold.
    """

    def __init__(self, settings: ServerSettings, fleet: Fleet, embedder: EmbedderProcess | None = None) -> None:
        self.settings, self.fleet, self.embedder = settings, fleet, embedder or EmbedderProcess(settings)
        self.seconds, self.served_since = 0.0, time.time()
        self.previous: VersionedBundle | None = None
        self.done, self.failed, self.last_error = 0, 0, ""
        self._turn = threading.Lock()
        self._held: dict[VersionedBundle, ExitStack] = {}
        versions = settings.experiment.bundle_versions
        self._variants = {described(resolve(settings.bundle, version)) for version in versions}
        self._hold()
        self._seen = fleet.committed.version  # what the store's latest said when it was last looked at

    def load(self, version: str = LATEST) -> dict[str, str]:
        """Serves a version of the bundle store. Raises CallError with the code of AdminService.LoadBundle."""
        if not is_store(self.settings.bundle):
            raise CallError("FAILED_PRECONDITION", f"{self.settings.bundle} is a bundle and no store: nothing to load")
        return self._swap(lambda: find_bundle(self.settings.bundle, version))

    def rollback(self) -> dict[str, str]:
        """Serves the bundle again that was served before. Raises CallError as AdminService.RollbackBundle."""
        previous = self.previous
        if previous is None:
            raise CallError("FAILED_PRECONDITION", "no other bundle was served before")
        return self._swap(lambda: find_bundle(self.settings.bundle, previous.version))

    def watch(self, stopping: threading.Event) -> None:
        """Follows the store's latest until the server stops. A version that failed waits for latest to change."""
        while not stopping.wait(self.settings.watch_s):
            try:
                self.look()
            except Exception:  # the next look may be better than no more
                logger.exception("looking for the latest version failed")

    def look(self) -> None:
        """Swaps if the store's latest changed since the last look."""
        try:
            named = latest_version(self.settings.bundle) or ""
        except (OSError, ReckgError) as error:
            named = f"?{error}"
        if named == self._seen:
            return
        try:
            self.load(LATEST)
        except CallError as error:
            if error.code == "ABORTED":  # another swap is under way: look again
                return
        self._seen = named

    def close(self) -> None:
        """Lets go of what is served, for ``reckg publish --keep``."""
        while self._held:
            self._held.popitem()[1].close()

    def _swap(self, find: Callable[[], VersionedBundle]) -> dict[str, str]:
        if not self._turn.acquire(blocking=False):
            raise CallError("ABORTED", "another swap is under way; try again")
        try:
            return self._swapped(find())
        except UnknownVersionError as error:
            raise self._refused("NOT_FOUND", error) from error
        except (OSError, ReckgError) as error:
            raise self._refused("FAILED_PRECONDITION", error) from error
        except CallError as error:
            raise self._refused(error.code, error) from error
        finally:
            self._turn.release()

    def _swapped(self, bundle: VersionedBundle) -> dict[str, str]:
        before = self.fleet.committed
        if bundle.manifest_sha256 != before.manifest_sha256:
            logger.info("swap: verifying %s", bundle.version)
            began = time.monotonic()
            verify(bundle, self.settings.swap_timeout_s)
            self.embedder.follow(bundle, EMBED_S)
            try:
                self.fleet.swap(bundle)
            except CallError:
                self.embedder.follow(before)
                raise
            self.seconds, self.served_since = time.monotonic() - began, time.time()
            self.previous = before
            self.done += 1
            self._hold()
            logger.info("swap: serving %s, before %s", bundle.version, before.version)
        self.last_error = ""
        return {"bundle_version": bundle.version, "previous_bundle_version": before.version}

    def _refused(self, code: str, error: Exception) -> CallError:
        self.failed += 1
        self.last_error = str(error)
        logger.error("swap: refused, %s is served on: %s", self.fleet.committed.version, error)
        return CallError(code, str(error))

    def _hold(self) -> None:
        """Keeps ``reckg publish --keep`` from removing what is served, also by variants, or would be by a rollback."""
        wanted = {bundle for bundle in (self.fleet.committed, self.previous) if bundle is not None} | self._variants
        for bundle in wanted - self._held.keys():
            self._held[bundle] = hold(bundle.path)
        for bundle in self._held.keys() - wanted:
            self._held.pop(bundle).close()
