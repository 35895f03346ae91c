"""Sections of the report that need more of a run's folder than lists and held-out items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.errors import ArtifactError
from reckg.evaluation.index_curve import IndexSection, index_section
from reckg.evaluation.protocol import SystemResult
from reckg.evaluation.ranker_explained import RankerShap, RecordingRanker, explain_ranker
from reckg.evaluation.report.contents import Timing
from reckg.evaluation.samples import Sample, sample_rows, sample_section
from reckg.pipeline.run.test_data import RunData
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted

PROVIDERS = 10  # shown by name, those with the most items
ATTRIBUTES = 6  # columns of users, and of items, that the slices go by
EXPLAINED_USERS = 500  # whose candidates the ranker is explained by
SLICE_USERS = 10  # users of an attribute's slice at least


def samples_section(
    config: Config, test: RunData, results: Mapping[str, SystemResult], bundle: Bundle, systems: Sequence[str]
) -> list[Sample]:
    """Draws sample users and shows their histories and lists.

    Args:
        results: by system.
        systems: names of the shown ones.
    """
    rows = sample_rows(test.held, config.evaluate.sample_users, config.run.seed)
    ids = test.prepared.users["user_id"]
    names = [
        str(ids[int(test.held.users[row])]) if config.evaluate.show_user_ids else f"user {_letters(place)}"
        for place, row in enumerate(rows.tolist())
    ]

    def titles(item_idx: np.ndarray) -> list[str]:
        own = bundle.titles(item_idx)
        return [title or bundle.item_ids.ids[item] for title, item in zip(own, item_idx.tolist(), strict=True)]

    lists = {name: results[name].lists[rows] for name in systems}
    return sample_section(rows, lists, test.held, test.history, titles, names)


def _letters(place: int) -> str:
    """0 is A, 25 is Z, 26 is AA."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def shap_section(run: Path, bundle: Bundle, test: RunData, k: int, seed: int) -> RankerShap:
    """Explains the ranker over candidates of test users.

    Args:
        k: length of the lists.
    Returns:
        The report's section; empty if no ranker is served, or it has no trees.
    """
    model = run / "bundle" / "ranker" / "ranker.txt"
    if bundle.ranker is None or not model.is_file():
        return {}
    recording = RecordingRanker(bundle.ranker)
    recorded: Bundle = replace(bundle, ranker=recording)  # type: ignore[arg-type]
    sample = test.held.sample(EXPLAINED_USERS, seed)
    recommend_batch(recorded, sample.users, Wanted(k, exclude_seen=False, left_out=sample.excluded))
    features = np.concatenate(recording.features) if recording.features else np.empty((0, 0), np.float32)
    return explain_ranker(model.read_text(encoding="utf-8"), features, seed)


def index_figures(bundle: Bundle, test: RunData, seed: int) -> IndexSection:
    """Measures recall and latency of the bundle's index over the vectors of test time."""
    users = test.held.sample(EXPLAINED_USERS, seed).users
    return index_section(bundle.index, bundle.user_vectors[users], bundle.item_vectors, bundle.candidates, seed)


def data_section(run: Path, test: RunData, bundle: Bundle) -> dict[str, Any]:
    """Describes the data: source, split, hash, and counts of the preparation and the graph.

    Args:
        run: run folder with graph/.
    """
    size = test.prepared.interactions.group_by("split").len()
    parts = dict(zip(size["split"].to_list(), size["len"].to_list(), strict=True))
    known = ("source", "licence", "time", "log", "split", "counts")
    graph = read_object(run / "graph" / "graph.json")
    return {
        "users": test.n_users,
        "items": test.n_items,
        "interactions": {part: parts.get(part, 0) for part in ("train", "valid", "test")},
        "data_hash": bundle.manifest.get("data_hash", ""),
        "bundle": bundle.version,
        **{name: value for name, value in test.prepared.info.items() if name in known and value not in (None, "")},
        **{f"graph_{name}": graph[name] for name in ("n_entities", "counts") if name in graph},
    }


def filter_words(test: RunData) -> list[str]:
    """Says in a sentence how many interactions cleaning dropped; nothing if prepared.json has no counts."""
    counts = test.prepared.info.get("counts", {}).get("cleaning", {})
    dropped = {
        "below the least weight": counts.get("dropped_below_min_weight", 0),
        "repeated": counts.get("dropped_duplicates", 0),
        "of users or items with too few": counts.get("dropped_k_core", 0),
    }
    if "rows_read" not in counts:
        return []
    listed = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count) or "none"
    return [f"Filters: of {counts['rows_read']:,} interactions that were read, cleaning left out: {listed}."]


def read_timing(run: Path) -> dict[str, Timing]:
    """Reads seconds and peak memory of the finished stages from state.json; empty without one."""
    stages = read_object(run / "state.json").get("stages", {})
    return {
        name: {"seconds": stage["seconds"], "peak_memory_mb": stage.get("peak_memory_mb", 0.0)}
        for name, stage in stages.items()
        if stage.get("seconds") and name != "evaluate"
    }


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; a missing file gives an empty one. Raises ArtifactError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
    return value if isinstance(value, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a file with one JSON object a line; a missing file gives none. Raises ArtifactError if it is damaged."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
