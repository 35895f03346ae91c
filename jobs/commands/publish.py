"""Publishing: a run's bundle into the store that servers watch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reckg.bundle import store as bundle_store
from reckg.bundle.manifest import MANIFEST


def publish(source: Path, store: Path, keep: int | None = None) -> dict[str, Any]:
    """Copies a bundle, or the bundle of a run's folder, into a store and makes it the latest version.

    Args:
        keep: then remove all versions but so many, as `bundle_store.keep` does; None: none.
    Returns:
        ``version``, and ``removed``: the versions.
    Raises:
        ArtifactError: as bundle_store.publish.
    """
    bundle = source if (source / MANIFEST).exists() else source / "bundle"
    version = bundle_store.publish(bundle, store)
    return {"version": version, "removed": [] if keep is None else bundle_store.keep(store, keep)}
