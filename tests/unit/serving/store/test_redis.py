"""What is Redis's own of the state store: URLs, secrets, persistence, servers that hang, die, fill up and move."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reckg.errors import ConfigError
from reckg.live.changes import CatalogChange
from serving.settings import StoreSettings
from serving.store import StoredEvent, StoreDownError, StoreError
from serving.store.redis import RedisStore
from tests.local_redis import DURABLE, LocalRedis, free_port

SETTINGS = StoreSettings(timeout_ms=10_000, write_timeout_ms=10_000)
SECRET = "se/cret:@1"


def event(event_id: str, user_id: str = "u") -> StoredEvent:
    return StoredEvent(event_id, user_id, "i", 1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalRedis]:
    """One of the test's own, with a password that every message must hide."""
    running = LocalRedis(tmp_path, password="secret1")
    yield running
    running.kill()


def test_a_store_finds_its_server_again_and_what_it_acknowledged(server: LocalRedis) -> None:
    with closing(RedisStore(server.url, SETTINGS)) as store:
        assert store.warnings() == []
        store.record_events([event("a")])
        store.change_catalog([CatalogChange("i", "remove")])
        server.kill()
        for call in (lambda: store.user_events("u"), lambda: store.record_events([event("b")]), store.catalog_revision):
            with pytest.raises(
                StoreDownError, match=r"^the state store does not answer \(ConnectionError\)$"
            ) as raised:
                call()
            assert "secret1" not in repr(raised.value.__cause__)
        server.start()
        assert store.user_events("u") == [event("a")] and store.catalog_revision() == 1
        assert store.record_events([event("a"), event("b")]) == [False, True]
        server.kill()
        server.start()  # before anybody asked: the connections are broken, and no call shows it
        assert store.user_events("u") == [event("a"), event("b")] and store.record_events([event("c")]) == [True]
    assert "secret1" not in repr(store)


def test_a_server_that_hangs_is_waited_for_only_so_long(server: LocalRedis) -> None:
    with closing(RedisStore(server.url, StoreSettings(timeout_ms=100, write_timeout_ms=300))) as store:
        store.record_events([event("a")])
        server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(StoreDownError, match=r"does not answer \(TimeoutError\)"):
                store.user_events("u")
            read = time.monotonic() - began
            with pytest.raises(StoreDownError, match=r"does not answer \(TimeoutError\)"):
                store.record_events([event("b")])
            written = time.monotonic() - began - read
        finally:
            server.signal(signal.SIGCONT)
        assert 0.1 <= read < 5 and 0.3 <= written < 5
        deadline = time.monotonic() + 10
        while len(store.user_events("u")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)  # the call that was given up was on its way
        assert store.record_events([event("b")]) == [False]


def test_a_wrong_password_is_a_store_that_is_down(server: LocalRedis) -> None:
    with closing(RedisStore(server.url.replace("secret1", "wrong-one"), SETTINGS)) as store:
        with pytest.raises(StoreDownError, match=r"does not answer \(AuthenticationError\)") as raised:
            store.user_events("u")
        assert "wrong-one" not in str(raised.value.__cause__)


def test_a_full_server_takes_nothing_of_a_call_and_works_again_when_there_is_room(server: LocalRedis) -> None:
    with closing(RedisStore(server.url, SETTINGS)) as store:
        store.record_events([event("a")])
        store._writer.config_set("maxmemory", "1")
        for call in (
            lambda: store.record_events([event("b")]),
            lambda: store.change_catalog([CatalogChange("i", "remove")]),
        ):
            with pytest.raises(StoreError, match=r"^the state store refused a command: OutOfMemoryError$") as raised:
                call()
            assert not isinstance(raised.value, StoreDownError)
        assert store.user_events("u") == [event("a")] and store.catalog_revision() == 0
        store._writer.config_set("maxmemory", "0")
        assert store.record_events([event("b")]) == [True]


def test_a_disk_without_room_ends_the_server_and_loses_nothing(server: LocalRedis) -> None:
    with closing(RedisStore(server.url, SETTINGS)) as store:
        acknowledged = []
        assert server.process is not None
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        with pytest.raises(StoreDownError):
            for call in range(1000):
                events = [event(f"{call}.{number}") for number in range(10)]
                store.record_events(events)
                acknowledged += events
        server.kill()
        server.start()
        assert 0 < len(acknowledged) <= 200 and store.user_events("u") == acknowledged
        assert store.record_events(events) == [True] * 10


def test_settings_that_can_lose_what_was_acknowledged_are_named(tmp_path: Path) -> None:
    lossy = ("--appendonly", "no", "--appendfsync", "everysec", "--maxmemory-policy", "allkeys-lru")
    server = LocalRedis(tmp_path, lossy)
    try:
        with closing(RedisStore(server.url, SETTINGS)) as store:
            assert store.warnings() == [
                "appendonly is no, should be yes",
                "appendfsync is everysec, should be always",
                "maxmemory-policy is allkeys-lru, should be noeviction",
            ]
    finally:
        server.kill()
    hosted = LocalRedis(tmp_path, (*DURABLE, "--rename-command", "CONFIG", ""))
    try:
        with closing(RedisStore(hosted.url, SETTINGS)) as store:
            assert store.warnings() == ["appendfsync is not known, should be always"]
    finally:
        hosted.kill()


@pytest.mark.parametrize(
    "url",
    [
        "",
        f"http://:{SECRET}@host:1",
        f"redis://:{SECRET}@host:port",
        f"redis://user:{SECRET}@host:6379/0",
        "redis+sentinel://:pass@host:26379",
        "redis+sentinel://:pass@host/main",
        "redis+sentinel://:pass@host:1/main/zero",
    ],
)
def test_a_url_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^the Redis URL must be redis://.* it is not shown here\.$") as raised:
        RedisStore(url, SETTINGS)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_sentinel_names_the_server(server: LocalRedis, tmp_path: Path) -> None:
    config, port = tmp_path / "sentinel.conf", free_port()
    lines = ["bind 127.0.0.1", f"port {port}", f"sentinel monitor main 127.0.0.1 {server.port} 1"]
    config.write_text("\n".join([*lines, "sentinel auth-pass main secret1"]) + "\n")
    command = [server.program, str(config), "--sentinel"]
    sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=tmp_path)
    url = f"redis+sentinel://:secret1@127.0.0.1:{free_port()},127.0.0.1:{port}/main/0"
    try:
        with closing(RedisStore(url, SETTINGS)) as store:
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert store.record_events([event("a")]) == [True]
                    break
                except StoreDownError:  # it is just starting
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            assert store.user_events("u") == [event("a")]
        with closing(RedisStore(server.url, SETTINGS)) as same:
            assert same.user_events("u") == [event("a")]
    finally:
        sentinel.kill()
        sentinel.wait()
