"""Whether a file changed since it was last looked at."""

from __future__ import annotations

from pathlib import Path


def file_state(path: Path) -> tuple[int, ...]:
    """Another whenever a file was changed or replaced; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
