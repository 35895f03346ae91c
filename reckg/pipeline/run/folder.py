"""The files that stages leave in a run's folder for the next ones."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from reckg.arrays.ragged_rows import Rows, rows_of_pairs
from reckg.config.run_config import Config
from reckg.data.history import History
from reckg.data.schema import Target
from reckg.errors import ArtifactError

# A state is a moment with its known interactions: while training, at test time, in service.
STATES = ("train", "test", "serving")


class SplitInfo(TypedDict):
    """How the interactions were split. Times are in seconds since 1970; None: not split by time."""

    kind: str
    cutoff_time: int | None
    valid_cutoff_time: int | None
    valid_before_test: bool


class TaskInfo(TypedDict):
    """The question of the run.

    Args:
        repeat_share: among the target events before the test part; None: not measured.
        target_events: types that are predicted; empty for data without types.
        event_weights: mean weight of a training interaction, by type; without the negative types.
        event_rows: training interactions by type.
        events_derived: whether the data chose the target events.
    """

    target: Target
    repeat_share: float | None
    target_events: list[str]
    event_weights: dict[str, float]
    negative_events: list[str]
    event_rows: dict[str, int]
    events_derived: bool


class PreparedInfo(TypedDict):
    """The content of prepared.json.

    Args:
        time: what timestamps mean: utc, ordinal or none.
        item_columns, user_columns: by kind.
        log: size, density and times of the log, in words.
        recency_half_life: derived of the training histories; 0 without order in time.
        counts: of rows, and of cleaning, split and graph.
        checks: of the split, for the report.
        notes: decisions, a sentence each.
    """

    name: str
    source: str
    licence: str
    time: str
    item_columns: dict[str, list[str]]
    user_columns: dict[str, list[str]]
    split: SplitInfo
    task: NotRequired[TaskInfo]
    log: NotRequired[list[str]]
    recency_half_life: NotRequired[float]
    counts: dict[str, Any]
    checks: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class Prepared:
    """The cleaned and split data of a run. Frames of users and items are in index order."""

    interactions: pl.DataFrame  # user_idx, item_idx, timestamp (optional), weight, split, taken, disliked
    users: pl.DataFrame
    items: pl.DataFrame
    info: PreparedInfo

    @property
    def in_order(self) -> bool:
        """Whether validation and test follow training in each user's time: then a history's order says something.

        Never where the items are split: a new item may be taken at any time, before or after the known ones, so that
        a training example, too, is best predicted from all the rest of its user's history.
        """
        return bool(self.info["split"]["valid_before_test"])

    @property
    def cold_items(self) -> bool:
        """Whether the split keeps whole items out of training, and asks for these alone."""
        return bool(self.info["split"].get("kind") == "cold-items")

    @property
    def target(self) -> Target:
        """The question of the run; new in a folder of an older reckg."""
        return self.info["task"]["target"] if "task" in self.info else "new"

    def half_life(self, config: Config) -> float:
        """Returns model.recency_half_life; if it is not set, the one that build-graph derived. 0 without order."""
        wanted = config.model.recency_half_life
        if not self.in_order or wanted is not None:
            return (wanted or 0.0) if self.in_order else 0.0
        derived = self.info.get("recency_half_life")
        if derived is None:
            raise ArtifactError(
                "prepared.json has no recency_half_life: an older reckg made it. Run 'reckg build-graph'."
            )
        return float(derived)

    def parts(self, state: str, config: Config) -> tuple[str, ...]:
        """Lists the split parts that are known in a state.

        Args:
            state: train, test or serving; evaluate.history decides for test.
        """
        if state == "train":
            return ("train",)
        if state == "serving":
            return ("train", "valid", "test")
        history = config.evaluate.history
        if history == "auto":
            history = "train+valid" if self.in_order else "train"
        return tuple(history.split("+"))

    def known(self, state: str, config: Config) -> pl.DataFrame:
        """Selects the interactions that are known in a state, without the dislikes."""
        known = self.interactions.filter(pl.col("split").is_in(self.parts(state, config)))
        return known.filter(~pl.col("disliked")) if "disliked" in known.columns else known

    def disliked(self, state: str, config: Config) -> Rows:
        """Collects the items that each user is known to dislike in a state, as compressed rows."""
        known = self.interactions.filter(pl.col("split").is_in(self.parts(state, config)))
        rows = known.filter("disliked") if "disliked" in known.columns else known.clear()
        return rows_of_pairs(rows["user_idx"].to_numpy(), rows["item_idx"].to_numpy(), len(self.users))

    def history(self, state: str, config: Config) -> History:
        """Builds the histories of a state, with the dislikes beside them."""
        never = self.disliked(state, config)
        history = History.from_interactions(self.known(state, config), len(self.users))
        return replace(history, never=never) if len(never[1]) else history


def read_prepared(run: Path) -> Prepared:
    """Reads prepared/.

    Args:
        run: run folder.
    Raises:
        ArtifactError: build-graph has not run, or its files are damaged.
    """
    folder = run / "prepared"
    try:
        frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "users", "items")}
        info = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{folder} cannot be read ({error}). Run 'reckg build-graph' again.") from error
    return Prepared(**frames, info=info)


def read_embeddings(run: Path, state: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the vectors of a state.

    Args:
        state: train, test or serving.
    Returns:
        Users (n_users, d) and items (n_items, d).
    Raises:
        ArtifactError: the vectors cannot be read.
    """
    tensors = _read_tensors(run / "embeddings" / f"{state}.safetensors")
    return tensors["users"], tensors["items"]


def read_text_vectors(run: Path) -> np.ndarray | None:
    """Reads the text encoder's vectors from before training.

    Args:
        run: run folder.
    Returns:
        (n_items, d); None for a run without texts.
    """
    path = run / "embeddings" / "text.safetensors"
    return _read_tensors(path)["items"] if path.is_file() else None


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return dict(load_file(path))
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run 'reckg embed' again.") from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def link(here: Path, target: Path) -> None:
    """Makes a relative symbolic link, so that both ends can be moved together.

    Args:
        here: the link.
        target: folder or file.
    """
    if not here.is_symlink():
        here.symlink_to(os.path.relpath(target.resolve(), here.parent.resolve()))


def graph_dim(config: Config) -> int:
    """Counts the dimensions of the graph model's own vectors, the first ones of the embeddings."""
    model = config.model
    return model.embedding_dim * (model.layers + 1 if model.combine == "concat" else 1)


def n_threads(config: Config) -> int:
    """Threads to use: run.threads, or one per core that this process may use."""
    return config.run.threads or len(os.sched_getaffinity(0))
