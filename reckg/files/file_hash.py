"""The sha256 of a file: how reckg tells whether a file is the one that was written."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Hashes a file in pieces.

    Args:
        path: the file.
    Returns:
        The sha256 in hexadecimal.
    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
