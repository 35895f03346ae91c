"""A disk that is really full, a tmpfs of 2 MiB: publishing, the log of what was shown and the state's database."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import reckg
from reckg.bundle.store import latest_version, publish, resolve
from reckg.errors import ArtifactError
from reckg.recommend.golden import save_with_golden
from serving.experiment.served_log import ServedLog, ShownAnswer
from serving.settings import ServedLogSettings, StoreSettings
from serving.store import StoredEvent, StoreDownError, StoreError
from serving.store.sqlite import SqliteStore
from tests.small_bundle import small_bundle
from tests.waiting import wait_until

BYTES = 2 * 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")  # a file on a tmpfs takes whole ones


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def free(disk: Path) -> int:
    of = os.statvfs(disk)
    return of.f_bavail * of.f_frsize


def fill(disk: Path, but: int = 0) -> Path:
    """A file that takes all that is free but so many bytes."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * (free(disk) - but))
    assert free(disk) == but
    return filler


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what it holds; folders end in a slash."""
    return {
        f"{path.relative_to(folder)}{'/' * path.is_dir()}": b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def bundle(folder: Path, n: int) -> Path:
    save_with_golden(replace(small_bundle(seed=n), version=f"v{n}"), folder / f"v{n}")
    return folder / f"v{n}"


def taken(folder: Path) -> int:
    """Bytes that the files of a folder take on a tmpfs."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("room", ["none", "half", "all but a page", "the bundle alone"])
def test_a_bundle_that_does_not_fit_is_not_published(tmp_path: Path, disk: Path, room: str) -> None:
    store, new = disk / "store", bundle(tmp_path, 2)
    publish(bundle(tmp_path, 1), store)
    size = taken(new)
    left = {"none": 0, "half": size // 2 // PAGE * PAGE, "all but a page": size - PAGE, "the bundle alone": size}[room]
    filler = fill(disk, left)
    before = listing(store)
    with pytest.raises(ArtifactError, match=r"cannot be written: .*No space left on device.*: free space") as raised:
        publish(new, store)
    assert "[(" not in str(raised.value)
    assert listing(store) == before
    assert latest_version(store) == "v1"
    assert free(disk) == left
    assert reckg.load(resolve(store)).recommend("u001", 5).items
    filler.unlink()
    assert publish(new, store) == "v2"
    assert resolve(store) == store / "v2" and (store / "previous").read_text() == "v1\n"
    assert reckg.load(resolve(store)).recommend("u001", 5).items


def shown(number: int) -> ShownAnswer:
    """An answer of 1000 items, which differ from those of every other one."""
    ids = [f"i{number * 1000 + item}" for item in range(1000)]
    scores = [1 / (number * 1000 + item + 3) for item in range(1000)]
    return ShownAnswer(f"r{number}", f"u{number}", 1_700_000_000, ids, scores, scores, ("new",), "v1")


@pytest.mark.parametrize("left", [0, 2 * PAGE])
def test_the_served_log_loses_what_has_no_room_and_goes_on(
    disk: Path, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    settings = ServedLogSettings.model_validate({"folder": disk / "log", "rotate_rows": 1000})
    log = ServedLog(settings)
    log.record(shown(0))
    wait_until(lambda: log.rows_written == 1000)
    filler = fill(disk, left)
    before = listing(disk / "log")
    for number in (1, 2):
        log.record(shown(number))
        wait_until(lambda number=number: log.rows_dropped == 1000 * number)  # type: ignore[misc]
    assert listing(disk / "log") == before and free(disk) == left
    assert caplog.text.count("the served log lost 1000 rows: No space left on device") == 2
    filler.unlink()
    log.record(shown(3))
    wait_until(lambda: log.rows_written == 2000)
    log.close()
    assert log.rows_dropped == 2000
    files = list((disk / "log").iterdir())
    assert all(path.match("served-*.parquet") for path in files)
    assert set(pl.read_parquet(files)["request_id"]) == {"r0", "r3"}


def events(prefix: str, n: int) -> list[StoredEvent]:
    return [StoredEvent(f"{prefix}{number}", "u", "item " * 20, 1) for number in range(n)]


def test_the_state_store_keeps_what_it_acknowledged_and_takes_events_again(disk: Path) -> None:
    settings = StoreSettings(write_timeout_ms=10_000, timeout_ms=10_000, events_per_user=10_000)
    with closing(SqliteStore(disk / "state.db", settings)) as store:
        assert store.record_events(events("a", 100)) == [True] * 100
        filler = fill(disk)
        kept, n = events("a", 100), 0
        while True:  # the write-ahead log has some room that is written over
            more = events(f"b{n}-", 50)
            try:
                store.record_events(more)
            except StoreError as error:
                assert not isinstance(error, StoreDownError)
                assert str(error).startswith("the state store cannot be written: ")
                break
            kept, n = kept + more, n + 1
        with pytest.raises(StoreError, match="the state store cannot be written: "):
            store.record_events(events("c", 5000))
        assert store.user_events("u") == kept
        filler.unlink()
        assert store.user_events("u") == kept
        again = events("c", 500)
        assert store.record_events(again) == [True] * 500
        assert store.user_events("u") == kept + again
    with closing(SqliteStore(disk / "state.db", settings)) as store:
        assert store.user_events("u") == kept + again
