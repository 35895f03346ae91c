"""Safetensors files as mapped arrays: every type comes back, and damaged files are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from reckg.errors import ArtifactError
from reckg.files.mapped_tensors import DTYPES, mapped_tensors, write_tensors


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {name: (rng.random((3, 5)) * 100).astype(dtype) for name, dtype in DTYPES.items()}
    return made | {"empty": np.zeros((4, 0), dtype=np.float16), "single": np.array(7, dtype=np.int64)}


def test_every_type_comes_back_read_only_and_mapped(tmp_path: Path) -> None:
    path, given = tmp_path / "some.safetensors", tensors()
    save_file(given, path, metadata={"made": "by a test"})
    found = mapped_tensors(path)
    assert set(found) == set(given)
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        np.testing.assert_array_equal(found[name], tensor)
        with pytest.raises(ValueError, match="read-only"):
            found[name][...] = 0
    assert str(path) in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_tensors_of_no_bytes_need_no_map(tmp_path: Path) -> None:
    save_file({"empty": np.zeros((0, 3), dtype=np.float32)}, tmp_path / "empty.safetensors")
    assert mapped_tensors(tmp_path / "empty.safetensors")["empty"].shape == (0, 3)


def test_a_tensor_at_an_odd_place_is_copied(tmp_path: Path) -> None:
    """The format allows it; the library's own files never have one."""
    numbers = np.array([1.5, -2.5], dtype=np.float64)
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "odd": {"dtype": "F64", "shape": [2], "data_offsets": [1, 17]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "odd").write_bytes(len(text).to_bytes(8, "little") + text + b"\x07" + numbers.tobytes())
    found = mapped_tensors(tmp_path / "odd")
    assert found["byte"].tolist() == [7] and found["odd"].tolist() == [1.5, -2.5]


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file({"first": np.arange(6, dtype=np.float32)}, path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for content in (b"", whole[:5], whole[: 8 + length // 2], whole[: 8 + length], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"some\.safetensors cannot be read"):
            mapped_tensors(path)
    told = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    for change in (
        {"dtype": "F8"},
        {"shape": [7]},
        {"shape": [-6]},
        {"shape": "six"},
        {"data_offsets": [0, 28]},
        {"data_offsets": [-4, 20]},
        {"data_offsets": [24, 0]},
        {"data_offsets": [0]},
        {"data_offsets": None},
    ):
        text = json.dumps({"first": told | change}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(ArtifactError, match=r"some\.safetensors cannot be read"):
            mapped_tensors(path)
    for text in (b"[]", b"{", b'{"first": 3}', b"\xff\xff"):
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(ArtifactError, match=r"some\.safetensors cannot be read"):
            mapped_tensors(path)
    with pytest.raises(ArtifactError, match=r"nowhere\.safetensors cannot be read \(FileNotFoundError"):
        mapped_tensors(tmp_path / "nowhere.safetensors")


def test_arrays_of_any_memory_order_come_back_as_they_were(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    orders = {"rows": rows, "fortran": np.asfortranarray(rows), "transposed": rows.T, "every second": rows[:, ::2]}
    write_tensors(tmp_path / "orders.safetensors", orders)
    found = mapped_tensors(tmp_path / "orders.safetensors")
    assert found.keys() == orders.keys()
    for name, array in orders.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
