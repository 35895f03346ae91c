"""Writes a bundle."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from reckg.bundle.bundle import Bundle
from reckg.bundle.check import check_bundle
from reckg.bundle.manifest import FORMAT_VERSION, GOLDEN, MANIFEST, Manifest, manifest_text
from reckg.bundle.read import read_checked
from reckg.errors import ArtifactError
from reckg.files.atomic_folder import FileRecord, describe_files, written_folder
from reckg.files.mapped_tensors import write_tensors
from reckg.version import __version__

OWN_FILES = (MANIFEST, GOLDEN, "users.parquet", "items.parquet", "embeddings.safetensors", "history.safetensors")
OWN_FOLDERS = ("index", "features", "ranker", "inductive")
LIBRARIES = (
    "numpy",
    "polars",
    "scipy",
    "safetensors",
    "faiss-cpu",
    "faiss-gpu",
    "lightgbm",
    "torch",
    "transformers",
    "dgl",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def save_bundle(
    bundle: Bundle,
    path: Path,
    golden: str,
    *,
    check: Callable[[Bundle], object] | None = None,
    extra_folders: Mapping[str, Path] | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Writes a bundle beside ``path``, loads it again as a check, and renames it into place.

    A reader finds the old bundle or the new one at ``path``, never a part.

    Args:
        golden: the golden requests with their answers, one JSON object a line; see reckg.recommend.golden.
        check: called with the bundle as read back. An error that it raises leaves ``path`` as it was.
        extra_folders: folders to copy into the bundle, by the name they get there, as ``model``.
        overwrite: replace the bundle that is at ``path``.
    Returns:
        The manifest as written.
    Raises:
        ArtifactError: ``path`` exists and ``overwrite`` is off (or it is no bundle), the parts do not fit together,
            an extra folder is missing or its name is taken, or the disk refuses.
    """
    if bundle.built is not bundle:
        raise ArtifactError(
            f"bundle {bundle.version!r} has added items or changed ones and is not saved: run 'reckg run' with them."
        )
    check_bundle(bundle)
    extra = dict(extra_folders or {})
    for name, folder in extra.items():
        if not _NAME.fullmatch(name) or name in OWN_FILES or name in OWN_FOLDERS:
            raise ArtifactError(f"an extra folder of a bundle cannot be called {name!r}; choose another name.")
        if not Path(folder).is_dir():
            raise ArtifactError(f"{folder} is missing; it was to be copied into the bundle as {name!r}.")
    with written_folder(path, overwrite=overwrite, marker=MANIFEST) as folder:
        _write_parts(bundle, folder)
        for name, source in extra.items():
            shutil.copytree(source, folder / name)
        (folder / GOLDEN).write_text(golden, encoding="utf-8")
        manifest = _manifest(bundle, describe_files(folder))
        (folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
        read_back = read_checked(folder, manifest)
        if check is not None:
            check(read_back)
    return manifest


def _write_parts(bundle: Bundle, folder: Path) -> None:
    history = bundle.history
    pl.DataFrame({"user_id": bundle.user_ids.ids}).write_parquet(folder / "users.parquet")
    bundle.items.write_parquet(folder / "items.parquet")
    vectors = {"users": bundle.user_vectors, "items": bundle.item_vectors}
    write_tensors(folder / "embeddings.safetensors", vectors)
    write_tensors(
        folder / "history.safetensors",
        {
            "indptr": history.indptr,
            "item_idx": history.item_idx,
            "timestamp": history.timestamp,
            "weight": history.weight,
            **({} if history.taken is None else {"taken": history.taken}),
            **({} if history.never is None else {"never.indptr": history.never[0], "never.item_idx": history.never[1]}),
        },
    )
    bundle.index.save(folder / "index")
    bundle.features.save(folder / "features")
    if bundle.ranker is not None:
        bundle.ranker.save(folder / "ranker")
    if bundle.inductive is not None and bundle.inductive.folder is not None:
        shutil.copytree(bundle.inductive.folder, folder / "inductive")


def _manifest(bundle: Bundle, files: dict[str, FileRecord]) -> Manifest:
    """Adds the facts of the written bundle to the caller's manifest."""
    return {
        **bundle.manifest,
        "format_version": FORMAT_VERSION,
        "version": bundle.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": {
            "users": len(bundle.user_ids),
            "items": len(bundle.item_ids),
            "dimensions": int(bundle.item_vectors.shape[1]),
            "interactions": len(bundle.history.item_idx),
        },
        "ranked": bundle.ranker is not None,
        "library_versions": _library_versions(),
        "files": files,
    }


def _library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "reckg": __version__}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions
