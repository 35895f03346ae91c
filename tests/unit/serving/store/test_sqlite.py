"""What is SQLite's own of the state store: files, versions, locks, full disks."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from reckg.errors import ArtifactError
from reckg.live.changes import CatalogChange
from serving.settings import StoreSettings
from serving.store import StoredEvent, StoreDownError, StoreError
from serving.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[4]
SETTINGS = StoreSettings(write_timeout_ms=10_000, events_per_user=10_000)


def events(prefix: str, n: int = 10, user_id: str = "u") -> list[StoredEvent]:
    return [StoredEvent(f"{prefix}{number}", user_id, "item " * 20, 1) for number in range(n)]


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SqliteStore(tmp_path / "state.db", SETTINGS)) as store:
            store.record_events(events("a"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o600)


def test_what_is_stored_is_on_the_disk_before_the_call_returns(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "state.db", SETTINGS)) as store, store._connection() as connection:
        modes = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]  # 2: FULL


def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database at all, but long enough to have the header of one" * 20)
    with pytest.raises(ArtifactError, match=r"state\.db is no state store \(file is not a database\): move it away"):
        SqliteStore(path, SETTINGS)
    assert path.read_bytes().startswith(b"no database")
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(ArtifactError, match=r"state\.db is the database of another program: change store\.path"):
        SqliteStore(path, SETTINGS)
    path.unlink()
    SqliteStore(path, SETTINGS).close()
    with closing(sqlite3.connect(path)) as ours:
        ours.execute("PRAGMA user_version = 7")
    with pytest.raises(
        ArtifactError, match=r"holds a state of version 7, this reckg reads 1: serve with the reckg that"
    ):
        SqliteStore(path, SETTINGS)
    with pytest.raises(StoreError, match=r'x/state\.db cannot be opened: .*No such file.* set store\.kind = "none"'):
        SqliteStore(tmp_path / "x" / "state.db", SETTINGS)


def test_a_full_database_takes_nothing_of_a_call_and_works_again_when_there_is_room(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "state.db", SETTINGS)) as store:
        store.record_events(events("a"))
        with store._connection() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreError, match="cannot be written: database or disk is full") as raised:
            store.record_events(events("b", 1000))
        assert not isinstance(raised.value, StoreDownError)
        assert store.user_events("u") == events("a")
        assert store.record_events(events("b", 1000)) == [True] * 1000


WRITER = """
import resource, sys
from pathlib import Path
from serving.store import StoreError
from tests.unit.serving.store.test_sqlite import SETTINGS, events, SqliteStore

store = SqliteStore(Path(sys.argv[1]), SETTINGS)
store.record_events(events("a"))
used = max(path.stat().st_size for path in Path(sys.argv[1]).parent.iterdir())
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (used + 50_000, hard))
try:
    store.record_events(events("b", 1000))
except StoreError as error:
    print(error)
print(len(store.user_events("u")))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(sum(store.record_events(events("b", 1000))))
"""


def test_a_disk_without_room_is_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "state.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("the state store cannot be written: ") and lines[1:] == ["10", "1000"]
    with closing(SqliteStore(tmp_path / "state.db", SETTINGS)) as store:
        assert len(store.user_events("u")) == 1010
        with store._connection() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_many_threads_one_after_the_other_need_one_connection(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "state.db", SETTINGS)) as store:
        files = []
        for number in range(8):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(store.record_events, events(f"{number}")).result()
                assert len(thread.submit(store.user_events, "u").result()) == 10 * (number + 1)
            files.append(len(os.listdir("/proc/self/fd")))
        assert files[0] == files[-1]


def test_a_call_waits_for_another_process_only_so_long_and_readers_for_nobody(tmp_path: Path) -> None:
    short = StoreSettings(write_timeout_ms=50)
    with closing(SqliteStore(tmp_path / "state.db", short)) as store:
        store.record_events(events("a", 1))
        with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="cannot be written: database is locked"):
                store.record_events(events("b", 1))
            with pytest.raises(StoreError, match="cannot be written: database is locked"):
                store.change_catalog([CatalogChange("i", "remove")])
            assert store.user_events("u") == events("a", 1)
            other.execute("ROLLBACK")
        assert store.record_events(events("b", 1)) == [True]


def test_a_store_that_is_gone_says_so_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteStore(path, SETTINGS)) as store:
        store.record_events(events("a", 1))
        store.close()
        path.rename(tmp_path / "away")
        with pytest.raises(StoreDownError, match="cannot be read: unable to open database file"):
            store.user_events("u")
        (tmp_path / "away").rename(path)
        assert store.user_events("u") == events("a", 1)


def _write(path: Path, number: int, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    with closing(SqliteStore(path, SETTINGS)) as store:
        for turn in range(10):
            assert all(store.record_events(events(f"{number} {turn} ", 5)))
            store.compact(int(time.time()), [])


def test_processes_that_open_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    writers = [context.Process(target=_write, args=(tmp_path / "state.db", n, start)) for n in range(4)]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    with closing(SqliteStore(tmp_path / "state.db", SETTINGS)) as store:
        assert len({event.event_id for event in store.user_events("u")}) == len(store.user_events("u")) == 200
