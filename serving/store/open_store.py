"""Opening of the state store that the settings name."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reckg.errors import ConfigError
from serving.store import StateStore, StoreError
from serving.store.circuit_breaker import CircuitBreaker, Observe
from serving.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from serving.settings import StoreSettings

URL_VARIABLE = "RECKG_REDIS_URL"
FILE = "state.db"

logger = logging.getLogger("reckg.serving")


def open_store(
    settings: StoreSettings,
    bundle_path: Path,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
    observe: Observe = lambda name, seconds, failed: None,
) -> StateStore | None:
    """Opens the state store. Each process opens it once.

    A Redis server need not answer yet. The log warns of a Redis server that could lose acknowledged writes.

    Args:
        settings: the section ``store`` of the settings.
        bundle_path: setting ``bundle``: a bundle or a bundle store.
        environment: may hold the URL of Redis.
        clock: epoch seconds.
        observe: as of CircuitBreaker.

    Returns:
        The store, or None if store.kind is "none".

    Raises:
        ConfigError: the URL of Redis is missing or wrong.
        ArtifactError: the file of SQLite belongs to another program or version.
        StoreError: the file of SQLite cannot be opened.
    """
    if settings.kind == "none":
        return None
    if settings.kind == "sqlite":
        return CircuitBreaker(SqliteStore(settings.path or default_path(bundle_path), settings, clock), observe=observe)
    from serving.store.redis import RedisStore

    store = RedisStore(redis_url(settings, environment), settings, clock)
    try:
        warnings = store.warnings()
        if warnings:
            logger.warning("Redis can lose acknowledged writes: %s; see docs/serving-state.md", ", ".join(warnings))
    except StoreError as error:
        logger.warning("%s; the server starts without the store, and tries again", error)
    return CircuitBreaker(store, observe=observe)


def default_path(bundle_path: Path) -> Path:
    """Returns the database's path: in a bundle store, or beside a bundle, because a bundle never changes."""
    return (bundle_path.parent if (bundle_path / "manifest.json").is_file() else bundle_path) / FILE


def redis_url(settings: StoreSettings, environment: Mapping[str, str]) -> str:
    """Reads the URL of Redis from the file, or else from the variable.

    Args:
        settings: may name the file.
        environment: may hold the variable.

    Raises:
        ConfigError: both are missing, or the file cannot be read.
    """
    if settings.redis_url_file is None:
        url = environment.get(URL_VARIABLE, "").strip()
        if not url:
            raise ConfigError(
                f'store.kind is "redis": set {URL_VARIABLE}, or store.redis_url_file to a file with the URL.'
            )
        return url
    try:
        return settings.redis_url_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"store.redis_url_file cannot be read: {error.__class__.__name__}.") from error
