"""Reads a bundle and checks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError

from reckg.bundle.bundle import Bundle
from reckg.bundle.check import check_bundle
from reckg.bundle.manifest import Manifest, read_manifest
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.errors import ArtifactError, DataError
from reckg.files.atomic_folder import check_files
from reckg.files.mapped_tensors import Layout, check_tensors, mapped_tensors
from reckg.inductive.files import load_inductive
from reckg.ranking.tables.feature_tables import load_feature_tables
from reckg.ranking.trees.ranker import load_ranker
from reckg.retrieval.faiss_index import Device
from reckg.retrieval.read_index import load_index

EMBEDDINGS: Layout = {"users": ("float32", ("users", "dimensions")), "items": ("float32", ("items", "dimensions"))}
HISTORY: Layout = {
    "indptr": ("int64", ("users + 1",)),
    "item_idx": ("int64", ("interactions",)),
    "timestamp": ("int64", ("interactions",)),
    "weight": ("float32", ("interactions",)),
    "taken": ("bool", ("interactions",)),
    "never.indptr": ("int64", ("users + 1",)),
    "never.item_idx": ("int64", ("dislikes",)),
}
HISTORY_OPTIONAL = ("taken", "never.")
PARSED = ("index/", "ranker/")  # FAISS and LightGBM read these files; a damaged one can end the process


def load_bundle(path: Path, verify: bool = True) -> Bundle:
    """Reads a bundle.

    Args:
        path: the bundle's folder.
        verify: check the hash of every file; else only names, sizes and shapes, and the hashes of the files whose
            parsers do not survive damage.
    Raises:
        ArtifactError: names everything that is missing or damaged, or the parts that do not fit together.
    """
    path = Path(path)
    manifest = read_manifest(path)
    check_files(path, manifest["files"], hashed=None if verify else PARSED)
    return read_checked(path, manifest)


def read_checked(path: Path, manifest: Manifest) -> Bundle:
    """Reads a bundle whose files ``check_files`` has checked. No file is hashed again.

    Args:
        path: the bundle's folder.
        manifest: as ``read_manifest`` returned it.
    Raises:
        ArtifactError: a file cannot be read, or the parts do not fit together.
    """
    try:
        bundle = _read_parts(path, manifest)
        check_bundle(bundle)
        problems = bundle.inductive.encoder_problems(manifest["files"]) if bundle.inductive is not None else []
    except (OSError, pl.exceptions.PolarsError, SafetensorError, KeyError, DataError) as error:
        raise ArtifactError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if problems:
        raise ArtifactError(f"{path}: {problems[0]}: built from different runs? Run 'reckg run' again.")
    return bundle


def _read_parts(path: Path, manifest: Manifest) -> Bundle:
    users, items = pl.read_parquet(path / "users.parquet"), pl.read_parquet(path / "items.parquet")
    sizes = {"users": users.height, "items": items.height, "users + 1": users.height + 1}
    embeddings, history = mapped_tensors(path / "embeddings.safetensors"), mapped_tensors(path / "history.safetensors")
    check_tensors(path / "embeddings.safetensors", embeddings, EMBEDDINGS, sizes)
    check_tensors(path / "history.safetensors", history, HISTORY, sizes, HISTORY_OPTIONAL)
    device: Device = "cpu" if manifest.get("config", {}).get("index", {}).get("device", "cpu") == "cpu" else "auto"
    folders = {name.partition("/")[0] for name in manifest["files"]}
    return Bundle(
        version=manifest["version"],
        manifest=manifest,
        user_ids=IdMap(users["user_id"], "user id"),
        item_ids=IdMap(items["item_id"], "item id"),
        items=items,
        user_vectors=embeddings["users"],
        item_vectors=embeddings["items"],
        index=load_index(path / "index", device, checked=True),
        history=_history(history),
        features=load_feature_tables(path / "features", checked=True),
        ranker=load_ranker(path / "ranker", checked=True) if "ranker" in folders else None,
        inductive=load_inductive(path / "inductive", items["item_id"].to_list()) if "inductive" in folders else None,
    )


def _history(tensors: dict[str, np.ndarray]) -> History:
    never = (tensors["never.indptr"], tensors["never.item_idx"]) if "never.indptr" in tensors else None
    return History(**{name: tensors[name] for name in HISTORY if name in tensors and "." not in name}, never=never)
