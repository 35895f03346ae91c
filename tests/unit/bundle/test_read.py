"""Reading a bundle: no file is hashed twice, and a bundle of an earlier commit answers as it did."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import IO, Any

import polars as pl
import pytest

from reckg.bundle.manifest import read_manifest
from reckg.bundle.read import load_bundle
from reckg.live.add_items import with_items
from reckg.recommend.golden import open_bundle, replay_golden_file, save_with_golden
from serving.supervisor import verify
from tests import small_world
from tests.small_bundle import small_bundle

WRITTEN_BEFORE = Path(__file__).parents[2] / "fixtures" / "bundle-before-rooms"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """File name to how often its content was hashed."""
    counts: Counter[str] = Counter()
    real = hashlib.file_digest

    def counting(file: IO[bytes], *arguments: Any) -> Any:
        counts[file.name] += 1
        return real(file, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return counts


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = small_world.world(tmp_path / "world", linear=True)
    bundle = small_world.bundle(made)
    save_with_golden(bundle, tmp_path / "bundle", extra_folders={"model": made.folder / "inductive"})
    return tmp_path / "bundle"


def files_of(path: Path, *folders: str) -> Counter[str]:
    return Counter({str(path / name): 1 for name in read_manifest(path)["files"] if name.startswith(folders or "")})


def test_with_verify_every_file_is_hashed_once(saved: Path, hashed: Counter[str]) -> None:
    load_bundle(saved)
    assert hashed == files_of(saved)


def test_without_verify_only_files_of_unsafe_parsers_are_hashed_and_once(saved: Path, hashed: Counter[str]) -> None:
    load_bundle(saved, verify=False)
    assert hashed == files_of(saved, "index/", "ranker/")
    assert not any(name.endswith("features.safetensors") for name in hashed)


def test_a_ranked_bundle_hashes_its_model_once(tmp_path: Path, hashed: Counter[str]) -> None:
    save_with_golden(small_bundle(), tmp_path / "bundle")
    hashed.clear()
    load_bundle(tmp_path / "bundle", verify=False)
    assert hashed == files_of(tmp_path / "bundle", "index/", "ranker/")
    assert hashed[str(tmp_path / "bundle" / "ranker" / "ranker.txt")] == 1


def test_the_verifier_hashes_every_file_once(
    saved: Path, hashed: Counter[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "limit_process", lambda *_: None)
    assert verify.main([str(saved)]) == 0
    assert '"version"' in capsys.readouterr().out
    assert hashed == files_of(saved)


@pytest.mark.parametrize("verify", [True, False])
def test_a_bundle_of_an_earlier_commit_answers_its_golden_requests(verify: bool) -> None:
    bundle = open_bundle(WRITTEN_BEFORE, verify=verify)
    assert bundle.ranker is not None and bundle.inductive is not None
    assert replay_golden_file(bundle, WRITTEN_BEFORE / "golden.jsonl") > 10
    grown = with_items(bundle, small_world.items().head(1).with_columns(item_id=pl.lit("new")))
    assert len(grown.item_ids) == len(bundle.item_ids) + 1 and grown.built is bundle
