"""verify: every damaged bundle is refused by name, in a process whose crash or hang is only a refusal."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pytest

from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.errors import ArtifactError
from reckg.files.atomic_folder import describe_files
from reckg.recommend.golden import open_bundle, save_with_golden
from serving.catalog.snapshot import ServingState
from serving.supervisor import verify as verify_module
from serving.supervisor.verify import VersionedBundle, identify_bundle, verify
from tests.small_bundle import small_bundle

MINUTE = 60.0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verified") / "bundle"
    save_with_golden(small_bundle(), path)
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def here(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the child process says, from this one; and no library may read a file of the bundle."""

    def parse(*_: object) -> NoReturn:
        raise AssertionError("a parser was asked")

    monkeypatch.setattr(verify_module, "limit_process", lambda *_: None)
    monkeypatch.setattr(verify_module, "_load", parse)
    assert verify_module.main([str(path)]) == 0
    return capsys.readouterr().out


def test_a_whole_bundle_passes(saved: Path) -> None:
    bundle = identify_bundle(saved)
    assert bundle.version == "test-1"
    verify(bundle, MINUTE)


def test_a_damaged_file_is_refused_by_name_before_it_is_parsed(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("manifest.json", *read_manifest(copied)["files"]):
        whole = (copied / name).read_bytes()
        cuts = [whole[: len(whole) * part // 8] for part in range(8)] + [whole[:-2]]
        flips = [flipped(whole, len(whole) * part // 8, part % 8) for part in range(8)] + [flipped(whole, -1, 0)]
        for damaged in cuts + flips:
            (copied / name).write_bytes(damaged)
            assert name in here(copied, monkeypatch, capsys).partition('"error": ')[2], (name, len(damaged))
        (copied / name).write_bytes(whole)
    with pytest.raises(AssertionError, match="a parser was asked"):
        here(copied, monkeypatch, capsys)


def flipped(whole: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    return bytes(changed)


def rewrite(path: Path, name: str, content: bytes) -> None:
    """Another file in a bundle, and a manifest that says so: what hashes cannot tell."""
    (path / name).write_bytes(content)
    manifest = read_manifest(path)
    manifest["files"] = describe_files(path)
    del manifest["files"]["manifest.json"]
    (path / "manifest.json").write_text(manifest_text(manifest))


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def other(**given: Any) -> Callable[[Path, str], bytes]:
    """A file of another bundle."""

    def content(folder: Path, name: str) -> bytes:
        save_with_golden(small_bundle(**given), folder)
        return (folder / name).read_bytes()

    return content


def edited(old: str, new: str) -> Callable[[Path, str], bytes]:
    def content(folder: Path, name: str) -> bytes:
        text = (folder.parent / "bundle" / name).read_text()
        assert old in text
        return text.replace(old, new).encode()

    return content


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("embeddings.safetensors", other(dim=4), "index has 8 dimensions, item vectors 4"),
        ("embeddings.safetensors", other(seed=5), "index and item vectors hold different vectors"),
        (
            "users.parquet",
            other(n_users=39),
            r"embeddings\.safetensors .*users is float32 of shape \(40, 8\), expected .*39",
        ),
        (
            "items.parquet",
            other(n_items=50),
            r"embeddings\.safetensors .*items is float32 of shape \(60, 8\), expected .*50",
        ),
        (
            "history.safetensors",
            other(n_users=39),
            r"history\.safetensors .*indptr is int64 of shape \(40,\), expected .*41",
        ),
        ("index/index.json", edited('"format_version": 2', '"format_version": 7'), "format 7"),
        ("ranker/ranker.json", edited('"format_version": 2', '"format_version": 7'), "format 7"),
        ("ranker/ranker.json", lambda folder, name: reordered(folder), "trained on other features"),
    ],
)
def test_parts_of_another_bundle_are_refused(
    copied: Path, tmp_path: Path, name: str, content: Callable[[Path, str], bytes], reason: str
) -> None:
    rewrite(copied, name, content(tmp_path / "other", name))
    with pytest.raises(ArtifactError, match=reason):
        verify_here(copied)


def verify_here(path: Path) -> None:
    """What the child does after the limits, without the start of a process."""
    manifest = read_manifest(path)
    verify_module.check_files(path, manifest["files"])
    verify_module._load(path, manifest)


def reordered(folder: Path) -> bytes:
    description = json.loads((folder.parent / "bundle" / "ranker" / "ranker.json").read_text())
    description["features"][0], description["features"][1] = description["features"][1], description["features"][0]
    return json.dumps(description).encode()


def test_another_format_of_the_whole_is_refused(copied: Path) -> None:
    manifest = read_manifest(copied) | {"format_version": 3}
    (copied / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(ArtifactError, match="format_version is 3, this version of reckg reads 2"):
        identify_bundle(copied)


def test_a_planted_pickle_never_runs(copied: Path, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    as_array = io.BytesIO()
    np.save(as_array, np.array([Planted()], dtype=object), allow_pickle=True)
    for name in read_manifest(copied)["files"]:
        whole = (copied / name).read_bytes()
        for content in (as_array.getvalue(), pickle.dumps(Planted())):
            rewrite(copied, name, content)
            with pytest.raises(ArtifactError):
                verify_here(copied)
            with pytest.raises(ArtifactError):
                ServingState().prepare(copied, identify_bundle(copied).manifest_sha256)
        rewrite(copied, name, whole)
    rewrite(copied, "vectors.npy", as_array.getvalue())
    open_bundle(copied)  # a file that nothing reads
    assert not (tmp_path / "it ran").exists()


def child_that(does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifier's process does this once it is limited."""
    code = f"""
        from serving.supervisor import verify
        def load(path, manifest):
            {does}
        verify._load = load
        import sys
        sys.exit(verify.main(sys.argv[1:]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    monkeypatch.setattr(verify_module, "child_command", lambda module, *arguments: [*command, *arguments])


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended the process that verified it with SIGSEGV"),
        ("import time; time.sleep(60)", r"was not verified within 1\.5 s"),
        ("b = bytes(1 << 60)", "needs more memory than verifying it may take"),
        ("raise KeyError('column')", "could not be verified: KeyError: 'column'"),
        ("import os; os._exit(0)", "could not be verified: no output"),
    ],
)
def test_a_bundle_that_crashes_or_hangs_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, does: str, reason: str
) -> None:
    child_that(does, monkeypatch)
    with pytest.raises(ArtifactError, match=reason):
        verify(identify_bundle(saved), 1.5 if "sleep" in does else MINUTE)


def test_a_process_is_limited(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child_that("import resource; raise SystemExit(str(resource.getrlimit(resource.RLIMIT_AS)))", monkeypatch)
    size = sum(file["bytes"] for file in read_manifest(saved)["files"].values())
    with pytest.raises(ArtifactError, match=str((16 << 30) + 8 * size)):
        verify(identify_bundle(saved), MINUTE)


def test_a_bundle_that_changed_after_it_was_verified_reaches_no_worker(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = identify_bundle(copied)
    state = ServingState()
    state.prepare(copied, verified.manifest_sha256)
    for name in ("index/index.faiss", "ranker/ranker.txt"):
        whole = (copied / name).read_bytes()
        (copied / name).write_bytes(flipped(whole, len(whole) // 2, 3))
        with pytest.raises(ArtifactError, match=f"{name} has sha256"):
            state.prepare(copied, verified.manifest_sha256)
        (copied / name).write_bytes(whole)
    rewrite(copied, "more", b"")
    with pytest.raises(ArtifactError, match="was changed after it was verified"):
        state.prepare(copied, verified.manifest_sha256)
    child_that("pass", monkeypatch)
    with pytest.raises(ArtifactError, match="was written again while it was verified"):
        verify(VersionedBundle(copied, "test-1", verified.manifest_sha256), MINUTE)
