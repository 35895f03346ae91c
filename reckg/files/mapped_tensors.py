"""Safetensors files as memory-mapped, read-only arrays: processes that serve one bundle share its pages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

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


def mapped_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, by name, without reading its values.

    Raises:
        ArtifactError: the file is missing, or its header does not fit its size.
    Source: the format, https://huggingface.co/docs/safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        start = 8 + length
        whole = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray) if size > start else np.empty(size, np.uint8)
        return {name: _tensor(name, told, whole[start:]) for name, told in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error


def _tensor(name: str, told: dict, values: np.ndarray) -> np.ndarray:
    dtype, shape, (low, high) = np.dtype(DTYPES[told["dtype"]]), told["shape"], told["data_offsets"]
    if not 0 <= low <= high <= len(values) or high - low != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"tensor {name!r} of {dtype} {shape} does not fit bytes {low} to {high}")
    part = values[low:high]
    if low % dtype.itemsize:  # never so in files that safetensors wrote
        part = part.copy()
    tensor = part.view(dtype).reshape(shape)
    tensor.flags.writeable = False
    return tensor
