"""A bundle store: the versions of a bundle side by side, and the name of the one to serve.

    STORE/<version>/   a bundle
    STORE/latest       the name of the version to serve: a text file of one line
    STORE/previous     the one that latest named before

A version is written beside, forced to disk and renamed into place, then latest is: a reader finds the old version or
the new one, whole. Versions never change. Processes that publish wait for each other; those that serve hold their
version, which is then not removed. Imports nothing heavy: the server's supervisor reads stores.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from reckg.bundle.manifest import MANIFEST, VERSION, read_manifest
from reckg.errors import ArtifactError
from reckg.files.atomic_folder import check_files, reason, sync, written_file, written_folder
from reckg.files.folder_lock import locked

LATEST, PREVIOUS = "latest", "previous"
NAME_BYTES = 1024  # of a file that names a version, at most


class UnknownVersionError(ArtifactError):
    """The store holds no such version."""


def is_store(path: Path) -> bool:
    """Returns whether a folder is a bundle store rather than a bundle."""
    return (path / LATEST).exists() and not (path / MANIFEST).exists()


def publish(bundle: Path, store: Path) -> str:
    """Copies a bundle into a store and makes it the latest version. Publishing one again is no error.

    Args:
        bundle: the bundle's folder.
        store: the store's folder; made if missing.
    Returns:
        The version.
    Raises:
        ArtifactError: the bundle is damaged or holds links; the store has this version with other files; or the disk
            refuses. The store then keeps its latest version.
    """
    manifest = read_manifest(bundle)
    version = _checked(manifest["version"])
    refuse_links(bundle)
    with _disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        with _publishing(store):
            _remove_leftovers(store)
            with _named_next(store, version):
                if not (store / version).exists():
                    with written_folder(store / version, overwrite=False, marker=MANIFEST) as folder:
                        _copy(bundle, folder)
                        if read_manifest(folder) != manifest:
                            raise ArtifactError(f"{bundle} was written again while it was published: publish it again.")
                        check_files(folder, manifest["files"])
                elif read_manifest(resolve(store, version)) != manifest:
                    raise ArtifactError(
                        f"{store} holds another bundle with the version {version!r}: versions never change."
                    )
    return version


def resolve(store: Path, version: str = LATEST) -> Path:
    """Returns the folder of a version.

    Args:
        store: the store's folder.
        version: the version's name; ``latest`` follows the store's file of that name.
    Raises:
        UnknownVersionError: the store lacks the version, or the name is no version's or leads out of the store.
        ArtifactError: the version holds links.
    """
    if version == LATEST:
        named = _named(store, LATEST)
        if named is None:
            raise UnknownVersionError(f"{store} has no latest version: 'reckg publish' writes it.")
        version = named
    folder = store / _checked(version)
    if folder.is_symlink() or not folder.is_dir():
        raise UnknownVersionError(
            f"{store} holds no version {version!r}; it has: {', '.join(versions(store)) or 'none'}"
        )
    refuse_links(folder)
    return folder


def latest_version(store: Path) -> str | None:
    """Returns the name in ``latest``, whether the store holds that version or not; None without such a file."""
    return _named(store, LATEST)


def versions(store: Path) -> list[str]:
    """Lists the versions of a store, in the order of publishing."""
    folders = [path for path in store.iterdir() if VERSION.fullmatch(path.name) and (path / MANIFEST).is_file()]
    return [path.name for path in sorted(folders, key=lambda path: (path.stat().st_mtime_ns, path.name))]


def keep(store: Path, n: int) -> list[str]:
    """Removes old versions. The latest, the previous, and the served versions stay.

    Args:
        store: the store's folder.
        n: the n versions published last stay as well.
    Returns:
        The removed versions.
    Raises:
        ArtifactError: the disk refuses.
    """
    removed = []
    with _disk_errors(store), _publishing(store):
        needed = {_named(store, LATEST), _named(store, PREVIOUS), *versions(store)[-n:]}
        for version in versions(store):
            if version not in needed and not _is_held(store / version):
                gone = store / f".{version}.removing"
                os.rename(store / version, gone)
                shutil.rmtree(gone)
                removed.append(version)
    return removed


def hold(bundle: Path) -> contextlib.ExitStack:
    """Keeps ``keep`` from removing a bundle, until the returned stack is closed or this process ends."""
    held = contextlib.ExitStack()
    with contextlib.suppress(OSError):  # a file system without locks
        held.enter_context(locked(bundle / MANIFEST, wait=False, shared=True))
    return held


def refuse_links(folder: Path) -> None:
    """Raises ArtifactError where a folder holds symbolic links: they could lead anywhere."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ArtifactError(
                f"{folder} holds a link, {path.relative_to(folder)}: a bundle has files of its own only."
            )


def _checked(version: str) -> str:
    if not VERSION.fullmatch(version) or version in (LATEST, PREVIOUS):
        raise UnknownVersionError(f"{version!r} is no name of a bundle's version")
    return version


def _named(store: Path, name: str) -> str | None:
    """Reads the version's name in ``latest`` or ``previous``; None without that file. Links are not followed."""
    try:
        handle = os.open(store / name, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(f"{store / name} cannot be read: {error.strerror}.") from error
    with open(handle, "rb") as file:
        name_read = file.read(NAME_BYTES).decode("utf-8", "replace").strip()
    try:
        return _checked(name_read)
    except UnknownVersionError as error:
        raise UnknownVersionError(f"{store / name}: {error}") from None


def _copy(bundle: Path, folder: Path) -> None:
    """Copies the files without write permission; the folder gets the present time."""
    shutil.copytree(bundle, folder, dirs_exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode & ~0o222)
    os.utime(folder)


@contextlib.contextmanager
def _named_next(store: Path, version: str) -> Iterator[None]:
    """Makes a version the latest when the block ends well. The disk has taken the names before it starts."""
    names = {LATEST: version}
    with contextlib.suppress(UnknownVersionError):  # latest was written by something else
        before = _named(store, LATEST)
        if before is not None and before != version:
            names = {LATEST: version, PREVIOUS: before}  # a stack closes the last first
    with contextlib.ExitStack() as files:
        for name, named in names.items():
            beside = files.enter_context(written_file(store / name))
            beside.write_text(named + "\n", encoding="utf-8")
            sync(beside)
        yield


@contextlib.contextmanager
def _publishing(store: Path) -> Iterator[None]:
    """Waits to be the only process that changes a store. The lock of the folder itself is the state database's."""
    lock = store / ".lock"
    lock.touch()
    with locked(lock):
        yield


@contextlib.contextmanager
def _disk_errors(store: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, shutil.Error) as error:
        raise ArtifactError(f"{store} cannot be written: {reason(error)}; its latest version stays.") from error


def _remove_leftovers(store: Path) -> None:
    """Removes files of killed processes. The caller must be the only process that writes."""
    for pattern in (".*.writing*", ".*.removing"):
        for path in store.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_held(bundle: Path) -> bool:
    try:
        with locked(bundle / MANIFEST, wait=False):
            return False
    except OSError:
        return True
