"""Locks of folders and files."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from reckg.files.folder_lock import locked


@pytest.fixture(params=["folder", "file", "read-only file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        return tmp_path
    (tmp_path / "file").write_text("kept")
    if request.param == "read-only file":
        (tmp_path / "file").chmod(0o400)
    return tmp_path / "file"


def test_a_lock_is_exclusive_until_its_block_ends(path: Path) -> None:
    with locked(path), pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    with locked(path, wait=False):
        pass


def test_shared_holders_keep_an_exclusive_one_out(path: Path) -> None:
    with (
        locked(path, shared=True),
        locked(path, wait=False, shared=True),
        pytest.raises(BlockingIOError),
        locked(path, wait=False),
    ):
        pass
    with locked(path), pytest.raises(BlockingIOError), locked(path, wait=False, shared=True):
        pass


def test_a_waiting_thread_gets_the_lock(path: Path) -> None:
    order = []

    def wait() -> None:
        with locked(path):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 3
    with locked(tmp_path, wait=False):
        pass


def _hold_and_die(path: Path) -> None:
    import os

    with locked(path):
        os._exit(3)


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nothing"):
        pass
