"""Folds of the training part as labels, where validation has few: each with a model that was trained without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from reckg.config.run_config import Config, with_settings
from reckg.pipeline.ranking.label_folds import fold_parts, n_folds
from reckg.pipeline.run.folder import Prepared, link, read_prepared, write_json
from reckg.pipeline.run.state import StageCounts
from reckg.pipeline.stages.embed import embed_train
from reckg.pipeline.stages.train import train


def folds(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes folds/<number>/: the data of each fold, and the embeddings of a model that was trained without its labels.

    The models train like the run's own model, for the epochs to its best.

    Args:
        config: of the run.
        data: dataset folder; not read.
        run: run folder with prepared/, graph/ and model/.
    Returns:
        Counts for the log.
    """
    prepared = read_prepared(run)
    number = n_folds(config, prepared)
    (run / "folds").mkdir(exist_ok=True)
    for fold in range(number):
        folder = run / "folds" / str(fold)
        if (folder / "embeddings" / "train.safetensors").is_file():
            continue
        _write_data(run, folder, fold_parts(prepared, fold, number, config.run.seed), prepared)
        train(_as_trained(config, run), data, folder)
        embed_train(config, folder)
        shutil.rmtree(folder / "model")
    write_json(run / "folds" / "folds.json", {"folds": number})
    return {"folds": number}


def _write_data(run: Path, folder: Path, parts: np.ndarray, prepared: Prepared) -> None:
    (folder / "prepared").mkdir(parents=True, exist_ok=True)
    (run / "text-cache").mkdir(exist_ok=True)  # shared: a text is encoded once
    for name in ("graph", "text-cache"):
        link(folder / name, run / name)
    for path in (run / "prepared").iterdir():
        if path.name != "interactions.parquet":
            link(folder / "prepared" / path.name, path)
    changed = prepared.interactions.with_columns(pl.Series("split", parts.tolist(), dtype=pl.String))
    changed.write_parquet(folder / "prepared" / "interactions.parquet")


def _as_trained(config: Config, run: Path) -> Config:
    """The configuration with as many epochs as the run's model took to its best, and no early stop."""
    trained = json.loads((run / "model" / "train.json").read_text(encoding="utf-8"))
    epochs = max(int(trained["best_epoch"]), 1)
    settings = {"train.epochs": epochs, "train.patience": epochs, "train.validate_every": epochs}
    return with_settings(config, settings, "a fold of labels")
