"""Advisory locks on folders and files, between processes and between threads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Holds the lock of a folder or file while the block runs. The system releases the lock of a killed process.

    Args:
        path: an existing folder or file; its content is neither read nor changed.
        wait: block until the lock is free.
        shared: several holders may share the lock; an exclusive one waits for all holders.
    Raises:
        BlockingIOError: ``wait`` is off and another process or thread holds the lock.
        OSError: the path is missing, or its file system has no locks.
    """
    # NFS grants an exclusive lock only on a file that is open for writing.
    writable = not shared and path.is_file() and os.access(path, os.W_OK)
    descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
