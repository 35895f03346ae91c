"""The store is compacted now and then, whatever fails in between."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from serving.store import StoreDownError
from serving.store.compaction import Compaction, versions_in
from tests.slow_store import SlowStore


def test_a_store_is_compacted_again_and_again_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "reckg.serving")
    errors, kept, enough = [StoreDownError("down"), ValueError("ours")], [], threading.Event()

    class Store(SlowStore):
        def compact(self, now: int, keep_bundles: object) -> None:
            assert abs(now - time.time()) < 60
            if errors:
                raise errors.pop(0)
            kept.append(keep_bundles)
            if len(kept) == 2:
                enough.set()

    compaction = Compaction(Store(1, 1, time.time), lambda: {"v2", "v1"}, 0.001, 0.001)
    compaction.start()
    assert enough.wait(20)
    compaction.stop()
    assert compaction._thread is not None
    compaction._thread.join(20)
    assert not compaction._thread.is_alive() and kept[:2] == [["v1", "v2"]] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "the state store was not compacted: down",
        "the state store was not compacted: ValueError",
    ]


def test_without_a_store_there_is_no_thread() -> None:
    compaction = Compaction(None, set)
    compaction.start()
    compaction.stop()
    assert compaction._thread is None


def test_the_versions_of_a_bundle_store(tmp_path: Path) -> None:
    for name in ("v1", "v2", ".leftover"):
        (tmp_path / name).mkdir()
    for name in ("v1", "v2"):
        (tmp_path / name / "manifest.json").touch()
    assert versions_in(tmp_path) == versions_in(tmp_path / "v1") == versions_in(tmp_path / "none") == set()
    (tmp_path / "latest").write_text("v2\n")
    assert versions_in(tmp_path) == {"v1", "v2"}
