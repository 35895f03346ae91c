"""The state store that the settings name."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from reckg.errors import ArtifactError, ConfigError
from serving.settings import StoreSettings
from serving.store import StoredEvent, StoreDownError, StoreError
from serving.store.open_store import open_store
from tests.local_redis import LocalRedis, free_port

EVENT = StoredEvent("e", "u", "i", 1)


def test_without_a_store_there_is_none(tmp_path: Path) -> None:
    assert open_store(StoreSettings(kind="none"), tmp_path) is None


def test_the_file_is_in_a_bundle_store_or_beside_a_bundle_or_where_it_is_said_to_be(tmp_path: Path) -> None:
    bundle = tmp_path / "store" / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").touch()
    for settings, given, expected in (
        (StoreSettings(), bundle, "store/state.db"),
        (StoreSettings(), tmp_path / "store" / "bundle" / "..", "store/state.db"),
        (StoreSettings(path=tmp_path / "other.db"), bundle, "other.db"),
    ):
        store = open_store(settings, given)
        assert store is not None
        store.record_events([EVENT])
        assert (tmp_path / expected).is_file() and store.user_events("u") == [EVENT]
        store.close()
    with pytest.raises(StoreError, match=r"set store\.kind = "):
        open_store(StoreSettings(), tmp_path / "nowhere")
    (tmp_path / "other.db").write_bytes(b"x" * 5000)
    with pytest.raises(ArtifactError, match="is no state store"):
        open_store(StoreSettings(path=tmp_path / "other.db"), bundle)


def test_redis_is_named_by_a_file_or_the_environment(tmp_path: Path, redis_server: LocalRedis) -> None:
    secret = tmp_path / "url"
    secret.write_text(redis_server.url + "\n")
    chosen = {"kind": "redis", "namespace": "opened", "timeout_ms": 10_000}
    for more, environment in (({"redis_url_file": secret}, {}), ({}, {"RECKG_REDIS_URL": redis_server.url})):
        store = open_store(StoreSettings(**chosen, **more), tmp_path, environment)
        assert store is not None
        store.record_events([EVENT])
        assert store.user_events("u") == [EVENT]
        store.close()
    with pytest.raises(ConfigError, match=r"set RECKG_REDIS_URL, or store\.redis_url_file to a file with the URL"):
        open_store(StoreSettings(**chosen), tmp_path, {})
    with pytest.raises(ConfigError, match=r"store\.redis_url_file cannot be read: FileNotFoundError"):
        open_store(StoreSettings(**chosen, redis_url_file=tmp_path / "none"), tmp_path, {})


def test_a_server_that_does_not_answer_yet_or_may_forget_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "reckg.serving")
    chosen = StoreSettings(kind="redis", timeout_ms=5_000)
    store = open_store(chosen, tmp_path, {"RECKG_REDIS_URL": f"redis://:hidden@127.0.0.1:{free_port()}/0"})
    assert store is not None
    with pytest.raises(StoreDownError):
        store.user_events("u")
    store.close()
    server = LocalRedis(tmp_path, ("--save", ""))
    try:
        store = open_store(chosen, tmp_path, {"RECKG_REDIS_URL": server.url})
        assert store is not None and store.user_events("u") == []
        store.close()
    finally:
        server.kill()
    assert [record.getMessage() for record in caplog.records] == [
        "the state store does not answer (ConnectionError); the server starts without the store, and tries again",
        "Redis can lose acknowledged writes: appendonly is no, should be yes, appendfsync is everysec, should be "
        "always; see docs/serving-state.md",
    ]
