"""A process that records events until it is killed, and prints the id of each that was acknowledged.

    python -m tests.store_writer PREFIX sqlite FILE
    python -m tests.store_writer PREFIX redis URL

A call that fails is repeated as it was. Event ids are PREFIX.<call>.<number in the call>.<events of the call>.
"""

from __future__ import annotations

import random
import sys
import time
import zlib
from pathlib import Path

from serving.settings import StoreSettings
from serving.store import StateStore, StoredEvent, StoreError

USERS = 40
SETTINGS = StoreSettings(events_per_user=10_000, timeout_ms=10_000, write_timeout_ms=2_000, namespace="written")


def opened(kind: str, where: str) -> StateStore:
    from serving.store.redis import RedisStore
    from serving.store.sqlite import SqliteStore

    return SqliteStore(Path(where), SETTINGS) if kind == "sqlite" else RedisStore(where, SETTINGS)


def main(prefix: str, kind: str, where: str) -> None:
    chance, store = random.Random(prefix), opened(kind, where)
    call = 0
    while True:
        size = chance.choice([1, 3, 60])
        ids = [f"{prefix}.{call}.{number}.{size}" for number in range(size)]
        events = [
            StoredEvent(event_id, f"user {zlib.crc32(event_id.encode()) % USERS}", "item", call) for event_id in ids
        ]
        acknowledged(store, events)
        print(*ids, sep="\n", flush=True)
        call += 1


def acknowledged(store: StateStore, events: list[StoredEvent]) -> None:
    """Repeats a call until it is acknowledged."""
    while True:
        try:
            store.record_events(events)
            return
        except StoreError:
            time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
