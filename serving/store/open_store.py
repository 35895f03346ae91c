"""The state store that the settings name."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reckg.errors import ConfigError
from serving.store import StateStore, StoreError
from serving.store.circuit_breaker import Breaker, Observe
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
    """The store; None where there is to be none. To be opened once in each process.

    A Redis server need not answer yet; one that could lose what it acknowledged is warned of in the log.

    Args:
        bundle_path: of the setting ``bundle``: a bundle or a bundle store. clock: epoch seconds.
        observe: as of Breaker.
    Raises:
        ConfigError: no URL, or a bad one. ArtifactError, StoreError: see SqliteStore.
    """
    if settings.kind == "none":
        return None
    if settings.kind == "sqlite":
        return Breaker(SqliteStore(settings.path or default_path(bundle_path), settings, clock), observe=observe)
    from serving.store.redis import RedisStore

    store = RedisStore(redis_url(settings, environment), settings, clock)
    try:
        warnings = store.warnings()
        if warnings:
            logger.warning("Redis can lose what it acknowledged: %s; see docs/serving-state.md", ", ".join(warnings))
    except StoreError as error:
        logger.warning("%s; the server starts without, and asks again", error)
    return Breaker(store, observe=observe)


def default_path(bundle_path: Path) -> Path:
    """In a bundle store; beside a bundle, for a bundle is never changed."""
    return (bundle_path.parent if (bundle_path / "manifest.json").is_file() else bundle_path) / FILE


def redis_url(settings: StoreSettings, environment: Mapping[str, str]) -> str:
    """What the file says, or else the variable. Raises ConfigError where there is neither."""
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
