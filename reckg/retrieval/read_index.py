"""Reading of a saved index: checked, and mapped into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np

from reckg.errors import ArtifactError
from reckg.files.file_hash import file_sha256
from reckg.retrieval.faiss_index import (
    CLASSES,
    Device,
    Kind,
    copy_to_device,
    import_faiss,
    map_index,
    view_stored_vectors,
)
from reckg.retrieval.index import ItemIndex

READ_VERSIONS = (1, 2)  # 1: flat or hnsw without compression, recall not measured


def load_index(folder: Path, device: Device = "cpu", *, checked: bool = False) -> ItemIndex:
    """Opens an index that ``ItemIndex.save`` wrote, read-only, with its files mapped into memory.

    Args:
        folder: of index.json and index.faiss.
        device: as in ``build_index``.
        checked: the caller has checked the hashes of the folder's files. False: they are checked here.
    Raises:
        ArtifactError: a file is missing, was changed, or does not fit its description.
        ConfigError: device is gpu, and faiss finds none.
    """
    description = _read_description(folder / "index.json")
    path, beside = folder / "index.faiss", folder / "vectors.npy"
    if not checked:
        _check_hash(path, description["sha256"])
    index = map_index(path)
    kind, compression = description["kind"], description.get("compression", "none")
    expected = getattr(import_faiss(), CLASSES[kind, compression])
    if type(index) is not expected or index.metric_type != import_faiss().METRIC_INNER_PRODUCT:
        described = kind if compression == "none" else f"{kind} with {compression}"
        raise ArtifactError(
            f"{path} holds {type(index).__name__}, index.json says {described}. Run 'reckg index' again."
        )
    if (index.ntotal, index.d) != (description["n_items"], description["dim"]):
        raise ArtifactError(
            f"{path} has {index.ntotal} vectors of {index.d} dimensions, index.json says {description['n_items']} of "
            f"{description['dim']}. Run 'reckg index' again."
        )
    vectors = None
    if description.get("vectors_sha256"):
        if not checked:
            _check_hash(beside, description["vectors_sha256"])
        vectors = np.load(beside, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    if (vectors is None) != (view_stored_vectors(index, kind, compression) is not None) or (
        vectors is not None and (vectors.shape != (index.ntotal, index.d) or vectors.dtype != np.float32)
    ):
        raise ArtifactError(f"{beside} does not fit {path}. Run 'reckg index' again.")
    return ItemIndex(
        index,
        kind,
        description["settings"],
        compression=compression,
        vectors=vectors,
        recall=description.get("recall"),
        gpu=copy_to_device(index, kind, device),
    )


def _check_hash(path: Path, expected: str) -> None:
    """Compares a file with its hash before FAISS reads it: FAISS crashes on some damaged files."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. Run 'reckg index' again.")
    found = file_sha256(path)
    if found != expected:
        raise ArtifactError(
            f"{path} is damaged: its sha256 is {found[:12]}, index.json says {str(expected)[:12]}. "
            "Run 'reckg index' again."
        )


def _read_description(path: Path) -> dict[str, Any]:
    """Reads and checks index.json. Raises ArtifactError."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}. Run 'reckg index' again.") from error
    needed = {"format_version", "kind", "n_items", "dim", "settings", "sha256"}
    if not isinstance(description, dict) or not needed <= set(description):
        raise ArtifactError(f"{path} lacks some of {sorted(needed)}. Run 'reckg index' again.")
    version, kind, compression = (description.get(name) for name in ("format_version", "kind", "compression"))
    if version not in READ_VERSIONS or (kind, compression or "none") not in CLASSES:
        raise ArtifactError(
            f"{path} has format {version!r} and kind {kind!r} with compression {compression!r}; this version of reckg "
            f"reads the formats {READ_VERSIONS} and the kinds {', '.join(get_args(Kind))}. Run 'reckg index' again."
        )
    efforts = {"hnsw": {"ef_search"}, "ivf": {"ivf_lists", "nprobe"}}
    lacking = efforts.get(str(kind), set()) - set(description["settings"])
    if lacking:
        raise ArtifactError(f"{path} lacks settings.{min(lacking)}. Run 'reckg index' again.")
    return description
