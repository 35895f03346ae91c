"""Damaged headers of a bundle's tensor files: every one is an ArtifactError that names the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reckg.bundle.read import load_bundle
from reckg.errors import ArtifactError
from reckg.recommend.golden import save_with_golden
from reckg.recommend.recommender import Recommender
from serving.catalog.snapshot import ServingState
from serving.supervisor.verify import identify_bundle
from tests import small_world

FILES = (
    "embeddings.safetensors",
    "history.safetensors",
    "features/features.safetensors",
    "inductive/inductive.safetensors",
)
BUNDLE_FORMS = {"transr": {"attention": "transr"}, "relation": {"attention": "relation"}}
SAME_SIZE = {"F32": "I32", "I64": "F64", "F16": "I16", "I32": "F32", "F64": "I64"}


@pytest.fixture(scope="module", params=list(BUNDLE_FORMS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    made = small_world.world(folder, linear=True, **BUNDLE_FORMS[request.param])
    save_with_golden(small_world.bundle(made), folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def header_of(whole: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def with_header(header: Any, payload: bytes, size: int) -> bytes:
    """A file of the size that the manifest names: the header is padded, or else the payload is cut or padded."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (size - 8 - len(payload) - len(text))
    return (len(text).to_bytes(8, "little") + text + payload)[:size].ljust(size, b"\0")


def damaged_entries(header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Headers with one damaged field, for every tensor."""
    for name, entry in header.items():
        shape, (low, high) = entry["shape"], entry["data_offsets"]
        changes: list[dict[str, Any]] = [
            {"dtype": "F8"},
            {"dtype": SAME_SIZE[entry["dtype"]]},
            {"dtype": ["F32"]},
            {"shape": [*shape, 1]},
            {"shape": [*shape[:-1], shape[-1] + 1]},
            {"shape": [-1, *shape]},
            {"shape": [10**30]},
            {"shape": [2**32, 2**32]},
            {"shape": [float(n) for n in shape]},
            {"shape": None},
            {"data_offsets": [low, high + 4]},
            {"data_offsets": [low + 8, high + 8]},
            {"data_offsets": [high + 1, low]},
            {"data_offsets": [-8, high]},
            {"data_offsets": [low, 2**62]},
            {"data_offsets": [low]},
            {"data_offsets": [str(low), str(high)]},
        ]
        if len(shape) == 2 and shape[0] != shape[1]:
            changes.append({"shape": shape[::-1]})
        if len(shape) > 1:
            changes.append({"shape": [int(np.prod(shape))]})
        for change in changes:
            yield {**header, name: {**entry, **change}}
        renamed = deepcopy(header)
        renamed[name + "x"] = renamed.pop(name)
        yield renamed
        yield {**header, name: 3}


def damaged_files(whole: bytes) -> Iterator[bytes]:
    """Files of the same size with a damaged header, or a truncated one."""
    size, (header, payload) = len(whole), header_of(whole)
    for length in (0, 1, 7, size - 8, size - 7, size, 2**31, 2**40, 2**63 - 1, 2**64 - 1):
        yield length.to_bytes(8, "little") + whole[8:]
    for text in (b"", b"[]", b"{", b"3", b'"text"', b"\xff\xfe", b"[" * 2000, b'{"users": []}', b"null"):
        yield with_header(text, payload, size)
    for changed in damaged_entries({name: entry for name, entry in header.items() if name != "__metadata__"}):
        yield with_header(changed, payload, size)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_every_damaged_header_is_an_error_that_names_the_file(copied: Path, name: str, verify: bool) -> None:
    whole = (copied / name).read_bytes()
    variants = list(damaged_files(whole))
    assert len(variants) > 50
    for number, content in enumerate(variants):
        assert content != whole and len(content) == len(whole)
        if verify and number % 10:
            continue  # the hash finds them all alike
        (copied / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=re.escape(name.rpartition("/")[2])):
            load_bundle(copied, verify=verify)
    (copied / name).write_bytes(whole)
    load_bundle(copied, verify=verify)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_an_error_that_names_the_file(copied: Path, name: str, verify: bool) -> None:
    whole = (copied / name).read_bytes()
    for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        (copied / name).write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match=re.escape(name.rpartition("/")[2])):
            load_bundle(copied, verify=verify)


@pytest.mark.parametrize("name", FILES)
def test_random_bytes_in_a_header_never_raise_another_error(copied: Path, name: str) -> None:
    """A changed byte may leave a valid header, as one in a tensor's name that no rule fixes does not."""
    whole, rng = (copied / name).read_bytes(), np.random.default_rng(0)
    end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(0, end, rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        (copied / name).write_bytes(content)
        try:
            load_bundle(copied, verify=False)
        except ArtifactError as error:
            assert name.rpartition("/")[2] in str(error)


def too_long(whole: bytes) -> bytes:
    return (2**60).to_bytes(8, "little") + whole[8:]


def other_dtype(whole: bytes) -> bytes:
    return whole.replace(b'"F32"', b'"I32"', 1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [too_long, other_dtype])
def test_a_worker_stays_on_the_old_bundle(
    saved: Path, copied: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    state = ServingState()
    state.serve(Recommender(load_bundle(saved, verify=False)))
    before = state.current
    answer = before.recommender.recommend(small_world.USER_IDS[0], 5)
    (copied / name).write_bytes(damage((copied / name).read_bytes()))
    with pytest.raises(ArtifactError, match=re.escape(name.rpartition("/")[2])):
        state.prepare(copied, identify_bundle(copied).manifest_sha256)
    with pytest.raises(ArtifactError, match="no bundle is prepared"):
        state.commit()
    assert state.current is before
    assert state.current.recommender.recommend(small_world.USER_IDS[0], 5) == answer
