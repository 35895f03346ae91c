"""The log of what was shown: whole parts, bounded, and what is lost is counted."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from reckg.errors import ConfigError
from reckg.evaluation.logs.served_log import read_served_log
from serving.experiment import served_log
from serving.experiment.served_log import ServedLog, ShownAnswer
from serving.settings import ServedLogSettings
from tests.waiting import wait_until


def shown(number: int, *, items: int = 3, variants: tuple[str, ...] = ("new",)) -> ShownAnswer:
    ids = [f"i{item}" for item in range(items)]
    return ShownAnswer(
        f"r{number}",
        f"u{number % 3}",
        1_700_000_000 + number,
        ids,
        [0.5] * items,
        [0.25] * items,
        variants,
        "v1",
        "home",
    )


def settings(folder: Path, **given: object) -> ServedLogSettings:
    return ServedLogSettings.model_validate({"folder": folder, **given})


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    log = ServedLog(settings(tmp_path / "log"))
    for number in range(5):
        log.record(shown(number))
    log.record(shown(5, items=2, variants=("old", "new")))
    log.close()
    assert (log.rows_written, log.rows_dropped) == (17, 0)
    rows = pl.read_parquet(parts(tmp_path / "log"))
    assert rows["request_id"].to_list()[:4] == ["r0", "r0", "r0", "r1"]
    assert rows["position"].to_list()[:4] == [1, 2, 3, 1]
    assert rows["variant"].to_list()[-3:] == ["new", "old", "new"]
    assert set(rows["placement"]) == {"home"} and set(rows["propensity"]) == {0.25}
    assert os.listdir(tmp_path / "log") == [path.name for path in parts(tmp_path / "log")]


def test_the_reader_of_logs_takes_it(tmp_path: Path) -> None:
    log = ServedLog(settings(tmp_path / "log"))
    log.record(shown(1))
    log.close()
    events = tmp_path / "events.csv"
    events.write_text("request_id,item_id,timestamp\nr1,i2,1700000002\n")
    read = read_served_log(tmp_path / "log", events)
    assert read.notes == []
    assert read.rows["reward"].to_list() == [0.0, 0.0, 1.0]


def test_users_can_be_left_out(tmp_path: Path) -> None:
    log = ServedLog(settings(tmp_path, log_user_ids=False))
    log.record(shown(1))
    log.close()
    assert pl.read_parquet(parts(tmp_path))["user_id"].null_count() == 3


def test_a_part_is_closed_when_it_is_full(tmp_path: Path) -> None:
    log = ServedLog(settings(tmp_path, rotate_rows=6))
    for number in range(2):
        log.record(shown(number))
    wait_until(lambda: len(parts(tmp_path)) == 1)
    log.record(shown(2))
    log.close()
    assert [len(pl.read_parquet(path)) for path in parts(tmp_path)] == [6, 3]


def test_a_part_is_closed_after_its_time(tmp_path: Path) -> None:
    log = ServedLog(settings(tmp_path, rotate_s=0.05))
    log.record(shown(1))
    wait_until(lambda: len(parts(tmp_path)) == 1)
    log.close()


def test_the_oldest_parts_go(tmp_path: Path) -> None:
    moments = iter(range(100, 200))
    log = ServedLog(settings(tmp_path, max_mb=0.006), clock=lambda: float(next(moments)))
    for number in range(4):
        log._write([shown(number)])
    log.close()
    sizes = [path.stat().st_size for path in parts(tmp_path)]
    assert 1 <= len(sizes) < 4 and sum(sizes) <= 0.006 * 2**20
    assert set(pl.read_parquet(parts(tmp_path)[-1])["request_id"]) == {"r3"}


def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_log, "QUEUED_ROWS", 7)
    log = ServedLog(settings(tmp_path))
    for number in range(3):
        log.record(shown(number))
    log.close()
    assert (log.rows_written, log.rows_dropped) == (6, 3)
    log.record(shown(4))
    assert log.rows_dropped == 6


def test_a_full_disk_loses_a_part_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = ServedLog(settings(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        log.record(shown(1))
        log.close()
    assert (log.rows_written, log.rows_dropped) == (0, 3)
    assert list(tmp_path.iterdir()) == []
    assert "lost 3 rows: No space left on device" in caplog.text and "u1" not in caplog.text


def test_a_folder_that_cannot_be_written_to_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"served_log.folder: .*file.* cannot be written to: (File exists|Not a dir)"):
        ServedLog(settings(tmp_path / "file"))
