"""The state of a file, to see whether it changed."""

from __future__ import annotations

from pathlib import Path


def file_state(path: Path) -> tuple[int, ...]:
    """Returns a value that differs after a file was changed or replaced; () for a missing file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
