"""What a worker answers from: an immutable snapshot, taken once by each request and replaced in one step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from reckg.bundle import GOLDEN, load_bundle
from reckg.errors import ArtifactError
from reckg.golden import replay_golden
from reckg.manifest import MANIFEST
from reckg.recommend import Recommender
from serving.status import StartingError


@dataclass(frozen=True, eq=False)
class Served:
    """A bundle that is served."""

    recommender: Recommender

    @property
    def bundle_version(self) -> str:
        return self.recommender.bundle.version


class ServingState:
    """The snapshot of a worker. A request reads ``current`` once, and so answers from one version."""

    def __init__(self) -> None:
        self._current: Served | None = None
        self._prepared: Served | None = None

    @property
    def current(self) -> Served:
        """Raises StartingError before there is one."""
        current = self._current
        if current is None:
            raise StartingError("the bundle is still loading; try again")
        return current

    def serve(self, recommender: Recommender) -> None:
        """Answers from this from now on."""
        self._current = Served(recommender)

    def prepare(self, path: Path, manifest_sha256: str) -> None:
        """Loads a bundle beside the present one, and asks it its golden requests, which also warms it.

        Another process has verified the bundle under this manifest. Here sizes and shapes are checked again, and the
        hashes of the files whose parsers do not survive damage: a file that was changed in between ends no worker.

        Raises:
            ArtifactError: the bundle is not the one that was verified, or cannot be loaded.
        """
        self.abort()
        bundle = load_bundle(path, verify=False)
        if hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest() != manifest_sha256:
            raise ArtifactError(f"{path} was changed after it was verified")
        replay_golden(bundle, (path / GOLDEN).read_text(encoding="utf-8"))
        self._prepared = Served(Recommender(bundle))

    def commit(self) -> None:
        """Answers from the prepared bundle; requests that began with the old one end with it."""
        if self._prepared is None:
            raise ArtifactError("no bundle is prepared")
        self._current, self._prepared = self._prepared, None

    def abort(self) -> None:
        """Forgets the prepared bundle, if there is one."""
        self._prepared = None
