"""Hot swaps: from a version's name to a bundle that all workers serve, or to the reason of a refusal."""

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
from serving.supervisor.verify import VersionedBundle, identify_bundle, verify

EMBED_S = 20.0  # longest wait of a swap until added items are embedded for the new bundle

logger = logging.getLogger("reckg.serving")


def find_bundle(path: Path, version: str = LATEST) -> VersionedBundle:
    """Finds a version in a bundle store, without verification.

    Args:
        path: bundle store, or a bundle, which is returned itself.
        version: name of the version.

    Raises:
        UnknownVersionError: the store does not hold the version.
        ArtifactError: the manifest cannot be read.
    """
    if not is_store(path):
        return identify_bundle(path)
    folder = resolve(path, version)
    bundle = identify_bundle(folder)
    if bundle.version != folder.name:
        raise ArtifactError(f"{folder} holds the version {bundle.version!r}, not the version of its name")
    return bundle


class Swaps:
    """Swaps of the fleet's bundle, one at a time.

    Args:
        settings: of the server.
        fleet: the workers.
        embedder: makes vectors of added items for the next bundle.

    Attributes:
        done: number of swaps.
        failed: number of refused swaps.
        last_error: reason of the last refusal; "" after a swap.
        seconds: duration of the last swap.
        served_since: epoch seconds when the served bundle was committed.

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
        self._variants = {identify_bundle(resolve(settings.bundle, version)) for version in versions}
        self._hold()
        self._seen = fleet.committed.version  # the store's latest version at the last look

    def load(self, version: str = LATEST) -> dict[str, str]:
        """Serves a version of the bundle store.

        Args:
            version: name of the version.

        Returns:
            The versions after and before the swap, as AdminService.LoadBundle's response.

        Raises:
            CallError: the swap is refused.
        """
        if not is_store(self.settings.bundle):
            raise CallError(
                "FAILED_PRECONDITION",
                f"{self.settings.bundle} is a bundle and no store",
            )
        return self._swap(lambda: find_bundle(self.settings.bundle, version))

    def rollback(self) -> dict[str, str]:
        """Serves the previous bundle again. Raises CallError if the swap is refused."""
        previous = self.previous
        if previous is None:
            raise CallError("FAILED_PRECONDITION", "no other bundle was served before")
        return self._swap(lambda: find_bundle(self.settings.bundle, previous.version))

    def watch(self, stopping: threading.Event) -> None:
        """Follows the latest version of the store until the server stops.

        A refused version is not tried again until the latest version changes.

        Args:
            stopping: set when the server stops.
        """
        while not stopping.wait(self.settings.watch_s):
            try:
                self.look()
            except Exception:  # a failed look must not end the thread
                logger.exception("looking for the latest version failed")

    def look(self) -> None:
        """Swaps if the latest version of the store changed since the last look."""
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
        """Releases the held bundles, so that ``reckg publish --keep`` may remove them."""
        while self._held:
            self._held.popitem()[1].close()

    def _swap(self, find: Callable[[], VersionedBundle]) -> dict[str, str]:
        if not self._turn.acquire(blocking=False):
            raise CallError("ABORTED", "another swap is under way; try again")
        try:
            return self._swap_to(find())
        except UnknownVersionError as error:
            raise self._refused("NOT_FOUND", error) from error
        except (OSError, ReckgError) as error:
            raise self._refused("FAILED_PRECONDITION", error) from error
        except CallError as error:
            raise self._refused(error.code, error) from error
        finally:
            self._turn.release()

    def _swap_to(self, bundle: VersionedBundle) -> dict[str, str]:
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
        """Keeps ``reckg publish --keep`` from removing the served, the previous and the variants' bundles."""
        wanted = {bundle for bundle in (self.fleet.committed, self.previous) if bundle is not None} | self._variants
        for bundle in wanted - self._held.keys():
            self._held[bundle] = hold(bundle.path)
        for bundle in self._held.keys() - wanted:
            self._held.pop(bundle).close()
