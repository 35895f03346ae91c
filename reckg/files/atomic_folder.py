"""Files and folders that are written beside their path, forced to disk, and renamed into place.

A reader finds the old content or the new content, never a part, also after a power failure.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from reckg.errors import ArtifactError
from reckg.files.file_hash import file_sha256


def write_atomically(path: Path, data: bytes | memoryview | str, mode: int = 0o666) -> None:
    """Writes a whole file.

    Args:
        path: the file; its folder must exist.
        data: the content; text is encoded as UTF-8.
        mode: permissions of the new file, before the umask.
    Raises:
        OSError: the disk refuses; ``path`` is unchanged.
    """
    with written_file(path, mode) as beside:
        beside.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def written_file(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yields an empty file beside ``path`` to write to. It replaces ``path`` when the block ends well.

    A block that fails leaves nothing behind. The next write to ``path`` removes the file of a killed process.

    Args:
        mode: permissions of the new file, before the umask.
    Raises:
        OSError: the disk refuses; ``path`` is unchanged.
    """
    _remove_leftovers(path)
    beside = _beside(path, os.getpid())
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path, *, overwrite: bool, marker: str | None) -> Iterator[Path]:
    """Yields a new folder beside ``path`` to write to. It replaces ``path`` when the block ends well.

    A block that fails leaves nothing behind. The next write to ``path`` removes the folder of a killed process.

    Args:
        path: the folder; its parents are made.
        overwrite: replace an existing folder at ``path``.
        marker: the file that every folder of this kind holds; None: the caller has checked ``path``.
    Raises:
        ArtifactError: ``path`` exists and may not be replaced, or the disk refuses.
    """
    path = Path(os.path.realpath(path))
    _check_target(path, overwrite, marker)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        beside = _beside(path, os.getpid())
        beside.mkdir()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {reason(error)}.") from error
    try:
        yield beside
        _sync_all(beside)
        _check_target(path, overwrite, marker)
        _move_into_place(beside, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {reason(error)}; its former content is unchanged.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def reason(error: OSError) -> str:
    """Explains a disk's refusal. For a folder that was copied, explains the first file's."""
    several = isinstance(error, shutil.Error) and isinstance(error.args[0], list)
    why = str(error.args[0][0][2]) if several else str(error)
    is_full = any(os.strerror(code) in why for code in (errno.ENOSPC, errno.EDQUOT))
    return f"{why}: free space there and try again" if is_full else why


class FileRecord(TypedDict):
    """A described file."""

    sha256: str
    bytes: int


def describe_files(folder: Path) -> dict[str, FileRecord]:
    """Hashes every file in a folder and below.

    Args:
        folder: the folder.
    Returns:
        By path relative to the folder, in the order of the paths.
    """
    return {
        name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for name, path in sorted(_files(folder).items())
    }


def files_sha256(files: Mapping[str, FileRecord], below: str = "") -> str:
    """Combines the paths and hashes of described files into one sha256.

    Args:
        files: as ``describe_files`` returns them.
        below: count only the files whose path starts with this; paths are taken without it.
    """
    lines = [f"{name.removeprefix(below)} {file['sha256']}\n" for name, file in files.items() if name.startswith(below)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def check_files(folder: Path, expected: Mapping[str, Mapping[str, Any]], hashed: tuple[str, ...] | None = None) -> None:
    """Checks that a folder holds the files that ``describe_files`` described, unchanged.

    Args:
        folder: the folder. Its ``manifest.json`` and hidden files are ignored.
        expected: as ``describe_files`` returned them.
        hashed: check the hashes of only the files whose path starts with one of these; None: of all. Sizes are checked
            for every file.
    Raises:
        ArtifactError: names every file that is missing, unexpected or changed.
    """
    found = _files(folder)
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(found))]
    for name in sorted(set(found) - set(expected) - {"manifest.json"}):
        if not any(part.startswith(".") for part in Path(name).parts):
            problems.append(f"{name} is not listed in manifest.json")
    for name in sorted(set(expected) & set(found)):
        size, wanted = found[name].stat().st_size, expected[name]
        if size != wanted["bytes"]:
            problems.append(f"{name} has {size:_} bytes, manifest.json says {wanted['bytes']:_}")
        elif hashed is None or name.startswith(hashed):
            digest = file_sha256(found[name])
            if digest != wanted["sha256"]:
                problems.append(f"{name} has sha256 {digest[:12]}, manifest.json says {str(wanted['sha256'])[:12]}")
    if problems:
        noun = "file is" if len(problems) == 1 else "files are"
        raise ArtifactError(f"{folder}: {len(problems)} {noun} not as written: " + "; ".join(problems) + ".")


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _check_target(path: Path, overwrite: bool, marker: str | None) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise ArtifactError(f"{path} exists already; choose another path, or ask for it to be overwritten.")
    if marker is not None and not (path / marker).is_file():
        raise ArtifactError(f"{path} exists and is not overwritten: it holds no {marker}, so it is something else.")


def _beside(path: Path, pid: int) -> Path:
    return path.parent / f".{path.name}.writing-{pid}"


def _remove_leftovers(path: Path) -> None:
    """Removes files and folders that killed processes left beside ``path``."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.writing-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not _runs(int(pid))):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_all(folder: Path) -> None:
    """Forces every file and folder below ``folder`` to disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_into_place(beside: Path, path: Path) -> None:
    """Renames ``beside`` to ``path``. An existing ``path`` is exchanged in one step: a reader always finds a folder."""
    if not path.exists():
        os.rename(beside, path)
    elif not _exchange(beside, path):
        old = beside.with_name(f"{beside.name}.old")
        os.rename(path, old)
        try:
            os.rename(beside, path)
        except OSError:
            os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders atomically with Linux's renameat2. Returns False on a system without it."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
