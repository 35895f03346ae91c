"""Writes and reads the folder of the arrays, settings and names that new items and users are embedded with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import describe_files, files_sha256
from reckg.files.mapped_tensors import mapped_tensors
from reckg.inductive.embedder import ENCODER, Inductive

FORMAT_VERSION = 1


def write_inductive(
    folder: Path, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any], entities: Sequence[str]
) -> None:
    """Writes what ``load_inductive`` reads; the text encoder must be beside it already."""
    encoder = folder.parent / ENCODER
    if info["text"] is not None and encoder.is_dir():
        sha256 = files_sha256(describe_files(encoder))
        info = {**info, "text": {**info["text"], "encoder_sha256": sha256}}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(arrays), folder / "inductive.safetensors")
    pl.DataFrame({"name": pl.Series(entities, dtype=pl.String)}).write_parquet(folder / "entities.parquet")
    text = json.dumps({"format_version": FORMAT_VERSION, **info}, indent=1, ensure_ascii=False)
    (folder / "inductive.json").write_text(text + "\n", encoding="utf-8")


def load_inductive(folder: Path, item_ids: Sequence[str]) -> Inductive:
    """Reads a folder that ``write_inductive`` wrote; the text encoder is ``text_encoder`` beside it.

    Raises:
        ArtifactError: it cannot be read, or is of another format.
    """
    try:
        info = json.loads((folder / "inductive.json").read_text(encoding="utf-8"))
        if info["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {info['format_version']!r}, this version of reckg reads {FORMAT_VERSION}")
        entities = pl.read_parquet(folder / "entities.parquet")["name"].to_list()
        arrays = mapped_tensors(folder / "inductive.safetensors")
        return Inductive(arrays, info, entities, item_ids, folder, folder.parent / ENCODER)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{folder} cannot be read ({error!r}). Run 'reckg bundle' again.") from error
