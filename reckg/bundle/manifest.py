"""A bundle's manifest: its settings, the sha256 and size of every other file, and the manifest's own digest.

Imports nothing heavy: the server's supervisor reads manifests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import FileRecord

MANIFEST = "manifest.json"
GOLDEN = "golden.jsonl"
FORMAT_VERSION = 2
VERSION = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,127}")  # of a bundle: no path, nothing hidden
_KEYS = {"version": str, "created": str, "counts": dict, "library_versions": dict, "files": dict}


class ServedRanker(TypedDict):
    """Whether a ranker is served, and why or why not."""

    served: bool
    why: str


class AddedItems(TypedDict):
    """Number of items that were added in this process, and by item id the values that the graph does not know."""

    items: int
    unknown: dict[str, list[str]]


class Manifest(TypedDict, total=False):
    """A manifest. `save_bundle` adds everything from ``format_version`` on.

    Args:
        config: the run's configuration, by section.
        data_hash: sha256 of the interactions.
        item_columns: columns of the catalog by kind; of the texts, the title comes first.
        task: the question that the bundle answers, as in prepared.json.
        metrics: of the validation part.
        index: the index's kind and settings.
        added_items: of a bundle in memory only.
        counts: users, items, dimensions and interactions.
        ranked: whether the bundle has a ranker.
        files: by path.
    """

    name: str
    config: dict[str, dict[str, Any]]
    data_hash: str
    item_columns: dict[str, list[str]]
    task: Mapping[str, Any]
    metrics: dict[str, float]
    index: Mapping[str, object]
    ranker: ServedRanker
    added_items: AddedItems
    format_version: int
    version: str
    created: str
    counts: dict[str, int]
    ranked: bool
    library_versions: dict[str, str]
    files: dict[str, FileRecord]
    digest: str


def manifest_text(manifest: Manifest) -> str:
    """Formats a manifest for writing, with its ``digest``.

    Args:
        manifest: the manifest without ``digest``.
    Raises:
        ArtifactError: JSON cannot hold a value.
    """
    try:
        return (
            json.dumps(manifest | {"digest": _digest(manifest)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"JSON cannot hold a value of the bundle's manifest: {error}.") from error


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of a bundle.

    Args:
        path: the bundle's folder.
    Raises:
        ArtifactError: the manifest is missing, damaged, or of another format version.
    """
    file = Path(path) / MANIFEST
    try:
        manifest: Any = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{path} is no bundle: it holds no {MANIFEST}. 'reckg run' writes one at RUN/bundle."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if found != FORMAT_VERSION:
        raise ArtifactError(
            f"{file}: format_version is {found!r}, this version of reckg reads {FORMAT_VERSION}: "
            "write the bundle again with 'reckg run', or install the reckg that wrote it."
        )
    if manifest.get("digest") != _digest(manifest):
        raise ArtifactError(f"{file} is damaged: it is not as it was written, says its digest.")
    wrong = [key for key, kind in _KEYS.items() if not isinstance(manifest.get(key), kind)]
    if not wrong and not all(
        isinstance(f, dict) and {"bytes", "sha256"} <= f.keys() for f in manifest["files"].values()
    ):
        wrong = ["files"]
    if wrong:
        raise ArtifactError(f"{file} is damaged: {', '.join(wrong)} missing or of another type.")
    return cast(Manifest, manifest)


def _digest(manifest: Manifest) -> str:
    """Hashes the content of a manifest, whatever its layout."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
