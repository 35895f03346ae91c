"""The state store of a single machine: an SQLite database that any number of processes share.

The database has a write-ahead log with ``synchronous=FULL``: data are on the disk when a call returns, and survive a
power cut. Readers wait for nobody, and writers wait for each other. The file must be on a local disk, because the index
of the log is in shared memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from reckg.errors import ArtifactError
from reckg.files.folder_lock import locked
from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.settings import StoreSettings
from serving.store import StoredEvent, StoreDownError, StoreError

VERSION = 1
APPLICATION = 0x72636B67  # "rckg", in the file's header
SCHEMA = (
    """CREATE TABLE events (
        user_id TEXT NOT NULL, time INTEGER NOT NULL, seq INTEGER NOT NULL, event_id TEXT NOT NULL UNIQUE,
        item_id TEXT NOT NULL, weight REAL NOT NULL, type TEXT NOT NULL, request_id TEXT NOT NULL,
        stored INTEGER NOT NULL, PRIMARY KEY (user_id, time, seq)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX events_stored ON events (stored)",
    """CREATE TABLE catalog (
        item_id TEXT NOT NULL, availability INTEGER NOT NULL, kind TEXT NOT NULL, item TEXT, revision INTEGER NOT NULL,
        PRIMARY KEY (item_id, availability)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX catalog_revision ON catalog (revision)",
    """CREATE TABLE embedded (
        bundle_version TEXT NOT NULL, item_id TEXT NOT NULL, revision INTEGER NOT NULL, data BLOB NOT NULL,
        UNIQUE (bundle_version, item_id)
    ) STRICT""",
    "CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO numbers VALUES ('seq', 0), ('revision', 0), ('events_per_user', 0)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
EVENT = "event_id, user_id, item_id, time, weight, type, request_id"  # as the fields of StoredEvent
ADD = f"""INSERT INTO events ({EVENT}, stored, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (event_id) DO UPDATE SET
        user_id = excluded.user_id, item_id = excluded.item_id, time = excluded.time, weight = excluded.weight,
        type = excluded.type, request_id = excluded.request_id, stored = excluded.stored, seq = excluded.seq
    WHERE stored < ?"""
OF_USER = f"SELECT {EVENT} FROM events WHERE user_id = ? AND stored >= ? ORDER BY time DESC, seq DESC LIMIT ?"
IS_CROWDED = "SELECT 1 FROM events WHERE user_id = ? LIMIT 1 OFFSET ?"
TRIM_AGE = "DELETE FROM events WHERE user_id = ? AND stored < ?"
TRIM_NUMBER = """DELETE FROM events WHERE user_id = ?1 AND (time, seq) <
    (SELECT time, seq FROM events WHERE user_id = ?1 ORDER BY time DESC, seq DESC LIMIT 1 OFFSET ?2 - 1)"""
RAISE = "UPDATE numbers SET value = value + ? WHERE name = ? RETURNING value"
NUMBER = "SELECT value FROM numbers WHERE name = ?"
PUT_CHANGE = "INSERT OR REPLACE INTO catalog VALUES (?, ?, ?, ?, ?)"
CHANGES = (
    "SELECT item_id, kind, item, revision FROM catalog WHERE revision > ? ORDER BY revision, item_id, availability"
)
PUT_EMBEDDED = """INSERT INTO embedded VALUES (?, ?, ?, ?) ON CONFLICT (bundle_version, item_id)
    DO UPDATE SET revision = excluded.revision, data = excluded.data WHERE excluded.revision >= revision"""
EMBEDDED = """SELECT item_id, revision, data FROM embedded
    WHERE bundle_version = ? AND item_id IN (SELECT value FROM json_each(?))"""
OLD_EVENTS = "DELETE FROM events WHERE event_id IN (SELECT event_id FROM events WHERE stored < ? LIMIT ?)"
OLD_EMBEDDED = """DELETE FROM embedded WHERE rowid IN
    (SELECT rowid FROM embedded WHERE bundle_version NOT IN (SELECT value FROM json_each(?)) LIMIT ?)"""
CROWDED = "SELECT user_id FROM events GROUP BY user_id HAVING count(*) > ?"
TRIMMED = "UPDATE numbers SET value = ? WHERE name = 'events_per_user'"
AT_ONCE = 500  # rows, or users, in one transaction of a compaction
PAUSE_S = 0.01  # between two transactions, so that writers get their turn
OPENING_S = 10.0  # longest wait for the lock while other processes open the same file


class SqliteStore:
    """A serving.store.StateStore in one file. It keeps as many connections as calls were under way at once.

    Args:
        path: the database; a missing file is created, readable for its owner alone.
        settings: the section ``store`` of the settings.
        clock: epoch seconds.

    Raises:
        ArtifactError: the file is no state store, or one of another version.
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, settings: StoreSettings, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._wait_ms, self._write_wait_ms = round(settings.timeout_ms), round(settings.write_timeout_ms)
        self._kept_s, self._per_user = settings.event_days * 86_400, settings.events_per_user
        self._idle: list[sqlite3.Connection] = []  # a stack; appends and pops are atomic
        create(path)

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        if not events:
            return []
        now = self._clock()
        cutoff = int(now - self._kept_s)
        with self._writing() as connection:
            seq = connection.execute(RAISE, (len(events), "seq")).fetchone()[0] - len(events)
            new = []
            for number, event in enumerate(events, start=seq + 1):
                new.append(connection.execute(ADD, (*_columns(event), int(now), number, cutoff)).rowcount == 1)
            for user_id in {event.user_id for event, is_new in zip(events, new, strict=True) if is_new}:
                if connection.execute(IS_CROWDED, (user_id, self._per_user)).fetchone():
                    connection.execute(TRIM_AGE, (user_id, cutoff))
                    connection.execute(TRIM_NUMBER, (user_id, self._per_user))
        return new

    def user_events(self, user_id: str) -> list[StoredEvent]:
        arguments = user_id, int(self._clock() - self._kept_s), self._per_user
        with self._reading() as connection:
            rows = connection.execute(OF_USER, arguments).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        if not changes:
            return self.catalog_revision()
        with self._writing() as connection:
            revision: int = connection.execute(RAISE, (1, "revision")).fetchone()[0]
            for change in changes:
                item = None if change.item is None else json.dumps(change.item, allow_nan=False)
                availability = change.kind not in ("upsert", "remove")
                connection.execute(PUT_CHANGE, (change.item_id, availability, change.kind, item, revision))
        return revision

    def catalog_revision(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(NUMBER, ("revision",)).fetchone()[0])

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        with self._reading() as connection:
            rows = connection.execute(CHANGES, (after,)).fetchall()
        return [CatalogChange(i, kind, None if item is None else json.loads(item), r) for i, kind, item, r in rows]

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        with self._writing() as connection:
            rows = [(bundle_version, item.item_id, item.revision, item.data) for item in items]
            connection.executemany(PUT_EMBEDDED, rows)

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        with self._reading() as connection:
            rows = connection.execute(EMBEDDED, (bundle_version, json.dumps(list(item_ids)))).fetchall()
        return [EmbeddedItem(*row) for row in rows]

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        self._delete(OLD_EVENTS, int(now - self._kept_s))
        self._delete(OLD_EMBEDDED, json.dumps(list(keep_bundles)))
        with self._reading() as connection:
            trimmed = connection.execute(NUMBER, ("events_per_user",)).fetchone()[0]
            crowded = trimmed != self._per_user and connection.execute(CROWDED, (self._per_user,)).fetchall()
        if trimmed == self._per_user:  # record_events has trimmed all users to this number
            return
        for start in range(0, len(crowded), AT_ONCE):
            with self._writing() as connection:
                rows = [(user_id, self._per_user) for (user_id,) in crowded[start : start + AT_ONCE]]
                connection.executemany(TRIM_NUMBER, rows)
            time.sleep(PAUSE_S)
        with self._writing() as connection:
            connection.execute(TRIMMED, (self._per_user,))

    def close(self) -> None:
        """Closes the connections. Calls under way must have ended."""
        while self._idle:
            self._idle.pop().close()

    def _delete(self, statement: str, argument: int | str) -> None:
        deleted = AT_ONCE
        while deleted == AT_ONCE:
            with self._writing() as connection:
                deleted = connection.execute(statement, (argument, AT_ONCE)).rowcount
            time.sleep(PAUSE_S)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection() as connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreDownError(f"the state store cannot be read: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Spans a transaction. All of its changes are on the disk afterwards, or none."""
        try:
            with self._connection() as connection:
                connection.execute(f"PRAGMA busy_timeout = {self._write_wait_ms}")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA busy_timeout = {self._wait_ms}")
                yield connection
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"the state store cannot be written: {error}") from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lends a connection of its own to the block. An error closes it, which rolls the transaction back."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect(self._path, self._wait_ms / 1000)
        try:
            yield connection
        except BaseException:
            with suppress(sqlite3.Error):
                connection.close()
            raise
        self._idle.append(connection)


def connect(path: Path, wait_s: float) -> sqlite3.Connection:
    """Opens a connection to an existing database.

    Args:
        path: the database.
        wait_s: longest wait for a lock.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", timeout=wait_s, isolation_level=None, check_same_thread=False, uri=True
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _columns(event: StoredEvent) -> tuple[str | float, ...]:
    """Returns an event's values in the order of EVENT."""
    ids = event.event_id, event.user_id, event.item_id
    return *ids, event.time, event.weight, event.type, event.request_id


def create(path: Path) -> None:
    """Creates the database if it is missing, and checks the program and the version of an existing one.

    Args:
        path: the database.

    Raises:
        ArtifactError: the file is no state store, or one of another version.
        StoreError: the file cannot be opened.
    """
    try:
        with suppress(FileExistsError):
            # SQLite gives its log the same permissions.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # One process at a time, because turning WAL on fails while another process writes.
        with locked(path.absolute().parent), closing(connect(path, OPENING_S)) as connection:
            _has_tables(path, connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            if not _has_tables(path, connection):  # else another process was faster
                for statement in SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreError(
            f"the state store {path} cannot be opened: {error}. Let store.path name a file in a folder on a local disk "
            'that may be written, or set store.kind = "none".'
        ) from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"{path} is no state store ({error}): move it away, or change store.path.") from error


def _has_tables(path: Path, connection: sqlite3.Connection) -> bool:
    """Returns whether the database has the tables of a state store. Raises ArtifactError for other tables."""
    version, application = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if (version, application, tables) == (0, 0, 0):
        return False
    if application != APPLICATION:
        raise ArtifactError(f"{path} is the database of another program: change store.path.")
    if version != VERSION:
        raise ArtifactError(
            f"{path} holds a state of version {version}, this reckg reads {VERSION}: serve with the reckg that "
            "wrote it, or move the file away and start without events and catalogue changes."
        )
    return True
