"""Folds of the training part as labels, where validation has few: each with a model that was trained without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from reckg.config.run_config import Config
from reckg.data.row_order import hash_pairs
from reckg.evaluation.protocol import HeldOut, NoTargetError, held_out
from reckg.pipeline.ranking.index_choice import index_of
from reckg.pipeline.ranking.table_inputs import feature_tables
from reckg.pipeline.run.folder import Prepared, read_embeddings, read_prepared
from reckg.pipeline.run.held_out import label_weights
from reckg.ranking.trees.labels import LabelSet

HELD, LATER = "held", "later"  # the split parts that stand for a fold's labels, and for the interactions after them

ENOUGH = 30_000  # labels: where validation has as many, no fold is made
MOST, MOST_AHEAD = 5, 2  # folds; where labels come after the history, each further fold knows less history


def n_folds(config: Config, prepared: Prepared) -> int:
    """Returns rank.label_folds; if it is not set, as many folds as bring ENOUGH labels, at most MOST.

    Labels of validation users beyond rank.max_users do not count, for the ranker never sees them.
    """
    if not config.rank.enabled or prepared.cold_items:
        return 0
    if config.rank.label_folds is not None:
        return config.rank.label_folds
    valid = prepared.interactions.filter(pl.col("split") == "valid")
    if "taken" in valid.columns:
        valid = valid.filter("taken")
    labels = int(len(valid) * min(1.0, config.rank.max_users / max(valid["user_idx"].n_unique(), 1)))
    most = MOST_AHEAD if prepared.in_order else MOST
    return 0 if labels >= ENOUGH else min(most, -(-(ENOUGH - labels) // max(labels, 1)))


def fold_parts(prepared: Prepared, fold: int, number: int, seed: int) -> np.ndarray:
    """Assigns every interaction to a split part of a fold: HELD are its labels, LATER the interactions after them.

    A fold has as many labels as the validation part, at most a tenth of the training part where histories have no
    order: drawn at random there, no interaction in two folds. Where labels follow the history, they
    end where those of the fold before begin: in time where the split is by time, else in each user's sequence.
    """
    parts = prepared.interactions["split"].to_numpy().astype(object)
    train, n_valid = np.flatnonzero(parts == "train"), int((parts == "valid").sum())
    if not prepared.in_order:
        size = min(n_valid, len(train) // max(10, number))
        parts[np.random.default_rng(seed).permutation(train)[fold * size : (fold + 1) * size]] = HELD
        return parts
    rows = prepared.interactions[train]
    if prepared.info["split"]["kind"] == "global-time":
        chance = hash_pairs(rows["user_idx"].to_numpy(), rows["item_idx"].to_numpy(), seed)
        from_end = np.empty(len(rows), dtype=np.int64)
        from_end[np.lexsort((chance, rows["timestamp"].to_numpy()))[::-1]] = np.arange(len(rows))
        size = min(n_valid, len(train) // (2 * number))
    else:
        from_end = rows.select(pl.int_range(pl.len()).reverse().over("user_idx")).to_series().to_numpy()
        size = max(1, round(n_valid / max(rows["user_idx"].n_unique(), 1)))
    parts[train[from_end < (fold + 1) * size]] = HELD
    parts[train[from_end < fold * size]] = LATER
    return parts


def fold_held_out(prepared: Prepared) -> HeldOut:
    """Collects the users of a fold and their labels.

    Lists leave out the items of the validation part and of the interactions after the fold, as at test time. As
    candidates without a label these items would teach that they are not wanted.

    Args:
        prepared: data of the fold.
    """
    before = ("train", LATER, "valid") if prepared.target == "new" else ("train",)
    return held_out(prepared.interactions, HELD, before, len(prepared.users), target=prepared.target)


def fold_labels(config: Config, run: Path) -> list[LabelSet]:
    """Reads the label sets of the run's folds. A fold of a tiny log may have no label, and is left out."""
    sets = []
    for fold in range(json.loads((run / "folds" / "folds.json").read_text(encoding="utf-8"))["folds"]):
        folder = run / "folds" / str(fold)
        prepared = read_prepared(folder)
        users, items = read_embeddings(folder, "train")
        try:
            held = fold_held_out(prepared).sample(config.rank.max_users, config.run.seed)
        except NoTargetError:
            continue
        sets.append(
            LabelSet(
                tables=feature_tables(config, folder, prepared, "train"),
                history=prepared.history("train", config),
                index=index_of(users, items, config),
                vectors=users,
                users=held.users,
                relevant=held.relevant,
                excluded=held.excluded,
                weight=label_weights(prepared, HELD, held),
            )
        )
    return sets
