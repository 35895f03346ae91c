"""The served log: Parquet parts of all answers, for `reckg evaluate --log`.

A request never waits for the log. Rows queue up to a bound. Rows that do not fit, or that the disk refuses, are dropped
and counted. A part is written whole and then renamed, so that readers find no incomplete part. A worker that is killed
loses the rows of its open part.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from reckg.errors import ConfigError
from reckg.evaluation.logs.served_log import SCHEMA
from reckg.files.atomic_folder import write_atomically
from serving.settings import ServedLogSettings

logger = logging.getLogger("reckg.serving")

COLUMNS = {name: kind for name, kind in SCHEMA.items() if name != "reward"}  # rewards come later, from events
QUEUED_ROWS = 100_000
BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One answer for the served log. Its lists have the best item first.

    Attributes:
        timestamp: epoch seconds.
        propensities: one for each item.
        variants: one name for the list, or one for each item of an interleaved list.
    """

    request_id: str
    user_id: str
    timestamp: int
    item_ids: Sequence[str]
    scores: Sequence[float]
    propensities: Sequence[float]
    variants: Sequence[str]
    bundle_version: str
    placement: str = ""


class ServedLog:
    """A writer of parts with a thread of its own. Safe to share between threads.

    Attributes:
        rows_written: number of rows since the log was opened.
        rows_dropped: number of lost rows since the log was opened.
    """

    def __init__(self, settings: ServedLogSettings, clock: Callable[[], float] = time.time) -> None:
        """Opens the log.

        Args:
            settings: folder, rotation and size of the log.
            clock: epoch seconds.

        Raises:
            ConfigError: the folder is missing in the settings or cannot be written to.
        """
        if settings.folder is None:
            raise ConfigError("served_log.folder: must name a folder")
        self._folder, self._settings, self._clock = settings.folder, settings, clock
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(f"served_log.folder: {self._folder} cannot be written to: {error.strerror}") from error
        self.rows_written = self.rows_dropped = 0
        self._queued: list[ShownAnswer] = []
        self._rows = 0
        self._parts = 0
        self._own = f"{os.getpid()}-{secrets.token_hex(4)}"  # machines that share a folder may have equal process ids
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._write_parts, name="served-log", daemon=True)
        self._thread.start()

    def record(self, answer: ShownAnswer) -> None:
        """Queues an answer, or drops and counts it if the queue is full."""
        with self._changed:
            if self._rows + len(answer.item_ids) > QUEUED_ROWS or self._closing:
                self.rows_dropped += len(answer.item_ids)
                return
            self._queued.append(answer)
            self._rows += len(answer.item_ids)
            if self._rows >= self._settings.rotate_rows:
                self._changed.notify()

    def close(self) -> None:
        """Writes the queued rows and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _write_parts(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(self._is_due, timeout=self._settings.rotate_s)
                part, rows, closing = self._queued, self._rows, self._closing
                self._queued, self._rows = [], 0
            if part:
                try:
                    self._write(part)
                    self.rows_written += rows
                except (OSError, pl.exceptions.PolarsError) as error:
                    self.rows_dropped += rows
                    reason = error.strerror if isinstance(error, OSError) else type(error).__name__
                    logger.error("the served log lost %d rows: %s", rows, reason)

    def _is_due(self) -> bool:
        return self._closing or self._rows >= self._settings.rotate_rows

    def _write(self, part: Sequence[ShownAnswer]) -> None:
        name = f"served-{int(self._clock()):012d}-{self._own}-{self._parts:06d}.parquet"
        self._parts += 1
        content = io.BytesIO()  # in memory first, because Polars hides the disk's reason for a refusal
        _frame(part, self._settings.log_user_ids).write_parquet(content)
        write_atomically(self._folder / name, content.getbuffer())
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        """Removes the oldest parts above max_mb; the parts of all workers count together."""
        parts = sorted(self._folder.glob("served-*.parquet"), reverse=True)
        total = 0
        for path in parts:
            try:
                total += path.stat().st_size
                if total > self._settings.max_mb * BYTES:
                    path.unlink()
            except FileNotFoundError:
                continue  # another worker removed it


def _frame(part: Sequence[ShownAnswer], with_users: bool) -> pl.DataFrame:
    """Makes a table with one row for each item."""
    lengths = [len(answer.item_ids) for answer in part]
    repeated: dict[str, list[Any]] = {
        "request_id": [answer.request_id for answer in part],
        "user_id": [answer.user_id or None if with_users else None for answer in part],
        "timestamp": [answer.timestamp for answer in part],
        "bundle_version": [answer.bundle_version for answer in part],
        "placement": [answer.placement or None for answer in part],
    }
    columns: dict[str, list[Any]] = {
        name: [value for value, n in zip(values, lengths, strict=True) for _ in range(n)]
        for name, values in repeated.items()
    }
    columns["position"] = [place for n in lengths for place in range(1, n + 1)]
    for name, values in (("item_id", "item_ids"), ("score", "scores"), ("propensity", "propensities")):
        columns[name] = [value for answer in part for value in getattr(answer, values)]
    columns["variant"] = [
        name or None
        for answer, n in zip(part, lengths, strict=True)
        for name in (answer.variants if len(answer.variants) == n else [answer.variants[0]] * n)
    ]
    return pl.DataFrame({name: columns[name] for name in COLUMNS}, schema=COLUMNS)
