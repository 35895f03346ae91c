"""Stage build-graph: clean, split, index the ids, and make the knowledge graph's triples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from reckg.config.run_config import Config
from reckg.data.clean import clean_interactions
from reckg.data.history import History
from reckg.data.ids import IdMap, code_ids
from reckg.data.read import read_dataset
from reckg.data.row_order import history_order, row_order
from reckg.data.schema import TRIPLE_COLUMNS, ColumnKinds, Dataset
from reckg.data.split import Split, split_interactions, with_cleaned
from reckg.data.split_checks import CheckResult, check_split
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
    split, checks, cleaning = _split(config, dataset, coded.frame.lazy())
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
    indexed = index_interactions(interactions, places).with_columns(pl.col("split").cast(pl.String))
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
    all_notes = [*notes, *split.notes]
    all_counts = {**counts, "cleaning": cleaning, "split": split.counts, "graph": graph_counts}
    info = _description(dataset, split) | {"recency_half_life": half_life, "counts": all_counts}
    write_json(folder / "prepared.json", info | {"checks": checks, "notes": all_notes})
    return {**counts, "notes": all_notes}


def _description(dataset: Dataset, split: Split) -> dict[str, Any]:
    """Describes the dataset and its split for prepared.json."""
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
    }


def _split(
    config: Config, dataset: Dataset, frame: pl.LazyFrame
) -> tuple[Split, dict[str, CheckResult], dict[str, int]]:
    """Splits the log, cleans the parts, and checks them. Returns the counts of cleaning too.

    Cleaning comes after the split: rows after a cutoff must not decide on rows before it. A repeat whose
    earlier row is in training would else be a purchase that looks like the first.
    """
    data, whole = config.data, config.data.k_core_of == "all"
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
    cleaned, after = clean_interactions(split.frame, duplicates=data.duplicates, k_core=0 if whole else data.k_core)
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
    light = {name: before[name] for name in ("rows_read", "dropped_below_min_weight")}
    return split, checks, {**after, **light, **cores}


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


def index_interactions(frame: pl.DataFrame, places: Sequence[pl.Series]) -> pl.DataFrame:
    """Sorts interactions by user and time, or by user and item without times, and replaces codes by indices.

    Args:
        places: (codes,) indices of users and of items.
    """
    timed = ["timestamp"] if "timestamp" in frame.columns else []
    weight = frame["weight"] if "weight" in frame.columns else pl.lit(1.0)
    user_idx, item_idx = (
        place.gather(frame[name]).cast(pl.Int64).alias(f"{name[:4]}_idx")
        for name, place in zip(("user_id", "item_id"), places, strict=True)
    )
    indexed = frame.select(user_idx, item_idx, *timed, weight.cast(pl.Float32).alias("weight"), "split")
    user, item = indexed["user_idx"].to_numpy(), indexed["item_idx"].to_numpy()
    return indexed[history_order(user, indexed["timestamp"].to_numpy(), item) if timed else row_order(user, item)]


def _half_life(interactions: pl.DataFrame, n_users: int, n_items: int) -> float:
    """Derives the half-life of an interaction's weight from the training histories."""
    training = interactions.filter(pl.col("split") == "train")
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
