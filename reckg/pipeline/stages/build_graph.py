"""Stage build-graph: clean, split, index the ids, and make the knowledge graph's triples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from reckg.config.run_config import Config
from reckg.data.clean import clean_interactions, drop_double_exports
from reckg.data.events import EventPlan, plan_events
from reckg.data.history import History
from reckg.data.ids import IdMap, code_ids
from reckg.data.log_summary import summarize_log
from reckg.data.read import read_dataset
from reckg.data.row_order import history_order, row_order
from reckg.data.schema import TRIPLE_COLUMNS, ColumnKinds, Dataset, Target
from reckg.data.split import Split, split_interactions, with_cleaned
from reckg.data.split_checks import CheckResult, check_split
from reckg.data.target import derive_target, repeat_share
from reckg.data.weights import damped_weights
from reckg.graph.numbering import number_nodes
from reckg.graph.recency import derive_half_life
from reckg.graph.triples import attribute_triples, node_names, outside_triples, prune_rare
from reckg.pipeline.run.folder import write_json
from reckg.pipeline.run.state import StageCounts


def build_graph(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes prepared/ and graph/.

    Args:
        config: of the run.
        data: dataset folder.
        run: run folder.
    Returns:
        Counts for the log.
    Raises:
        DataError: the dataset breaks the data contract.
    """
    dataset, notes = read_dataset(data)
    coded = code_ids(dataset.interactions)
    made = _split(config, dataset, coded.frame.lazy())
    split, events = made.split, made.events
    folder = run / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    interactions = split.frame.collect(engine="streaming")
    users_taken, items_taken = (taken(interactions[name], getattr(coded, name)) for name in ("user_id", "item_id"))
    items = _items(dataset, items_taken, config.data.catalogue)
    users = _users(dataset, users_taken)
    user_ids, item_ids = IdMap(users["user_id"], "user id"), IdMap(items["item_id"], "item id")
    users.write_parquet(folder / "users.parquet")
    items.write_parquet(folder / "items.parquet")
    places = places_in(coded.user_id, users), places_in(coded.item_id, items)
    marked = mark_events(interactions, events, config.data.weights)
    indexed = index_interactions(marked, places)
    indexed = indexed.with_columns(pl.col("split").cast(pl.String))
    indexed.write_parquet(folder / "interactions.parquet")
    half_life = _half_life(indexed, len(users), len(items)) if split.valid_before_test else 0.0
    graph_counts = _write_graph(config, dataset, users, items, user_ids, item_ids, run / "graph")
    counts = {
        "users": len(users),
        "items": len(items),
        **{part: split.counts[part] for part in ("train", "valid", "test")},
        "entities": graph_counts["entities"],
        "triples": graph_counts["triples"],
    }
    all_notes = [*notes, *split.notes, *made.notes()]
    all_counts = {**counts, "cleaning": made.cleaning, "split": split.counts, "graph": graph_counts}
    info = _description(dataset, made, mean_weights(marked, events)) | {
        "log": summarize_log(interactions.lazy(), dataset.time).lines(),
        "recency_half_life": half_life,
        "counts": all_counts,
    }
    write_json(folder / "prepared.json", info | {"checks": made.checks, "notes": all_notes})
    return {**counts, "notes": all_notes}


@dataclass(frozen=True)
class SplitLog:
    """The log, split and cleaned, and the question that it is asked.

    Args:
        checks: of the split, by name.
        cleaning: counts of what cleaning dropped.
        target: of the run.
        repeats: share of repeats up to the end of validation; None: not measured.
        events: the meaning of the event types.
    """

    split: Split
    checks: dict[str, CheckResult]
    cleaning: dict[str, int]
    target: Target
    repeats: float | None
    events: EventPlan

    def notes(self) -> list[str]:
        """Describes the target and the events in sentences."""
        notes = self.events.notes()
        if self.repeats is not None:
            share = f"{self.repeats:.1%} of what users take by the end of validation is a repeat"
            notes.append(f"Target: {self.target} items ({share}).")
        if self.cleaning.get("dropped_double_exports"):
            notes.append(f"{self.cleaning['dropped_double_exports']:_} rows equal another in all columns; dropped.")
        return notes


def _description(dataset: Dataset, made: SplitLog, weights: dict[str, float]) -> dict[str, Any]:
    """Describes the dataset, its split and the question for prepared.json.

    Args:
        weights: mean weight of a training interaction, by event type.
    """
    split = made.split
    return {
        "name": dataset.name,
        "source": dataset.source,
        "licence": dataset.licence,
        "time": dataset.time,
        "item_columns": _kinds(dataset.item_columns),
        "user_columns": _kinds(dataset.user_columns),
        "split": {
            "kind": split.kind,
            "cutoff_time": split.cutoff_time,
            "valid_cutoff_time": split.valid_cutoff_time,
            "valid_before_test": split.valid_before_test,
        },
        "task": {
            "target": made.target,
            "repeat_share": made.repeats,
            "target_events": list(made.events.targets),
            "event_weights": weights,
            "negative_events": list(made.events.negative),
            "event_rows": dict(made.events.rows),
            "events_derived": made.events.derived,
        },
    }


def _split(config: Config, dataset: Dataset, frame: pl.LazyFrame) -> SplitLog:
    """Splits the log, chooses the question, cleans the parts, and checks them.

    Cleaning comes after the split: rows after a cutoff must not decide on rows before it. A repeat whose
    earlier row is in training would else be a purchase that looks like the first.
    """
    data, whole = config.data, config.data.k_core_of == "all"
    frame, double = drop_double_exports(frame)
    kept, before = clean_interactions(frame, min_weight=data.min_weight, k_core=data.k_core if whole else 0)
    split = split_interactions(
        kept,
        kind=config.split.kind,
        valid=config.split.valid,
        test=config.split.test,
        cold_share=config.split.cold_share,
        time=dataset.time,
        seed=config.run.seed,
    )
    rows = split.frame.collect(engine="streaming")
    events = plan_events(rows.filter(pl.col("split") == "train"), config.events)
    target, repeats = _target(config, split, rows, events)
    duplicates = data.duplicates if data.duplicates != "auto" else "last" if target == "new" else "keep"
    cleaned, after = clean_interactions(split.frame, duplicates=duplicates, k_core=0 if whole else data.k_core)
    split = with_cleaned(split, cleaned)
    checks = check_split(
        split.frame,
        kind=split.kind,
        time=dataset.time,
        cutoff_time=split.cutoff_time,
        valid_cutoff_time=split.valid_cutoff_time,
        n_rows=after["rows"],
    )
    cut = before if whole else after
    if whole and data.k_core > 1:
        says = (
            f"rows are outside the {data.k_core}-core of the whole log: rows after a cutoff decided on rows before it"
        )
        checks["k-core"] = {"passed": None, "bad": cut["dropped_k_core"], "of": before["rows_read"], "says": says}
    cores = {name: cut[name] for name in ("dropped_k_core", "k_core_rounds")}
    light = {"rows_read": before["rows_read"] + double, "dropped_below_min_weight": before["dropped_below_min_weight"]}
    cleaning = {**after, **light, **cores, "dropped_double_exports": double}
    return SplitLog(split, checks, cleaning, target, repeats, events)


def _target(config: Config, split: Split, rows: pl.DataFrame, events: EventPlan) -> tuple[Target, float | None]:
    """Chooses the question: as configured, else by the share of repeats among target events before the test part."""
    wanted = config.task.target
    if not split.valid_before_test or "timestamp" not in rows.columns:
        return ("new" if wanted == "auto" else wanted), None
    known = rows.filter(pl.col("split") != "test")
    if events.targets:
        known = known.filter(pl.col("event").is_in(events.targets))
    share = repeat_share(known)
    return (derive_target(share) if wanted == "auto" else wanted), round(share, 4)


def mark_events(frame: pl.DataFrame, events: EventPlan, damping: str) -> pl.DataFrame:
    """Damps the weights, and marks the interactions of target and negative events.

    Args:
        frame: split and, optional, weight and event.
        damping: data.weights.
    Returns:
        The frame with weight (mean 1 over training), taken (bool, of the target event) and disliked (bool).
    """
    given = frame["weight"] if "weight" in frame.columns else pl.repeat(1.0, len(frame), eager=True)
    training = (frame["split"] == "train").to_numpy()
    if not events.targets:
        weight = damped_weights(given.to_numpy().astype(np.float64), training, damping)
        everything = pl.Series("taken", np.ones(len(frame), dtype=bool))
        return frame.with_columns(pl.Series("weight", weight), everything, (~everything).alias("disliked"))
    least = min(events.weights.values())  # of a type that training does not have
    worth = frame["event"].replace_strict(dict(events.weights), default=least, return_dtype=pl.Float64)
    disliked = frame["event"].is_in(events.negative).alias("disliked")
    liked = training & ~disliked.to_numpy()
    weight = damped_weights(given.to_numpy().astype(np.float64), liked, damping, worth.to_numpy())
    taken = frame["event"].is_in(events.targets).alias("taken")
    return frame.with_columns(pl.Series("weight", weight), taken, disliked)


def taken(codes: pl.Series, ids: pl.Series) -> pl.DataFrame:
    """Selects the ids that occur among the codes, in their order."""
    return ids.gather(np.flatnonzero(np.bincount(codes.to_numpy()))).to_frame()


def _items(dataset: Dataset, taken: pl.DataFrame, catalog: str) -> pl.DataFrame:
    """The candidates, by item_id; a dataset has a row for every item that occurs in its interactions."""
    listed = dataset.items.collect()
    if catalog == "interacted":
        listed = listed.join(taken, on="item_id", how="semi")
    return listed.select("item_id", pl.exclude("item_id")).sort("item_id")


def _users(dataset: Dataset, taken: pl.DataFrame) -> pl.DataFrame:
    """The users with interactions, by user_id, with their attributes where there are any."""
    users = taken
    if dataset.users is not None:
        users = users.join(dataset.users.collect(), on="user_id", how="left")
    return users.select("user_id", pl.exclude("user_id")).sort("user_id")


def places_in(ids: pl.Series, table: pl.DataFrame) -> pl.Series:
    """Finds the row of every id in a table.

    Args:
        table: with a column of the ids' name.
    Returns:
        Rows, null for an id that the table lacks.
    """
    return ids.to_frame().join(
        table.select(ids.name).with_row_index("place"), on=ids.name, how="left", maintain_order="left"
    )["place"]


def mean_weights(marked: pl.DataFrame, events: EventPlan) -> dict[str, float]:
    """Averages the weights of training interactions by event type; empty for data without types."""
    if not events.targets:
        return {}
    means = marked.filter(pl.col("split") == "train").group_by("event").agg(pl.col("weight").mean()).rows()
    return {name: round(weight, 6) for name, weight in sorted(means) if name in events.weights}


def index_interactions(frame: pl.DataFrame, places: Sequence[pl.Series]) -> pl.DataFrame:
    """Sorts interactions by user and time, or by user and item without times, and replaces codes by indices.

    Args:
        places: (codes,) indices of users and of items.
    """
    timed = ["timestamp"] if "timestamp" in frame.columns else []
    user_idx, item_idx = (
        place.gather(frame[name]).cast(pl.Int64).alias(f"{name[:4]}_idx")
        for name, place in zip(("user_id", "item_id"), places, strict=True)
    )
    flags = [name for name in ("taken", "disliked") if name in frame.columns]
    weight = pl.col("weight") if "weight" in frame.columns else pl.lit(1.0)
    indexed = frame.select(user_idx, item_idx, *timed, weight.cast(pl.Float32).alias("weight"), "split", *flags)
    user, item = indexed["user_idx"].to_numpy(), indexed["item_idx"].to_numpy()
    return indexed[history_order(user, indexed["timestamp"].to_numpy(), item) if timed else row_order(user, item)]


def _half_life(interactions: pl.DataFrame, n_users: int, n_items: int) -> float:
    """Derives the half-life of an interaction's weight from the training histories."""
    training = interactions.filter((pl.col("split") == "train") & ~pl.col("disliked"))
    return derive_half_life(History.from_interactions(training, n_users), n_items)


def _write_graph(
    config: Config,
    dataset: Dataset,
    users: pl.DataFrame,
    items: pl.DataFrame,
    user_ids: IdMap,
    item_ids: IdMap,
    folder: Path,
) -> dict[str, Any]:
    """Triples of node indices, the entities' names and graph.json; returns the counts."""
    parts: list[pl.DataFrame] = []
    counts: dict[str, Any] = {}
    if config.graph.attributes:
        for table, frame, columns in (("item", items, dataset.item_columns), ("user", users, dataset.user_columns)):
            triples, counts[f"{table}_attributes"] = attribute_triples(
                frame,
                f"{table}_id",
                categorical=columns.categorical,
                lists=columns.list,
                numbers=columns.number,
                number_bins=config.graph.number_bins,
                max_share=config.graph.max_entity_share,
                prefix="user." if table == "user" else "",
            )
            parts.append(triples)
    if config.graph.outside and dataset.triples is not None and dataset.links is not None:
        taken = [name for part in parts for name in part["relation"].unique()]
        triples, counts["outside"] = outside_triples(dataset.triples, dataset.links, item_ids.ids, taken=taken)
        parts.append(triples)
    joined = pl.concat(parts) if parts else pl.DataFrame(schema=TRIPLE_COLUMNS)
    own = pl.concat([node_names(user_ids.ids, "user_id"), node_names(item_ids.ids, "item_id")])
    kept, counts["pruned"] = prune_rare(joined, own, config.graph.min_entity_degree)
    numbered = number_nodes(kept, user_ids, item_ids)
    folder.mkdir(parents=True, exist_ok=True)
    numbered.triples.write_parquet(folder / "triples.parquet")
    numbered.entities.write_parquet(folder / "entities.parquet")
    counts |= {"entities": len(numbered.entities), "triples": len(numbered.triples)}
    description = {
        "n_users": len(users),
        "n_items": len(items),
        "n_entities": len(numbered.entities),
        "relations": list(numbered.relations),
        "counts": counts,
    }
    write_json(folder / "graph.json", description)
    return counts


def _kinds(columns: ColumnKinds) -> dict[str, list[str]]:
    return {kind: list(getattr(columns, kind)) for kind in ("text", "categorical", "number", "list")}
