"""The embedder: what waits is embedded once, for each bundle, by rising revision."""

from __future__ import annotations

import io
import json
import queue
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.bundle.store import publish
from reckg.live.changes import CatalogChange
from reckg.live.new_item import NewItem
from reckg.recommend.golden import open_bundle, save_with_golden
from serving.catalog import embedder as embedding
from serving.catalog.embedder import Embedder
from serving.settings import ServerSettings
from serving.store import StoreError
from tests import small_world
from tests.memory_store import MemoryStore


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_world.bundle(small_world.world(tmp_path_factory.mktemp("world"), linear=True))


def upsert(item_id: str, **columns: Any) -> CatalogChange:
    return CatalogChange(item_id, "upsert", columns)


def test_what_waits_is_embedded_once(bundle: Bundle) -> None:
    store = MemoryStore()
    embedder = Embedder(bundle, store)
    assert embedder.catch_up() == 0
    store.change_catalog([upsert("n1", genres=["x"]), upsert("i03", genres=["x"]), CatalogChange("n9", "remove")])
    store.change_catalog([upsert("n2", genres=["y", "odd"], price=4.0)])
    assert (embedder.catch_up(), embedder.catch_up(), embedder.items) == (2, 0, 2)
    assert sorted(item_id for _, item_id in store.made) == ["n1", "n2"]
    assert Embedder(bundle, store).catch_up() == 0  # it finds them there
    store.change_catalog([upsert("n1", genres=["z"])])
    former = store.made[bundle.version, "n1"]
    assert embedder.catch_up() == 1 and store.made[bundle.version, "n1"].revision == 3
    assert store.made[bundle.version, "n1"].data != former.data
    assert Embedder(replace(bundle, version="other"), store).catch_up() == 2


def test_an_item_is_the_one_that_the_library_makes(bundle: Bundle) -> None:
    store = MemoryStore()
    store.change_catalog([upsert("n1", genres=["x", "odd"], price=4.0, colour=["red"]), upsert("n2", genres=["y"])])
    Embedder(bundle, store).catch_up()
    made = NewItem.from_bytes(store.made[bundle.version, "n1"].data, bundle)
    alone = bundle.embedder.embed_items([("", {"genres": ["x", "odd"], "price": 4.0, "colour": "red"})])
    np.testing.assert_allclose(made.vector, alone.vectors[0], atol=1e-6)
    assert sorted(made.unknown) == ["colour", "genres=odd"]


def test_an_unknown_item_does_not_stop_the_others(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    silent = [upsert("secret", colour=["red"]), upsert("n2")]
    store.change_catalog([upsert("n1", genres=["x"]), *silent, upsert("n3", price=1.0)])
    assert Embedder(bundle, store).catch_up() == 4
    assert {item_id: bool(item.data) for (_, item_id), item in store.made.items()} == {
        "n1": True,
        "n2": False,
        "n3": True,
        "secret": False,
    }
    assert "cannot embed an item of catalog revision 1" in caplog.text and "secret" not in caplog.text


def test_a_store_that_fails_is_asked_again(bundle: Bundle) -> None:
    store = MemoryStore()
    store.change_catalog([upsert("n1", genres=["x"])])
    embedder = Embedder(bundle, store)
    store.down = True
    with pytest.raises(StoreError):
        embedder.catch_up()
    store.down = False
    assert embedder.catch_up() == 1


def test_a_bundle_of_an_older_reckg_embeds_nothing(bundle: Bundle) -> None:
    store = MemoryStore()
    store.change_catalog([upsert("n1", genres=["x"])])
    assert Embedder(replace(bundle, inductive=None), store).catch_up() == 0


def test_the_process_tells_when_a_bundle_is_embedded(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_with_golden(bundle, tmp_path / "bundle")
    store, out = MemoryStore(), io.StringIO()
    store.change_catalog([upsert("n1", genres=["x"])])
    monkeypatch.setattr(embedding, "open_store", lambda *_: store)
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    path = str(tmp_path / "bundle")
    source = io.StringIO(json.dumps({"settings": {"bundle": path}, "bundle": path}))
    embedding.read_lines(source, lines)
    embedding.run(ServerSettings(bundle=Path()), None, lines, out)
    assert json.loads(out.getvalue()) == {"embedded": "world-1", "items": 1}
    monkeypatch.setattr(embedding, "open_store", lambda *_: None)
    lines.put({"bundle": "somewhere"})
    lines.put(None)
    embedding.run(ServerSettings(bundle=Path()), None, lines, out)
    assert json.loads(out.getvalue().splitlines()[1]) == {"embedded": "somewhere", "items": 0}


def test_the_bundles_of_variants_get_the_items_too(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bundles, out = MemoryStore(), tmp_path / "store", io.StringIO()
    for version in ("a", "b", "c"):
        save_with_golden(replace(bundle, version=version), tmp_path / version)
        publish(tmp_path / version, bundles)
    variants = [{"name": "now", "share": 0.5}, {"name": "then", "share": 0.5, "bundle_version": "b"}]
    settings = {"bundle": str(bundles), "experiment": {"variants": variants}}
    store.change_catalog([upsert("n1", genres=["x"])])
    monkeypatch.setattr(embedding, "open_store", lambda *_: store)
    loaded: list[str] = []
    monkeypatch.setattr(
        embedding, "load_bundle", lambda path, verify: loaded.append(path.name) or open_bundle(path, verify=verify)
    )
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    for line in ({"settings": settings, "bundle": str(bundles / "a")}, {"bundle": str(bundles / "c")}, None):
        lines.put(line)
    embedding.run(ServerSettings(bundle=Path()), None, lines, out)
    reports = [json.loads(line) for line in out.getvalue().splitlines()]
    assert reports == [{"embedded": "a", "items": 1}, {"embedded": "c", "items": 1}]
    assert set(store.made) == {("a", "n1"), ("b", "n1"), ("c", "n1")}
    assert loaded == ["a", "b", "c"]  # the variant's once
