"""The memory of a run folder: hashes of files are kept by size and time, but not those of files just written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reckg.errors import ConfigError
from reckg.files.file_hash import file_sha256
from reckg.pipeline.run.state import RunState, locked_run


def rewrite(path: Path, text: str, age_s: float) -> None:
    """Writes a file and sets its modification time."""
    path.write_text(text)
    written = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(written, written))


def test_a_young_file_is_hashed_again(tmp_path: Path) -> None:
    state, path = RunState(tmp_path), tmp_path / "a.txt"
    rewrite(path, "one", age_s=0)
    stamp = path.stat().st_mtime_ns
    first = state.hash_files([path])[path]
    path.write_text("two")  # as long as before, and within the same time stamp
    os.utime(path, ns=(stamp, stamp))
    assert state.hash_files([path])[path] == file_sha256(path) != first


def test_an_old_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr("reckg.pipeline.run.state.file_sha256", counted)
    state, path = RunState(tmp_path), tmp_path / "a.txt"
    rewrite(path, "one", age_s=60)
    assert state.hash_files([path]) == state.hash_files([path])
    assert read == [path]
    rewrite(path, "two", age_s=50)
    assert state.hash_files([path])[path] == file_sha256(path)
    assert read == [path, path]


def test_hashes_survive_in_state_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, path = RunState(tmp_path), tmp_path / "a.txt"
    rewrite(path, "one", age_s=60)
    known = state.hash_files([path])
    state.save()
    monkeypatch.setattr("reckg.pipeline.run.state.file_sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert RunState.read(tmp_path).hash_files([path]) == known


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with locked_run(tmp_path), pytest.raises(ConfigError, match="another reckg process"), locked_run(tmp_path):
        pass
