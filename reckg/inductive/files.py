"""Writes and reads the folder of the arrays, settings and names that new items and users are embedded with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import describe_files, files_sha256
from reckg.files.mapped_tensors import Layout, check_tensors, mapped_tensors, write_tensors
from reckg.inductive.embedder import ENCODER, Inductive
from reckg.inductive.info import InductiveInfo

FORMAT_VERSION = 1
LAYOUT: Layout = {
    "layers": ("float32", ("layers", "nodes", "dim")),
    "interactions": ("float32", ("nodes",)),
    "others": ("float32", ("nodes",)),
    "log_total": ("float32", ("nodes",)),
    "transr.relation": ("float32", ("relations", "relation dim")),
    "transr.projection": ("float32", ("relations", "dim", "relation dim")),
    "user_edges.relation": ("int64", ("user edges",)),
    "user_edges.tail": ("int64", ("user edges",)),
    "linear.source": ("float32", ("items", "rank")),
    "linear.longest": ("float32", (1,)),
    "content.relation": ("int64", ("features",)),
    "content.tail": ("int64", ("features",)),
    "content.rarity": ("float32", ("features",)),
    "content.by_feature": ("float32", ("features", "rank")),
    "content.by_text": ("float32", ("known text dim", "rank")),
    "content.constant": ("float32", ("rank",)),
    "content.reliability": ("float32", (1,)),
    "new.scales": ("float32", (2,)),
    "new.shift": ("float32", ("shift",)),  # of older bundles
    "new.level": ("float32", (1,)),
}
TEXT: Layout = {
    "text_projection.weight": ("float32", ("dim", "text dim")),
    "text_gate.weight": ("float32", ("dim", "text dim")),
    "text_gate.bias": ("float32", ("dim",)),
}
OPTIONAL = (
    "log_total",
    "relation_logit",
    "transr.",
    "user_inputs",
    "linear.",
    "content.",
    "new.",
    "new.shift",
    "new.level",
)
PARTS = {"sum": (), "bi-interaction": ("joined", "product")}  # of a layer's aggregator; others have "joined" alone


def write_inductive(
    folder: Path, arrays: Mapping[str, np.ndarray], info: InductiveInfo, entities: Sequence[str]
) -> None:
    """Writes the folder that ``load_inductive`` reads.

    Args:
        folder: the folder; the text encoder must be beside it already.
        arrays: as reckg.model.joint.inductive_arrays makes them.
        info: settings and names.
        entities: the graph's entities in node order.
    """
    encoder = folder.parent / ENCODER
    if info["text"] is not None and encoder.is_dir():
        sha256 = files_sha256(describe_files(encoder))
        info = {**info, "text": {**info["text"], "encoder_sha256": sha256}}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "inductive.safetensors", arrays)
    pl.DataFrame({"name": pl.Series(entities, dtype=pl.String)}).write_parquet(folder / "entities.parquet")
    text = json.dumps({"format_version": FORMAT_VERSION, **info}, indent=1, ensure_ascii=False)
    (folder / "inductive.json").write_text(text + "\n", encoding="utf-8")


def load_inductive(folder: Path, item_ids: Sequence[str]) -> Inductive:
    """Reads a folder that ``write_inductive`` wrote.

    Args:
        folder: the folder; its text encoder is ``text_encoder`` beside it.
        item_ids: the bundle's item ids, in item_idx order.
    Raises:
        ArtifactError: the folder cannot be read, is of another format, or does not fit the item ids.
    """
    try:
        info = json.loads((folder / "inductive.json").read_text(encoding="utf-8"))
        if info["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {info['format_version']!r}, this version of reckg reads {FORMAT_VERSION}")
        entities = pl.read_parquet(folder / "entities.parquet")["name"].to_list()
        path = folder / "inductive.safetensors"
        arrays = mapped_tensors(path)
        n_nodes = len(entities) + len(item_ids)
        layout, sizes = _layout(arrays, info, n_nodes), {"nodes": n_nodes, "items": len(item_ids)}
        check_tensors(path, arrays, layout, sizes, OPTIONAL)
        return Inductive(arrays, info, entities, item_ids, folder, folder.parent / ENCODER)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{folder} cannot be read ({error!r}). Run 'reckg bundle' again.") from error


def _layout(arrays: Mapping[str, np.ndarray], info: InductiveInfo, n_nodes: int) -> Layout:
    """Returns the tensors of a model with these settings; the number of layers is read from the arrays."""
    n_relations, n_users = 2 * (len(info["relations"]) + 1), info["n_users"]
    layout = dict(LAYOUT) if info["text"] is None else {**LAYOUT, **TEXT}
    layout["relation_logit"] = "float32", (n_relations,)
    layout["user_inputs"] = "float32", (n_users, "dim")
    layout["user_edges.indptr"] = "int64", (n_users + 1,)
    shape = arrays["layers"].shape if "layers" in arrays else ()
    for layer in range(shape[0] if len(shape) == 3 and shape[1] == n_nodes else 0):  # else the check names it
        for part in PARTS.get(info["aggregator"], ("joined",)):
            layout[f"aggregators.{layer}.{part}.weight"] = "float32", ("dim", "dim")
            layout[f"aggregators.{layer}.{part}.bias"] = "float32", ("dim",)
    return layout
