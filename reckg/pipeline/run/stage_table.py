"""The stages of a run in order, with their dependencies: configuration, input files and code."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reckg.config.run_config import Config
from reckg.data.schema import TABLES
from reckg.errors import DataError
from reckg.pipeline.run.code_hash import PACKAGES, code_sha256
from reckg.pipeline.run.state import KeyParts, RunState, StageCounts, files_below

StageFunction = Callable[[Config, Path, Path], StageCounts]

DATASET = "dataset"  # stands among a stage's inputs for the dataset folder
ENCODER = "encoder"  # stands among a stage's inputs for the text encoder's folder, where the configuration names one


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    ``settings``: sections of the configuration, or single keys ("evaluate.history"), that its result depends
    on; run.threads and run.device are in none, because they change the speed. ``inputs`` and ``outputs``: folders of
    the run folder; inputs also DATASET and ENCODER. ``resumes``: the function goes on from its own partial outputs
    after a kill; those of other stages are removed first. ``function``: None is <name> in reckg.pipeline.stages.<name>.
    """

    name: str
    does: str
    settings: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    resumes: bool = False
    function: StageFunction | None = None

    @property
    def module(self) -> str:
        """The name of the module that holds the stage's function."""
        return f"reckg.pipeline.stages.{self.name}" if self.function is None else self.function.__module__

    @property
    def command(self) -> str:
        return self.name.replace("_", "-")

    def load(self) -> StageFunction:
        """The stage's function; its heavy imports happen here."""
        return self.function or getattr(importlib.import_module(self.module), self.name)


STAGES: tuple[Stage, ...] = (
    Stage(
        "build_graph",
        "clean, split, and turn attributes into a knowledge graph",
        ("run.seed", "data", "task", "events", "split", "graph"),
        (DATASET,),
        ("prepared", "graph"),
    ),
    Stage(
        "train",
        "train the graph model and the text encoder",
        ("run.seed", "text", "model", "train"),
        ("prepared", "graph", ENCODER),
        ("model",),
        resumes=True,
    ),
    Stage(
        "embed",
        "write the vectors of users and items",
        ("run.seed", "text", "model", "train", "evaluate.history"),
        ("prepared", "graph", "model", ENCODER),
        ("embeddings",),
    ),
    Stage(
        "folds",
        "train again without some labels, where the ranker has few",
        ("run.seed", "text", "model", "train", "rank.enabled", "rank.label_folds"),
        ("prepared", "graph", "model", ENCODER),
        ("folds",),
        resumes=True,
    ),
    Stage(
        "index", "index the items for retrieval", ("run.seed", "index", "rank.candidates"), ("embeddings",), ("index",)
    ),
    Stage(
        "rank",
        "train the ranker and judge it",
        ("run.seed", "rank", "index", "evaluate.history"),
        ("prepared", "graph", "embeddings", "folds", "index"),
        ("ranker",),
    ),
    Stage(
        "bundle",
        "put together what is served",
        (
            "run.seed",
            "data",
            "task",
            "events",
            "split",
            "graph",
            "text",
            "model",
            "train",
            "index",
            "rank",
            "diversity",
        ),
        ("prepared", "graph", "model", "embeddings", "index", "ranker"),
        ("bundle",),
    ),
    Stage(
        "evaluate",
        "compare with the baselines on the test part",
        ("run.seed", "evaluate", "rank", "index", "diversity"),
        ("prepared", "graph", "model", "embeddings", "index", "ranker", "bundle"),
        ("report",),
    ),
)


def key_parts(stage: Stage, config: Config, data: Path, state: RunState) -> KeyParts:
    """Lists the dependencies of a stage's result.

    Args:
        data: dataset folder.
        state: of the run folder, keeps known hashes.
    """
    files: dict[str, str] = {}
    for name in stage.inputs:
        if name == DATASET:
            hashes = state.hash_files(dataset_files(data))
            files |= {f"{DATASET}/{path.name}": value for path, value in hashes.items()}
        elif name == ENCODER:
            folder = Path(config.text.encoder)
            hashes = state.hash_files(files_below(folder)) if folder.is_dir() else {}
            files |= {f"{ENCODER}/{path.relative_to(folder).as_posix()}": value for path, value in hashes.items()}
        else:
            files |= state.hash_folders([name])
    code = code_sha256(stage.module) if stage.module.split(".")[0] in PACKAGES else "given"
    return {"settings": _settings(stage, config), "inputs": files, "code": code}


def key_of(parts: KeyParts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def changes(old: KeyParts, new: KeyParts) -> list[str]:
    """Describes the differences between the parts of two keys.

    Args:
        old: parts of the recorded key, as ``key_parts`` returns them.
        new: parts of the present key.
    Returns:
        A few words for each difference.
    """
    found = []
    for key in sorted(old["settings"].keys() | new["settings"].keys()):
        before, now = old["settings"].get(key), new["settings"].get(key)
        if before != now:
            found.append(f"{key} was {before!r}, is {now!r}")
    inputs = sorted(old["inputs"].keys() | new["inputs"].keys())
    changed = [name for name in inputs if old["inputs"].get(name) != new["inputs"].get(name)]
    if changed:
        found.append(
            ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "") + " changed"
        )
    if old["code"] != new["code"]:
        found.append("reckg's code changed")
    return found


def dataset_files(data: Path) -> list[Path]:
    """Lists the files of a dataset folder that the data contract names. Raises DataError if it has none."""
    files = sorted(data.iterdir()) if data.is_dir() else []
    files = [p for p in files if p.is_file() and (p.name == "dataset.toml" or p.name.split(".")[0] in TABLES)]
    if not files:
        raise DataError(
            f"{data} is no dataset folder: it has no interactions.parquet. Make one with 'reckg import', "
            "or see docs/data-contract.md for the files to write."
        )
    return files


def _settings(stage: Stage, config: Config) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    chosen: dict[str, Any] = {}
    for name in stage.settings:
        section, _, key = name.partition(".")
        keys: Sequence[str] = [key] if key else list(values[section])
        chosen |= {f"{section}.{k}": values[section][k] for k in keys}
    return chosen
