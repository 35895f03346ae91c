"""Files and folders that are written beside their path and renamed into place."""

import errno
import os
from pathlib import Path

import pytest

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import write_atomically, written_file, written_folder


def test_text_and_bytes_replace_a_file(tmp_path: Path) -> None:
    path = tmp_path / "note"
    write_atomically(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    write_atomically(path, b"\x00\xff", mode=0o600)
    assert path.read_bytes() == b"\x00\xff" and path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["note"]


def test_a_reader_finds_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_text("old")
    with written_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_disk_that_refuses_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "note"
    path.write_text("old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["note"]


def test_the_file_and_its_folder_are_forced_to_disk_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    write_atomically(tmp_path / "note", "new")
    assert calls == [f"{tmp_path}/.note.writing-{os.getpid()}", "replace", str(tmp_path)]


def test_the_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".no[t]e.writing-4194305", tmp_path / f".no[t]e.writing-{os.getppid()}"
    dead.write_text("half")
    alive.write_text("half")
    write_atomically(tmp_path / "no[t]e", "new")
    assert {each.name for each in tmp_path.iterdir()} == {"no[t]e", alive.name}


def test_a_folder_without_a_marker_is_replaced_where_the_caller_has_checked_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with (
        pytest.raises(ArtifactError, match="holds no marker"),
        written_folder(tmp_path / "folder", overwrite=True, marker="marker"),
    ):
        pass
    with written_folder(tmp_path / "folder", overwrite=True, marker=None) as beside:
        (beside / "new").touch()
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["new"]
