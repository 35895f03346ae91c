"""bundle_store: versions are published whole or not at all, found by checked names, and removed only where unused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.publish import publish as publish_job
from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.bundle.store import UnknownVersionError, hold, is_store, keep, latest_version, publish, resolve, versions
from reckg.errors import ArtifactError
from reckg.files.atomic_folder import check_files, describe_files


def write_bundle(folder: Path, version: str, content: str = "one") -> Path:
    """What a store sees of a bundle: a few files and a manifest that describes them."""
    (folder / "index").mkdir(parents=True)
    (folder / "index" / "index.faiss").write_text(f"vectors of {content}")
    (folder / "users.parquet").write_text(f"users of {content}")
    said: dict[str, Any] = {"format_version": 2, "version": version, "created": "", "counts": {}}
    said |= {"library_versions": {}, "files": describe_files(folder)}
    (folder / "manifest.json").write_text(manifest_text(said))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the versions v1, v2 and v3."""
    for version in ("v1", "v2", "v3"):
        publish(write_bundle(tmp_path / version, version, version), tmp_path / "store")
    return tmp_path / "store"


def test_what_was_published_is_found_whole(store: Path, tmp_path: Path) -> None:
    assert latest_version(store) == "v3"
    assert (store / "latest").read_text() == "v3\n"
    assert resolve(store) == resolve(store, "v3") == store / "v3"
    assert resolve(store, "v1") == store / "v1"
    assert versions(store) == ["v1", "v2", "v3"]
    for version in versions(store):
        check_files(store / version, read_manifest(store / version)["files"])
        assert (store / version / "users.parquet").read_text() == f"users of {version}"
        assert not (store / version / "users.parquet").stat().st_mode & 0o222
    assert is_store(store) and not is_store(store / "v1") and not is_store(tmp_path)
    assert {path.name for path in store.iterdir()} == {".lock", "latest", "previous", "v1", "v2", "v3"}


def test_publishing_again_moves_latest_back_and_copies_nothing(store: Path, tmp_path: Path) -> None:
    before = (store / "v1" / "users.parquet").stat().st_ino
    assert publish(tmp_path / "v1", store) == "v1"
    assert latest_version(store) == "v1"
    assert (store / "v1" / "users.parquet").stat().st_ino == before


def test_a_version_never_changes(store: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", "v1", "something else")
    with pytest.raises(ArtifactError, match=r"holds another bundle with the version 'v1': versions never change"):
        publish(other, store)
    assert latest_version(store) == "v3"
    assert (store / "v1" / "users.parquet").read_text() == "users of v1"


def test_a_damaged_bundle_is_not_published(store: Path, tmp_path: Path) -> None:
    damaged = write_bundle(tmp_path / "v4", "v4")
    (damaged / "users.parquet").write_text("users of ome")
    with pytest.raises(ArtifactError, match=r"1 file is not as written: users\.parquet has sha256"):
        publish(damaged, store)
    with pytest.raises(ArtifactError, match="holds no manifest"):
        publish(tmp_path, store)
    assert latest_version(store) == "v3" and versions(store) == ["v1", "v2", "v3"]
    assert not list(store.glob(".v4*"))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../v1", "/etc", "v1/..", "v1/index", ".hidden", "v\0", "latest\n", "previous", "v" * 129, "a\\b"],
)
def test_a_name_that_leads_elsewhere_is_refused(store: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownVersionError, match="is no name of a bundle's version"):
        resolve(store, name)
    (store / "latest").write_text(name + "\n", encoding="utf-8", newline="")
    if name != "latest\n":
        with pytest.raises(UnknownVersionError, match=r"latest: .* is no name of a bundle's version"):
            resolve(store)
    if name not in ("", ".", "previous", "latest\n"):
        source = write_bundle(tmp_path / "source", name)
        with pytest.raises(UnknownVersionError, match="is no name of a bundle's version"):
            publish(source, store)
        assert {path.name for path in tmp_path.iterdir()} == {"v1", "v2", "v3", "store", "source"}


def test_links_are_not_followed(store: Path, tmp_path: Path) -> None:
    (store / "out").symlink_to(tmp_path / "v1")
    with pytest.raises(UnknownVersionError, match="no version 'out'"):
        resolve(store, "out")
    secret = tmp_path / "secret"
    secret.write_text("v1")
    (store / "latest").unlink()
    (store / "latest").symlink_to(secret)
    with pytest.raises(ArtifactError, match="latest cannot be read: Too many levels of symbolic links"):
        resolve(store)
    inside = store / "v1" / "index" / "index.faiss"
    inside.unlink()
    inside.symlink_to(secret)
    with pytest.raises(ArtifactError, match=r"holds a link, index/index\.faiss"):
        resolve(store, "v1")
    with pytest.raises(ArtifactError, match=r"holds a link, index/index\.faiss"):
        publish(store / "v1", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_store_without_versions_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownVersionError, match="has no latest version: 'reckg publish' writes it"):
        resolve(tmp_path)
    with pytest.raises(UnknownVersionError, match="holds no version 'v9'; it has: none"):
        resolve(tmp_path, "v9")


def test_old_versions_are_removed_but_those_in_use(store: Path, tmp_path: Path) -> None:
    for version in ("v4", "v5", "v6"):
        publish(write_bundle(tmp_path / version, version), store)
    with hold(store / "v2"):
        assert keep(store, 1) == ["v1", "v3", "v4"]
    assert versions(store) == ["v2", "v5", "v6"]  # served, previous, latest
    publish(tmp_path / "v2", store)
    assert keep(store, 1) == ["v5"]  # previous is v6, published last too
    assert versions(store) == ["v2", "v6"]
    assert not list(store.glob(".*.removing"))


def full(real: Callable[..., Any], after: int) -> Callable[..., Any]:
    calls = 0

    def stand_in(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **named)

    return stand_in


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ("shutil.copy2", 0),
        ("shutil.copy2", 2),
        *(("os.fsync", n) for n in range(9)),
        ("os.mkdir", 0),
        ("os.rename", 0),
        ("os.replace", 0),
    ],
)
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, after: int
) -> None:
    new = write_bundle(tmp_path / "v4", "v4")
    with monkeypatch.context() as patch:
        module, _, name = place.partition(".")
        real = getattr({"shutil": shutil, "os": os}[module], name)
        patch.setattr(place, full(real, after))
        if place == "shutil.copy2":
            patch.setattr(shutil.copytree, "__defaults__", (False, None, shutil.copy2, False, False))
        with pytest.raises(ArtifactError, match=r"store.* cannot be written: .*No space left on device"):
            publish(new, store)
    assert latest_version(store) == "v3"
    assert not [path.name for path in store.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    for version in versions(store):
        check_files(store / version, read_manifest(store / version)["files"])
    assert publish(new, store) == "v4"
    assert resolve(store) == store / "v4"


def test_what_killed_publishers_left_is_removed(store: Path, tmp_path: Path) -> None:
    (store / ".v4.writing-1").mkdir()
    (store / ".v1.removing").mkdir()
    (store / ".latest.writing").write_text("v")
    publish(tmp_path / "v1", store)
    assert {path.name for path in store.iterdir()} == {".lock", "latest", "previous", "v1", "v2", "v3"}


def test_the_job_takes_a_run_or_a_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "run" / "bundle", "v1")
    assert publish_job(tmp_path / "run", tmp_path / "store") == {"version": "v1", "removed": []}
    write_bundle(tmp_path / "v2", "v2")
    write_bundle(tmp_path / "v3", "v3")
    publish_job(tmp_path / "v2", tmp_path / "store")
    assert publish_job(tmp_path / "v3", tmp_path / "store", keep=1) == {"version": "v3", "removed": ["v1"]}


def test_any_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "v1", "v1") / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"manifest\.json"):
            read_manifest(tmp_path / "v1")
    manifest.write_bytes(whole)
    assert json.loads(whole) == read_manifest(tmp_path / "v1")
