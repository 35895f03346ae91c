"""A bundle's manifest: its settings, the sha256 and size of every other file, and the manifest's own digest.

Imports nothing heavy: the server's supervisor reads manifests.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from reckg.errors import ArtifactError

MANIFEST = "manifest.json"
GOLDEN = "golden.jsonl"
FORMAT_VERSION = 2
VERSION = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,127}")  # of a bundle: no path, nothing hidden
_KEYS = {"version": str, "created": str, "counts": dict, "library_versions": dict, "files": dict}


def manifest_text(manifest: dict[str, Any]) -> str:
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


def read_manifest(path: Path) -> dict[str, Any]:
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
    return dict(manifest)


def _digest(manifest: dict[str, Any]) -> str:
    """Hashes the content of a manifest, whatever its layout."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
