"""Sections of the report that need more of a run's folder than lists and held-out items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from jobs.run.test_data import RunData
from jobs.stages.table_inputs import entities_of
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.errors import ArtifactError, ConfigError
from reckg.evaluation.beyond_accuracy import (
    Catalogue,
    gini_interval,
    item_exposure,
    shannon_entropy,
    user_figures,
    value_exposure,
)
from reckg.evaluation.index_curve import index_section
from reckg.evaluation.protocol import ItemGroups, SystemResult
from reckg.evaluation.ranker_explained import RecordingRanker, explain_ranker
from reckg.evaluation.report.write import exposure_section
from reckg.evaluation.samples import sample_rows, sample_section
from reckg.evaluation.slices import (
    POPULARITY_WORDS,
    Slice,
    by_days,
    by_history,
    by_value,
    item_slices,
    user_slices,
    value_metrics,
)
from reckg.metrics.significance import known_intervals
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted

PROVIDERS = 10  # shown by name, those with the most items
ATTRIBUTES = 6  # columns of users, and of items, that the slices go by
EXPLAINED_USERS = 500  # whose candidates the ranker is explained by
SLICE_USERS = 10  # users of an attribute's slice at least


def beyond_sections(
    config: Config,
    run: Path,
    test: RunData,
    results: Mapping[str, SystemResult],
    groups: ItemGroups,
    train_users: np.ndarray,
    k: int,
    item_vectors: np.ndarray,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """For every system its figures beside accuracy; and the report's section ``beyond``."""
    entities = entities_of(run, test.prepared)[0]
    likeness = "the cosine of their attributes in the knowledge graph"
    if not entities.nnz:
        likeness = "the cosine of their embeddings, for lack of attributes"
    column = calibration_column(config, test)
    values = None if column is None else value_shares(test.prepared.items[column])
    tail = np.isin(groups.group, [place for place, name in enumerate(groups.names) if name in ("tail", "cold")])
    catalogue = Catalogue(train_users, test.n_users, entities if entities.nnz else item_vectors, values, tail)
    samples, seed, held = config.evaluate.bootstrap_samples, config.run.seed, test.held
    figures: dict[str, dict[str, Any]] = {}
    for name, result in results.items():
        expected = results["popularity"].lists
        per_user = user_figures(result.lists, held.users, held.relevant, test.history, catalogue, expected)
        entropy = shannon_entropy(item_exposure(result.lists, test.n_items))
        figures[name] = {
            "coverage": result.coverage[f"coverage@{k}"],
            "gini": gini_interval(result.lists, test.n_items),
            **known_intervals(per_user, samples, seed),
            "entropy": entropy,
        }
    told = {"k": k, "likeness": likeness, "column": column and f"the values of {column!r}"}
    if config.evaluate.provider_column:
        told["provider_column"] = config.evaluate.provider_column
        told["exposure"] = _exposure(config, test, results)
    return figures, told


def _exposure(config: Config, test: RunData, results: Mapping[str, SystemResult]) -> list[dict[str, Any]]:
    column = test.prepared.items[config.evaluate.provider_column]
    text = column.cast(pl.String)
    names = text.drop_nulls().value_counts(name="items").sort(["items", column.name], descending=[True, False])
    shown = names[column.name].head(PROVIDERS).to_list()
    labels = shown + (["all others"] if len(names) > len(shown) else [])
    place = {name: number for number, name in enumerate(shown)}
    code = np.array([-1 if value is None else place.get(value, len(shown)) for value in text.to_list()])
    shares = {name: value_exposure(result.lists, code, len(labels)) for name, result in results.items()}
    wanted = code[test.held.relevant[1]]
    catalogue, taken = (np.bincount(c[c >= 0], minlength=len(labels)) / max(len(c), 1) for c in (code, wanted))
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    return exposure_section(shares, labels, catalogue, taken, samples, seed)


def check_columns(config: Config, test: RunData) -> None:
    """Raises ConfigError where a configured column of the items does not exist, or does not fit."""
    columns = [column for column in test.prepared.items.columns if column != "item_id"]
    for setting in ("provider_column", "calibration_column"):
        name = getattr(config.evaluate, setting)
        if name and name not in columns:
            raise ConfigError(
                f"evaluate.{setting}: the catalogue has no column {name!r}; it has {', '.join(columns) or 'none'}."
            )
    name = config.evaluate.provider_column
    if name and test.prepared.items[name].dtype == pl.List:
        raise ConfigError(
            f"evaluate.provider_column: {name!r} holds lists; a provider is one value of an item. Name another."
        )


def calibration_column(config: Config, test: RunData) -> str | None:
    """The configured column, else the catalogue's first list column, else its first categorical one."""
    kinds = test.prepared.info.get("item_columns", {})
    usual = [*kinds.get("list", []), *kinds.get("categorical", []), None]
    return config.evaluate.calibration_column or usual[0]


def value_shares(column: pl.Series) -> sparse.csr_matrix:
    """(n, v) of a column of texts or of lists: each row's values share 1 evenly; empty where it has none."""
    rows = column.to_frame("value").with_row_index("row")
    rows = rows.explode("value") if column.dtype == pl.List else rows
    rows = rows.drop_nulls().unique().with_columns(pl.col("value").cast(pl.String))
    values = rows.select("value").unique().sort("value").with_row_index("code")
    coded = rows.join(values, on="value").sort("row", "code")
    row, code = coded["row"].to_numpy(), coded["code"].to_numpy()
    share = 1 / np.bincount(row, minlength=len(column))[row]
    return sparse.csr_matrix((share, (row, code)), shape=(len(column), len(values)))


def slices_section(
    config: Config,
    test: RunData,
    results: Mapping[str, SystemResult],
    groups: ItemGroups,
    best: str,
    metrics: list[str],
) -> dict[str, Slice]:
    """All slices; those by an attribute have a name with a colon. metrics: NDCG and recall at one cut-off."""
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    users, k = test.held.users, int(metrics[0].split("@")[1])
    common = (best, metrics, samples, seed)

    def of_users(named: Sequence[tuple[str, np.ndarray]], title: str, explanation: str) -> Slice:
        return user_slices(results, best, named, metrics, samples, seed, title, explanation)

    found = {
        "history_length": of_users(
            by_history(np.diff(test.history.indptr)[users]),
            "By length of the user's history",
            "Users grouped by the items in their history at test time.",
        ),
        "item_popularity": item_slices(
            {name: result.per_group for name, result in results.items()},
            {name: f"{name} ({int((groups.group == place).sum()):,} items)" for place, name in enumerate(groups.names)},
            *common,
            "By popularity of the held-out item",
            POPULARITY_WORDS,
        ),
    }
    days = days_since_last_event(test)
    if days is not None:
        found["last_event"] = of_users(
            by_days(days),
            "By time since the user's last event",
            "Days from the last interaction of the user's history to the first one of the test part.",
        )
    kinds = test.prepared.info.get("user_columns", {})
    for column in [c for kind in ("categorical", "list", "number") for c in kinds.get(kind, [])][:ATTRIBUTES]:
        named = [(v, inside[users]) for v, inside in by_value(test.prepared.users[column])]
        part = of_users(
            [(v, inside) for v, inside in named if inside.sum() >= SLICE_USERS],
            f"Users by {column}",
            f"The most frequent values, of {SLICE_USERS} users at least; numbers in quarters of all users.",
        )
        found |= {f"user:{column}": part} if part["rows"] else {}
    kinds = test.prepared.info.get("item_columns", {})
    for column in [c for kind in ("list", "categorical", "number") for c in kinds.get(kind, [])][:ATTRIBUTES]:
        named = by_value(test.prepared.items[column])
        per_group = {
            name: value_metrics(result.lists, test.held.relevant, named, metrics, k) for name, result in results.items()
        }
        part = item_slices(
            per_group,
            {name: name for name, _ in named},
            *common,
            f"Items by {column}",
            "Only the held-out items with the value count; the most frequent values, numbers in quarters of all items.",
        )
        part["rows"] = [row for row in part["rows"] if row["users"] >= SLICE_USERS]
        found |= {f"item:{column}": part} if part["rows"] else {}
    return found


def days_since_last_event(test: RunData) -> np.ndarray | None:
    """(n,) days of the tested users, NaN without a history; None where times say nothing of it."""
    frame = test.prepared.interactions
    if test.prepared.info.get("time") != "utc" or "timestamp" not in frame.columns or not test.prepared.in_order:
        return None
    first = frame.filter(pl.col("split") == "test").group_by("user_idx").agg(first=pl.col("timestamp").min())
    last = (
        frame.filter(pl.col("split").is_in(list(test.parts))).group_by("user_idx").agg(last=pl.col("timestamp").max())
    )
    users = pl.DataFrame({"user_idx": test.held.users}, schema_overrides={"user_idx": frame.schema["user_idx"]})
    both = users.join(first, on="user_idx", how="left", maintain_order="left")
    both = both.join(last, on="user_idx", how="left", maintain_order="left")
    return ((both["first"] - both["last"]).cast(pl.Float64) / 86_400).to_numpy()


def samples_section(
    config: Config, test: RunData, results: Mapping[str, SystemResult], bundle: Bundle, systems: Sequence[str]
) -> list[dict[str, Any]]:
    """Sample users with the lists of some systems."""
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


def shap_section(run: Path, bundle: Bundle, test: RunData, k: int, seed: int) -> dict[str, Any]:
    """The ranker explained over candidates of test users; empty where none is served, or it has no trees."""
    model = run / "bundle" / "ranker" / "ranker.txt"
    if bundle.ranker is None or not model.is_file():
        return {}
    recording = RecordingRanker(bundle.ranker)
    recorded: Bundle = replace(bundle, ranker=recording)  # type: ignore[arg-type]
    sample = test.held.sample(EXPLAINED_USERS, seed)
    recommend_batch(recorded, sample.users, Wanted(k, exclude_seen=False, left_out=sample.excluded))
    features = np.concatenate(recording.features) if recording.features else np.empty((0, 0), np.float32)
    return explain_ranker(model.read_text(encoding="utf-8"), features, seed)


def index_figures(bundle: Bundle, test: RunData, seed: int) -> dict[str, Any]:
    """Recall and latency of the bundle's index over the vectors of test time."""
    users = test.held.sample(EXPLAINED_USERS, seed).users
    return index_section(bundle.index, bundle.user_vectors[users], bundle.item_vectors, bundle.candidates, seed)


def data_section(run: Path, test: RunData, bundle: Bundle) -> dict[str, Any]:
    """What the data are: source, split and counts of the preparation and the graph, and their hash."""
    size = test.prepared.interactions.group_by("split").len()
    parts = dict(zip(size["split"].to_list(), size["len"].to_list(), strict=True))
    known = ("source", "licence", "time", "split", "counts")
    graph = read_object(run / "graph" / "graph.json")
    return {
        "users": test.n_users,
        "items": test.n_items,
        "interactions": {part: parts.get(part, 0) for part in ("train", "valid", "test")},
        "data_hash": bundle.manifest.get("data_hash", ""),
        "bundle": bundle.version,
        **{name: test.prepared.info[name] for name in known if test.prepared.info.get(name) not in (None, "")},
        **{f"graph_{name}": graph[name] for name in ("n_entities", "counts") if name in graph},
    }


def filter_words(test: RunData) -> list[str]:
    """What cleaning left out, in a sentence; nothing where the preparation tells no counts."""
    counts = test.prepared.info.get("counts", {}).get("cleaning", {})
    dropped = {
        "below the least weight": counts.get("dropped_below_min_weight", 0),
        "repeated": counts.get("dropped_duplicates", 0),
        "of users or items with too few": counts.get("dropped_k_core", 0),
    }
    if "rows_read" not in counts:
        return []
    said = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count) or "none"
    return [f"Filters: of {counts['rows_read']:,} interactions that were read, cleaning left out: {said}."]


def read_timing(run: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of the stages that are done, from state.json; empty without one."""
    stages = read_object(run / "state.json").get("stages", {})
    return {
        name: {"seconds": stage["seconds"], "peak_memory_mb": stage.get("peak_memory_mb", 0.0)}
        for name, stage in stages.items()
        if stage.get("seconds") and name != "evaluate"
    }


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file. Raises ArtifactError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
    return value if isinstance(value, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line; empty where there is no such file."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
