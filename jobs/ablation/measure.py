"""Stages that measure a trained variant by its vectors alone: the top of every held-out user's full ranking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from reckg.config.run_config import Config
from reckg.evaluation.protocol import HeldOut, held_out
from reckg.files.mapped_tensors import write_tensors
from reckg.model.embeddings import Embeddings
from reckg.pipeline.run.folder import Prepared, read_prepared
from reckg.pipeline.run.stage_table import ENCODER, Stage
from reckg.pipeline.run.state import StageCounts
from reckg.pipeline.training.model_inputs import load_graph, served_shares
from reckg.pipeline.training.trained_model import TrainedModel, load_trained_model

PLACES = 20  # of each list that are kept
RELATIONS = 20  # that are masked one by one; the rest together
OTHERS, ALL = "others", "all relations"
SEEN = {"test": ("train", "valid"), "valid": ("train",)}  # split parts that a list of a part must not hold
STATE = {"test": "test", "valid": "train"}  # the state in which a part is predicted


def ablation_part(prepared: Prepared, part: str) -> HeldOut:
    return held_out(prepared.interactions, part, SEEN[part], len(prepared.users), target=prepared.target)


def measure_test(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes measured/test.safetensors: lists (n, PLACES), a row for each user of the test part."""
    return _measure(config, run, "test")


def measure_valid(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes measured/valid.safetensors, as measure_test does for the validation part."""
    return _measure(config, run, "valid")


def measure_relations(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes masked/test.safetensors: the lists of the test part with one relation's triples left out at inference."""
    prepared, trained = _load_trained(config, run)
    held, groups = ablation_part(prepared, "test"), relation_groups(run)
    text = None if trained.model.text is None else trained.model.text.vectors.cpu().numpy()
    lists = {}
    for name, relations in groups.items():
        graph = load_graph(run, prepared, config, STATE["test"], without=relations, attention=served_shares(run))
        masked = replace(trained, spectral=trained.spectral.predict_new(graph, text))
        lists[name] = _lists(masked.embeddings(graph), held)
    (run / "masked").mkdir(parents=True, exist_ok=True)
    write_tensors(run / "masked" / "test.safetensors", lists)
    return {"masked": len(groups)}


_DEPENDS_ON = ("run.seed", "text", "model", "evaluate.history")
_INPUTS = ("prepared", "graph", "model", ENCODER)
MEASURE_TEST = Stage(
    "measure", "rank the catalogue for the test part", _DEPENDS_ON, _INPUTS, ("measured",), function=measure_test
)
MEASURE_VALID = Stage(
    "measure", "rank the catalogue for the validation part", _DEPENDS_ON, _INPUTS, ("measured",), function=measure_valid
)
MEASURE_RELATIONS = Stage(
    "mask", "rank again without one relation at a time", _DEPENDS_ON, _INPUTS, ("masked",), function=measure_relations
)


def read_lists(run: Path, part: str) -> np.ndarray:
    """Reads measured lists.

    Args:
        run: folder of a variant and seed.
        part: valid or test.
    Returns:
        (n, PLACES) item_idx of the users of ``ablation_part``.
    """
    return load_file(run / "measured" / f"{part}.safetensors")["lists"]


def read_masked(run: Path) -> dict[str, np.ndarray]:
    """Reads the lists without some relations.

    Args:
        run: folder of a variant and seed.
    Returns:
        (n, PLACES) item_idx by the names of ``relation_groups``.
    """
    return load_file(run / "masked" / "test.safetensors")


def relation_groups(run: Path) -> dict[str, tuple[str, ...]]:
    """Groups the relations that are masked together: each of the largest alone, the rest, and all."""
    counts = relation_counts(run)
    named, rest = list(counts)[:RELATIONS], tuple(counts)[RELATIONS:]
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in named}
    if rest:
        groups[OTHERS] = rest
    if len(groups) > 1:
        groups[ALL] = tuple(counts)
    return groups


def relation_counts(run: Path) -> dict[str, int]:
    """Counts the triples of every relation.

    Args:
        run: folder with graph/.
    Returns:
        Triples by relation, most first.
    """
    names = json.loads((run / "graph" / "graph.json").read_text(encoding="utf-8"))["relations"]
    relation = pl.read_parquet(run / "graph" / "triples.parquet", columns=["relation"])["relation"].to_numpy()
    counts = np.bincount(relation, minlength=len(names))
    return {names[number]: int(counts[number]) for number in np.argsort(-counts, kind="stable")}


def _measure(config: Config, run: Path, part: str) -> StageCounts:
    prepared, trained = _load_trained(config, run)
    held = ablation_part(prepared, part)
    graph = load_graph(run, prepared, config, STATE[part], attention=served_shares(run))
    embeddings = trained.embeddings(graph)
    (run / "measured").mkdir(parents=True, exist_ok=True)
    write_tensors(run / "measured" / f"{part}.safetensors", {"lists": _lists(embeddings, held)})
    same = 1 + (trained.spectral.new is not None)  # the last column makes vectors equally long, another has the level
    unknown = (embeddings.items[:, :-same] == 0).all(axis=1)
    return {"users": len(held.users), "items_without_vector": int(unknown.sum())}


def _load_trained(config: Config, run: Path) -> tuple[Prepared, TrainedModel]:
    prepared = read_prepared(run)
    return prepared, load_trained_model(config, run, prepared, load_graph(run, prepared, config, "train"))


def _lists(embeddings: Embeddings, held: HeldOut) -> np.ndarray:
    return held.nearest_items(embeddings.users[held.users], embeddings.items, PLACES).item_idx
