"""Safetensors files, read as memory-mapped arrays: processes that serve the same bundle share its pages."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from reckg.errors import ArtifactError

HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
PROBLEMS = 5  # named in a message
Shape = tuple[str | int, ...]  # a dimension's name or its size
Layout = Mapping[str, tuple[str, Shape]]  # a tensor's name to its NumPy dtype and shape


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes arrays as a safetensors file.

    safetensors 0.8.0 writes the memory of an array in Fortran order as it lies, under a shape for C order, without an
    error (its issue 825, findings/safetensors-numpy-order.sh). So every array is brought to C order first.

    Args:
        path: replaced if it exists.
        tensors: by name, in any memory order.
        metadata: texts for the file's header.
    """
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata=None if metadata is None else dict(metadata))


def mapped_tensors(path: Path) -> dict[str, np.ndarray]:
    """Maps every tensor of a safetensors file, by name, without reading its values.

    Args:
        path: the file; see https://huggingface.co/docs/safetensors for the format.
    Raises:
        ArtifactError: the file is missing, its header does not fit its size, or tensors overlap or leave gaps.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        whole = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray) if size > start else np.empty(size, np.uint8)
        tensors = {name: _tensor(name, entry, whole[start:]) for name, entry in header.items()}
        end = 0
        for low, high in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
            if low != end:
                raise ValueError(f"bytes {min(low, end)} to {max(low, end)} belong to no tensor, or to two")
            end = high
        if end != size - start:
            raise ValueError(f"tensors end at byte {end} of {size - start}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error
    return tensors


def check_tensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    layout: Layout,
    sizes: Mapping[str, int],
    groups: Collection[str] = (),
) -> None:
    """Checks names, dtypes and shapes of the tensors of a file.

    Args:
        path: the file, for the message.
        tensors: as ``mapped_tensors`` gives them.
        layout: every tensor that the file may hold. Tensors that name the same dimension have the same size there.
        sizes: known sizes by dimension name.
        groups: prefixes of names. A file may lack all tensors of the layout that share one of these prefixes.
    Raises:
        ArtifactError: a tensor is missing, unknown, or of another dtype or shape.
    """
    left_out = tuple(prefix for prefix in groups if not any(name.startswith(prefix) for name in tensors))
    problems = [f"{name} is missing" for name in layout if name not in tensors and not name.startswith(left_out)]
    problems += [f"{name} is unknown" for name in tensors if name not in layout]
    known = dict(sizes)
    for name, (dtype, shape) in layout.items():
        if name not in tensors:
            continue
        tensor = tensors[name]
        if tensor.ndim == len(shape):
            known |= {
                dim: n for dim, n in zip(shape, tensor.shape, strict=True) if isinstance(dim, str) and dim not in known
            }
        expected = tuple(known.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)
        if tensor.dtype != dtype or tensor.shape != expected:
            problems.append(f"{name} is {tensor.dtype} of shape {tensor.shape}, expected {dtype} of {expected}")
    if problems:
        raise ArtifactError(
            f"{path} is damaged, or of another run: {'; '.join(problems[:PROBLEMS])}. Run 'reckg run' again."
        )


def _tensor(name: str, entry: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    dtype, shape, (low, high) = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in (*shape, low, high)):
        raise ValueError(f"tensor {name!r} has the shape {shape!r} and the offsets {low!r} and {high!r}")
    if not low <= high <= len(values) or high - low != dtype.itemsize * math.prod(shape):
        raise ValueError(f"tensor {name!r} of {dtype} {shape} does not fit bytes {low} to {high}")
    part = values[low:high]
    if low % dtype.itemsize:  # never so in files that safetensors wrote
        part = part.copy()
    tensor = part.view(dtype).reshape(shape)
    tensor.flags.writeable = False
    return tensor
