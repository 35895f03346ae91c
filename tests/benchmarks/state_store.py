"""The state stores side by side: the cost to read a user's events in a request, and to store events.

    python -m tests.benchmarks.state_store

Beside the two: the same SQLite file with one connection for all threads, behind a lock. Reads are timed while nothing
writes, and, in another thread, while one writer stores event after event. Needs redis-server.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from serving.settings import StoreSettings
from serving.store import StateStore, StoredEvent
from serving.store.redis import RedisStore
from serving.store.sqlite import SqliteStore
from tests.benchmarks.measure import Result, beside, finish, interleaved, medians, parser
from tests.local_redis import LocalRedis

TIME = 1_700_000_000
SETTINGS = StoreSettings(timeout_ms=10_000, write_timeout_ms=10_000, namespace="benchmark")


class OneConnection(SqliteStore):
    """A connection that all threads share: each call waits for the one before it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SETTINGS)
        self.lock = threading.RLock()

    @contextmanager
    def _reading(self):  # type: ignore[no-untyped-def, override]
        with self.lock, super()._reading() as connection:
            yield connection

    @contextmanager
    def _writing(self):  # type: ignore[no-untyped-def, override]
        with self.lock, super()._writing() as connection:
            yield connection


def filled(store: StateStore, users: int, per_user: int) -> StateStore:
    """per_user events of each user, of ids as long as UUIDs."""
    rows = [
        StoredEvent(f"{user:08d}-0000-0000-0000-{number:012d}", f"user-{user:06d}", f"item-{number:06d}", TIME + number)
        for user in range(users)
        for number in range(per_user)
    ]
    for start in range(0, len(rows), 1000):
        store.record_events(rows[start : start + 1000])
    return store


def read_s(store: StateStore, user_id: str, n: int, pause_s: float = 0) -> list[float]:
    """Seconds of each of n reads."""
    took = []
    for _ in range(n):
        began = time.perf_counter()
        store.user_events(user_id)
        took.append(time.perf_counter() - began)
        if pause_s:
            time.sleep(pause_s)
    return took


class Writes:
    """Stores new events of as many users, ``size`` a call."""

    def __init__(self, store: StateStore, calls: int, size: int, name: str) -> None:
        self.store, self.calls, self.size, self.name, self.done = store, calls, size, name, 0

    def __call__(self) -> None:
        for _ in range(self.calls):
            ids = [f"{self.name}-{self.size}-{self.done + number}" for number in range(self.size)]
            self.store.record_events([StoredEvent(each, f"of {each[-3:]}", "item", TIME) for each in ids])
            self.done += self.size


def busy_read_s(store: StateStore, user_id: str, n: int) -> list[float]:
    """Seconds of each of n reads, a millisecond apart, while another thread stores one event after the other."""
    stopped, write = threading.Event(), Writes(store, 1, 1, "busy")

    def until_stopped() -> None:
        while not stopped.is_set():
            write()

    writer = threading.Thread(target=until_stopped)
    writer.start()
    took = read_s(store, user_id, n, 0.001)
    stopped.set()
    writer.join()
    return took


def main(arguments: list[str] | None = None) -> Result:
    options = parser(__doc__.partition("\n")[0]).parse_args(arguments)
    if options.beside:
        return beside("state_store", options, arguments)
    users, n, rounds = (50, 20, 2) if options.small else (10_000, 200, 9)
    folder = Path(tempfile.mkdtemp(prefix="state_store"))
    server = LocalRedis(folder)
    figures: dict[str, float] = {}
    try:
        with ExitStack() as stack:
            stores: dict[str, StateStore] = {
                "sqlite": SqliteStore(folder / "state.db", SETTINGS),
                "one_connection": OneConnection(folder / "one.db"),
                "redis": RedisStore(server.url, SETTINGS),
            }
            for store in stores.values():
                filled(stack.enter_context(closing(store)), users, 10)
                store.record_events([StoredEvent(f"many {number}", "many", "item", TIME) for number in range(200)])
            for figure, read, user_id in (
                ("read_0_us", read_s, "nobody"),
                ("read_10_us", read_s, "user-000007"),
                ("read_200_us", read_s, "many"),
                ("busy_read_us", busy_read_s, "user-000007"),
            ):
                calls = {name: [] for name in stores}  # type: dict[str, list[float]]
                for _ in range(rounds):
                    for name, store in stores.items():
                        calls[name] += read(store, user_id, n)
                for name, took in calls.items():
                    figures[f"{figure}_{name}"] = statistics.median(took) * 1e6
                    figures[f"{figure.replace('_us', '_p95_us')}_{name}"] = statistics.quantiles(took, n=20)[-1] * 1e6
            for size in (1, 100, 1000):
                times = max(1, n // 10 // (1 if size < 100 else 5))
                seconds = medians(interleaved({k: Writes(s, times, size, "w") for k, s in stores.items()}, rounds))
                figures |= {f"record_{size}_ms_{name}": value / times * 1e3 for name, value in seconds.items()}
            figures["bytes_per_event_sqlite"] = (folder / "state.db").stat().st_size / (users * 10)
            redis_store = stores["redis"]
            assert isinstance(redis_store, RedisStore)
            figures["bytes_per_event_redis"] = redis_store._writer.info("memory")["used_memory"] / (users * 10)
    finally:
        server.kill()
        shutil.rmtree(folder)
    for name, value in figures.items():
        print(f"{name:<32}{value:>10.1f}")
    settings = {"users": users, "events_per_user": 10, "synchronous": "full", "appendfsync": "always"}
    return finish("state_store", figures, settings, packages=["redis"], seed=options.seed, out=options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
