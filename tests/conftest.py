"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.local_redis import LocalRedis

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; the test is skipped where it is not there."""
    given = os.environ.get("RECKG_SHARED_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not there ({folder}); set RECKG_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny text encoder with random weights. Tests leave it unchanged."""
    from tests.small_model import write_encoder  # imports torch

    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """Redis server that keeps every acknowledged write. Tests do not stop it; each takes its own namespace."""
    from tests.local_redis import LocalRedis

    server = LocalRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers looks for nothing on a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def importable_pandas() -> Iterator[None]:
    """Lets later tests import pandas after a test that ran a worker's or verifier's main in this process."""
    yield
    if "pandas" in sys.modules and sys.modules["pandas"] is None:
        del sys.modules["pandas"]
