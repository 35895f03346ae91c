"""Run folders that take another run's data with another graph, other texts or other settings, to compare with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from reckg.config.run_config import Config, with_settings
from reckg.graph.shuffle import shuffle_tails
from reckg.pipeline.run.folder import link, read_prepared, write_json
from reckg.pipeline.run.pipeline import Say, run_pipeline
from reckg.pipeline.run.stage_table import STAGES, Stage
from reckg.pipeline.run.state import RunState, StageCounts

TRAIN = next(stage for stage in STAGES if stage.name == "train")


@dataclass(frozen=True)
class Variant:
    """A change to the base run. ``settings``: "model.layers" -> 3."""

    name: str
    does: str
    graph: Literal["true", "shuffled", "none"] = "true"
    text: Literal["true", "shuffled"] = "true"
    settings: Mapping[str, Any] = field(default_factory=dict)


def build_base(config: Config, data: Path, base: Path, overwrite: bool, say: Say) -> None:
    """Cleans, splits and builds the graph, once for all variants.

    Args:
        base: run folder of the base.
        overwrite: finished results that no longer fit may be replaced.
    """
    run_pipeline(config, data, base, only="build_graph", overwrite=overwrite, say=say)


def variant_folder(base: Path, variant: Variant, seed: int) -> Path:
    return base / "variants" / variant.name / f"seed-{seed}"


def run_variant(
    config: Config, base: Path, variant: Variant, seed: int, after: Sequence[Stage], *, overwrite: bool, say: Say
) -> RunState:
    """Derives a variant's data from the base run's, trains with a seed, and runs the stages after that.

    Args:
        base: run folder of the base.
        after: stages that follow the training.
        overwrite: finished results that no longer fit may be replaced.
        say: receives a line at a time.
    Returns:
        The state of the variant's run folder.
    Raises:
        ConfigError: the settings are refused, or finished results would be replaced.
    """
    run = variant_folder(base, variant, seed)
    changed = with_settings(config, {**variant.settings, "run.seed": seed}, f"variant {variant.name}")
    stages = (_derive_stage(variant, base, run), TRAIN, *after)
    return run_pipeline(changed, base, run, stages=stages, overwrite=overwrite, say=say)


def _derive_stage(variant: Variant, base: Path, run: Path) -> Stage:
    """The first stage of a variant, in place of build-graph; its data are the base run's folder."""

    def derive(config: Config, data: Path, run: Path) -> StageCounts:
        (data / "text-cache").mkdir(exist_ok=True)  # shared: a text is encoded once for all variants
        link(run / "text-cache", data / "text-cache")
        counts = {} if variant.text == "true" else shuffle_texts(data, run, config.run.seed)
        if variant.text == "true":
            link(run / "prepared", data / "prepared")
        if variant.graph == "true":
            link(run / "graph", data / "graph")
            return counts
        return counts | (write_shuffled if variant.graph == "shuffled" else write_empty)(data, run, config.run.seed)

    inputs = tuple(os.path.relpath(base / name, run) for name in ("prepared", "graph"))
    return Stage("derive", variant.does, ("run.seed",), inputs, ("prepared", "graph"), function=derive)


def write_shuffled(base: Path, run: Path, seed: int) -> StageCounts:
    """graph/ with the tails of every relation shuffled; the counts of the shuffle go into graph.json."""
    description, triples = _read_graph(base)
    columns = tuple(triples[name].to_numpy() for name in ("head", "relation", "tail"))
    tail, counts = shuffle_tails((columns[0], columns[1], columns[2]), description["relations"], seed)
    _write_graph(base, run, description | {"shuffle": counts}, triples.with_columns(tail=pl.Series(tail)))
    total = counts.values()
    return {
        "triples": sum(count["triples"] for count in total),
        "unchanged": sum(count["unchanged"] for count in total),
        "repeated": sum(count["repeated"] for count in total),
    }


def write_empty(base: Path, run: Path, seed: int) -> StageCounts:
    """graph/ without triples: users, items and interactions are all that is left."""
    description, triples = _read_graph(base)
    _write_graph(base, run, description | {"n_entities": 0, "relations": []}, triples.clear())
    return {"triples": 0}


def shuffle_texts(base: Path, run: Path, seed: int) -> StageCounts:
    """prepared/ with the texts of the items that have one dealt out anew among these; all text columns together."""
    prepared = read_prepared(base)
    columns = prepared.info["item_columns"]["text"]
    has_text = pl.any_horizontal(pl.col(name).fill_null("") != "" for name in columns)
    rows = prepared.items.select(has_text.alias("has_text"))["has_text"].arg_true().to_numpy()
    order = np.arange(len(prepared.items))
    order[rows] = np.random.default_rng(seed).permutation(rows)
    texts = prepared.items.select(columns)[order]
    (run / "prepared").mkdir(parents=True)
    for path in (base / "prepared").iterdir():
        if path.name != "items.parquet":
            link(run / "prepared" / path.name, path)
    prepared.items.with_columns(texts).write_parquet(run / "prepared" / "items.parquet")
    return {"texts": len(rows), "texts_unmoved": int((order[rows] == rows).sum())}


def _read_graph(base: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    description = json.loads((base / "graph" / "graph.json").read_text(encoding="utf-8"))
    return description, pl.read_parquet(base / "graph" / "triples.parquet")


def _write_graph(base: Path, run: Path, description: dict[str, Any], triples: pl.DataFrame) -> None:
    (run / "graph").mkdir(parents=True)
    link(run / "graph" / "entities.parquet", base / "graph" / "entities.parquet")
    triples.write_parquet(run / "graph" / "triples.parquet")
    write_json(run / "graph" / "graph.json", description)
