"""What a worker holds: a bundle that another one took the place of is let go."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reckg.bundle.manifest import MANIFEST
from reckg.recommend.golden import save_with_golden
from serving.catalog.snapshot import ServingState
from tests.memory_store import MemoryStore
from tests.small_bundle import small_bundle


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_bundle_goes_without_the_collector_once_another_is_served(tmp_path: Path) -> None:
    """Workers keep the collector off what a bundle is made of."""
    state = ServingState(MemoryStore())
    for version in ("first", "second"):
        save_with_golden(replace(small_bundle(), version=version), tmp_path / version)

    def serve(version: str) -> None:
        manifest = (tmp_path / version / MANIFEST).read_bytes()
        state.prepare(tmp_path / version, hashlib.sha256(manifest).hexdigest())
        state.commit()

    serve("first")
    recommender = state.current.recommender
    recommender.recommend("u001", 5)
    recommender.rank_items("u001", recommender.bundle.item_ids.raw([0, 1]))
    bundle = recommender.bundle
    parts = (state.current, recommender, bundle, bundle.index, bundle.features, bundle.history, bundle.ranker)
    alive = [weakref.ref(part) for part in parts if part is not None]
    del recommender, bundle, parts
    assert all(ref() is not None for ref in alive) and len(alive) >= 6
    serve("second")
    assert [ref() for ref in alive if ref() is not None] == []
    assert state.current.bundle_version == "second"
