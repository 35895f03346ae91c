"""bundle: written whole, read back, and refused by name of what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pytest

import reckg
from reckg.bundle.bundle import Bundle
from reckg.bundle.check import check_bundle
from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.bundle.read import load_bundle
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.errors import ArtifactError
from reckg.recommend.golden import open_bundle, save_with_golden
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.recommender import Recommender
from reckg.recommend.wanted import Wanted
from reckg.retrieval.index import build_index
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def saved(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    (folder / "model").mkdir()
    (folder / "model" / "train.json").write_text("{}")
    path = folder / "bundle"
    save_with_golden(bundle, path, extra_folders={"model": folder / "model"})
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(manifest_text(manifest))


def edit_file(path: Path, name: str, content: bytes) -> None:
    """Changes a file and the manifest with it, as a writer with a fault would."""
    (path / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_manifest(path, lambda manifest: manifest["files"].update({name: entry}))


def test_a_bundle_comes_back_as_it_was(bundle: Bundle, saved: Path) -> None:
    loaded = open_bundle(saved)
    for name in ("user_vectors", "item_vectors"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(bundle, name))
    for name in ("indptr", "item_idx", "timestamp", "weight"):
        np.testing.assert_array_equal(getattr(loaded.history, name), getattr(bundle.history, name))
    assert loaded.items.equals(bundle.items)
    assert loaded.user_ids.ids.to_list() == bundle.user_ids.ids.to_list()
    assert (loaded.version, loaded.candidates, loaded.title_column) == ("test-1", bundle.candidates, "title")
    assert loaded.ranker is not None
    users = np.arange(len(bundle.user_ids))
    before, after = recommend_batch(bundle, users, Wanted(30)), recommend_batch(loaded, users, Wanted(30))
    np.testing.assert_array_equal(before.item_idx, after.item_idx)
    np.testing.assert_allclose(before.score, after.score, rtol=1e-6)


def test_a_bundle_without_a_ranker_comes_back_without_one(bundle: Bundle, tmp_path: Path) -> None:
    manifest = save_with_golden(replace(bundle, ranker=None), tmp_path / "bundle")
    assert manifest["ranked"] is False
    assert open_bundle(tmp_path / "bundle").ranker is None


def test_the_manifest_describes_every_file(bundle: Bundle, saved: Path) -> None:
    manifest = read_manifest(saved)
    files = {p.relative_to(saved).as_posix(): p for p in saved.rglob("*") if p.is_file() and p.name != "manifest.json"}
    assert set(manifest["files"]) == set(files)
    assert {"golden.jsonl", "users.parquet", "model/train.json", "index/index.faiss"} <= set(files)
    for name, path in files.items():
        content = path.read_bytes()
        assert manifest["files"][name] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert manifest["metrics"] == bundle.manifest["metrics"]
    assert manifest["counts"] == {
        "users": 40,
        "items": 60,
        "dimensions": 8,
        "interactions": len(bundle.history.item_idx),
    }
    assert {"python", "reckg", "numpy", "polars", "lightgbm"} <= set(manifest["library_versions"])


def test_load_gives_a_recommender(saved: Path, bundle: Bundle) -> None:
    assert reckg.load(str(saved)).recommend("u003", k=4) == Recommender(bundle).recommend("u003", k=4)


def test_nothing_is_overwritten_unless_asked(bundle: Bundle, copied: Path) -> None:
    with pytest.raises(ArtifactError, match="exists already"):
        save_with_golden(bundle, copied)
    save_with_golden(replace(bundle, version="test-2"), copied, overwrite=True)
    assert open_bundle(copied).version == "test-2"
    assert not (copied / "model").exists()
    assert [path.name for path in copied.parent.iterdir()] == ["bundle"]


def test_another_folder_is_never_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json, so it is something else"):
        save_with_golden(bundle, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_a_write_that_fails_leaves_the_old_bundle_and_nothing_else(
    bundle: Bundle, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reckg.bundle.write.manifest_text", full)
    with pytest.raises(ArtifactError, match=r"cannot be written: .*No space left on device"):
        save_with_golden(replace(bundle, version="test-2"), copied, overwrite=True)
    assert open_bundle(copied).version == "test-1"
    assert [path.name for path in copied.parent.iterdir()] == ["bundle"]


def test_what_a_killed_writer_left_is_removed(bundle: Bundle, tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    dead, alive = (tmp_path / f".bundle.writing-{pid}" for pid in (killed.pid, os.getppid()))
    dead.mkdir()
    alive.mkdir()
    save_with_golden(bundle, tmp_path / "bundle")
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_reader_finds_the_old_or_the_new_one(
    bundle: Bundle, copied: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr("reckg.files.atomic_folder._exchange", lambda one, other: False)
    versions, missing, done = set(), 0, threading.Event()

    def read() -> None:
        nonlocal missing
        while not done.is_set():
            try:
                versions.add(read_manifest(copied)["version"])
            except ArtifactError:
                missing += 1

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(2, 5):
        save_with_golden(replace(bundle, version=f"test-{n}"), copied, overwrite=True)
    done.set()
    reader.join()
    assert versions <= {"test-1", "test-2", "test-3", "test-4"}
    assert open_bundle(copied).version == "test-4"
    if exchange and sys.platform.startswith("linux"):
        assert missing == 0


@pytest.mark.parametrize("name", ["manifest.json", "index", "../outside", ".hidden", ""])
def test_an_extra_folder_cannot_take_a_name(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be called"):
        save_with_golden(bundle, tmp_path / "bundle", extra_folders={name: tmp_path})


def test_an_extra_folder_must_exist(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere is missing; it was to be copied into the bundle as 'model'"):
        save_with_golden(bundle, tmp_path / "bundle", extra_folders={"model": tmp_path / "nowhere"})


def test_every_damaged_file_is_refused_by_its_name(saved: Path, copied: Path) -> None:
    for name in read_manifest(saved)["files"]:
        whole = (copied / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (whole[:-1], whole[: len(whole) // 2], b"", bytes(flipped)):
            (copied / name).write_bytes(damaged)
            with pytest.raises(ArtifactError, match=rf"1 file is not as written: {name} has"):
                open_bundle(copied)
        (copied / name).write_bytes(whole)
    open_bundle(copied)


def test_native_parsers_never_see_a_damaged_file_even_unverified(copied: Path) -> None:
    for name in ("index/index.faiss", "ranker/ranker.txt"):
        whole = (copied / name).read_bytes()
        (copied / name).write_bytes(whole[:-9] + whole[:9])
        with pytest.raises(ArtifactError, match=rf"{name} has sha256"):
            load_bundle(copied, verify=False)
        (copied / name).write_bytes(whole)
    load_bundle(copied, verify=False)


def test_missing_and_unlisted_files_are_named_together(copied: Path) -> None:
    (copied / "users.parquet").unlink()
    (copied / "more.bin").write_bytes(b"")
    (copied / ".DS_Store").write_bytes(b"")
    with pytest.raises(
        ArtifactError, match=r"2 files .*: users.parquet is missing; more.bin is not listed in manifest"
    ):
        open_bundle(copied)


def test_a_damaged_manifest_is_refused(copied: Path, tmp_path: Path) -> None:
    manifest = (copied / "manifest.json").read_text()
    for change, message in (
        (
            lambda m: m.update(format_version=1),
            "format_version is 1, this version of reckg reads 2: write the bundle again with 'reckg run', or install",
        ),
        (lambda m: m.pop("format_version"), "format_version is None"),
        (lambda m: m.update(files=[]), "files missing or of another type"),
        (lambda m: m["files"].update({"users.parquet": {}}), "files missing or of another type"),
    ):
        edit_manifest(copied, change)
        with pytest.raises(ArtifactError, match=message):
            open_bundle(copied)
        (copied / "manifest.json").write_text(manifest)
    for text in (manifest[:100], "", "[]", "\0"):
        (copied / "manifest.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"manifest\.json"):
            open_bundle(copied)
    with pytest.raises(ArtifactError, match=r"is no bundle: it holds no manifest\.json"):
        open_bundle(tmp_path / "nowhere")


def test_a_file_of_the_right_hash_and_the_wrong_kind_is_refused(copied: Path) -> None:
    for name in ("users.parquet", "embeddings.safetensors", "history.safetensors"):
        whole = (copied / name).read_bytes()
        edit_file(copied, name, b"not what it should be")
        with pytest.raises(ArtifactError, match="cannot be read"):
            open_bundle(copied)
        edit_file(copied, name, whole)
    open_bundle(copied)


def test_golden_requests_must_be_answered_as_before(copied: Path) -> None:
    lines = (copied / "golden.jsonl").read_text().splitlines()
    golden = [json.loads(line) for line in lines]
    assert any(entry["answer"]["fallback"] == "popular" for entry in golden)
    assert any("item_id" in entry["request"] for entry in golden)

    def with_first(change: Callable[[dict[str, Any]], object]) -> bytes:
        first = json.loads(lines[0])
        change(first["answer"])
        return "\n".join([json.dumps(first), *lines[1:]]).encode()

    def nudge(answer: dict[str, Any], by: float) -> None:
        answer["scores"][0] += by

    cases: list[tuple[Callable[[dict[str, Any]], object], str]] = [
        (lambda a: a["item_ids"].__setitem__(0, "i999"), "item .* at place 1, expected 'i999'"),
        (lambda a: nudge(a, 0.01), "score .* at place 1"),
        (lambda a: a["item_ids"].pop(), "10 items, expected 9"),
        (lambda a: a.update(fallback="popular"), "fallback None, expected 'popular'"),
        (lambda a: a.pop("scores"), "line 1 is no golden request"),
    ]
    for change, message in cases:
        edit_file(copied, "golden.jsonl", with_first(change))
        with pytest.raises(ArtifactError, match=rf"golden.jsonl: .*{message}"):
            open_bundle(copied)
    edit_file(copied, "golden.jsonl", with_first(lambda a: nudge(a, 1e-7)))
    open_bundle(copied)
    edit_file(copied, "golden.jsonl", b"")
    with pytest.raises(ArtifactError, match="holds no request"):
        open_bundle(copied)


def test_parts_that_do_not_fit_together_are_named(bundle: Bundle, tmp_path: Path) -> None:
    spoiled = bundle.user_vectors.copy()
    spoiled[3, 1] = np.nan
    history = bundle.history
    outside = History(
        history.indptr,
        np.where(np.arange(len(history.item_idx)) < 2, 60, history.item_idx),
        history.timestamp,
        history.weight,
    )
    same = np.zeros_like(bundle.item_vectors)  # as one item that nobody took once made all others
    same[:, -1] = 1
    same[0] = bundle.item_vectors[0]
    for changed, message in (
        (
            replace(bundle, item_vectors=same, index=build_index(same)),
            r"\d+ of \d+ vectors of items with interactions are the same, so they order nothing",
        ),
        (replace(bundle, index=build_index(bundle.item_vectors[:59])), "index has 59 vectors, item ids 60"),
        (replace(bundle, index=build_index(bundle.item_vectors[:, :4])), "index has 4 dimensions, item vectors 8"),
        (
            replace(bundle, index=build_index(bundle.item_vectors[::-1])),
            "index and item vectors hold different vectors",
        ),
        (replace(bundle, user_ids=IdMap([str(n) for n in range(41)])), "user vectors have 40 rows, user ids 41"),
        (replace(bundle, user_vectors=spoiled), "user vectors hold 1 values that are not finite"),
        (replace(bundle, user_vectors=bundle.user_vectors[:, :4]), r"user vectors are float32 of shape \(40, 4\)"),
        (replace(bundle, items=bundle.items.head(10)), "items has 10 rows, item ids 60"),
        (replace(bundle, items=bundle.items.drop("title")), "items has no text column 'title'"),
        (replace(bundle, history=outside), r"history names 2 times an item outside 0\.\.59"),
        (
            replace(bundle, history=History(history.indptr[:-1], history.item_idx, history.timestamp, history.weight)),
            "history has 39 users, user ids 40",
        ),
        (
            replace(bundle, features=replace(bundle.features, items=bundle.features.items[:50])),
            "feature tables have 50 items, item ids 60",
        ),
        (replace(bundle, version="../escape"), "version '../escape' is no name of a folder"),
    ):
        with pytest.raises(ArtifactError, match=message):
            check_bundle(changed)
        with pytest.raises(ArtifactError, match=message):
            save_with_golden(changed, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_bundle_is_checked_across_its_files(bundle: Bundle, copied: Path) -> None:
    users = pl.DataFrame({"user_id": [f"u{n}" for n in range(39)]})
    users.write_parquet(copied / "other.parquet")
    content = (copied / "other.parquet").read_bytes()
    (copied / "other.parquet").unlink()
    edit_file(copied, "users.parquet", content)
    with pytest.raises(
        ArtifactError, match=r"embeddings\.safetensors .*users is float32 of shape \(40, 8\), expected .*39"
    ):
        open_bundle(copied)


def test_nothing_is_unpickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    open_bundle(saved)


@pytest.mark.parametrize("module", ["reckg", "serving.client"])
def test_importing_is_light(module: str) -> None:
    heavy = {"torch", "polars", "faiss", "lightgbm", "dgl", "scipy", "transformers", "numpy"}
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_what_requests_read_is_mapped_into_memory(tmp_path: Path) -> None:
    save_with_golden(small_bundle(), tmp_path / "bundle")
    loaded = open_bundle(tmp_path / "bundle")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    for name in ("embeddings.safetensors", "history.safetensors", "features/features.safetensors"):
        assert str(tmp_path / "bundle" / name) in maps, name
    assert not loaded.item_vectors.flags.writeable
