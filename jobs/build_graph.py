"""Stage build-graph: clean, split, index the ids, and make the knowledge graph's triples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from jobs.run_folder import write_json
from reckg.config import Config
from reckg.data.clean import clean_interactions
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.data.read import read_dataset
from reckg.data.schema import TRIPLE_COLUMNS, ColumnKinds, Dataset
from reckg.data.split import Split, check_split, split_interactions
from reckg.graph.numbering import number_nodes
from reckg.graph.recency import derived_half_life
from reckg.graph.triples import attribute_triples, node_names, outside_triples, prune_rare


def build_graph(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes prepared/ and graph/; returns the counts."""
    dataset, notes = read_dataset(data)
    cleaned, cleaning = clean_interactions(
        dataset.interactions,
        min_weight=config.data.min_weight,
        duplicates=config.data.duplicates,
        k_core=config.data.k_core,
    )
    split = split_interactions(
        cleaned,
        kind=config.split.kind,
        valid=config.split.valid,
        test=config.split.test,
        cold_share=config.split.cold_share,
        time=dataset.time,
        seed=config.run.seed,
    )
    checks = check_split(
        split.frame,
        kind=split.kind,
        time=dataset.time,
        cutoff_time=split.cutoff_time,
        valid_cutoff_time=split.valid_cutoff_time,
        n_rows=cleaning["rows"],
    )
    folder = run / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    items = _items(dataset, split, config.data.catalogue)
    users = _users(dataset, split)
    user_ids, item_ids = IdMap(users["user_id"], "user id"), IdMap(items["item_id"], "item id")
    users.write_parquet(folder / "users.parquet")
    items.write_parquet(folder / "items.parquet")
    _write_interactions(split.frame, user_ids, item_ids, folder / "interactions.parquet")
    half_life = _half_life(folder / "interactions.parquet", len(users), len(items)) if split.valid_before_test else 0.0
    graph_counts = _write_graph(config, dataset, users, items, user_ids, item_ids, run / "graph")
    counts = {
        "users": len(users),
        "items": len(items),
        **{part: split.counts[part] for part in ("train", "valid", "test")},
        "entities": graph_counts["entities"],
        "triples": graph_counts["triples"],
    }
    write_json(
        folder / "prepared.json",
        {
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
            "recency_half_life": half_life,
            "counts": {**counts, "cleaning": cleaning, "split": split.counts, "graph": graph_counts},
            "checks": checks,
            "notes": [*notes, *split.notes],
        },
    )
    return {**counts, "notes": [*notes, *split.notes]}


def _items(dataset: Dataset, split: Split, catalogue: str) -> pl.DataFrame:
    """The candidates, by item_id; a dataset has a row for every item that occurs in its interactions."""
    listed = dataset.items.collect()
    interacted = split.frame.select(pl.col("item_id").unique()).collect()
    if catalogue == "interacted":
        listed = listed.join(interacted, on="item_id", how="semi")
    return listed.select("item_id", pl.exclude("item_id")).sort("item_id")


def _users(dataset: Dataset, split: Split) -> pl.DataFrame:
    """The users with interactions, by user_id, with their attributes where there are any."""
    users = split.frame.select(pl.col("user_id").unique()).collect()
    if dataset.users is not None:
        users = users.join(dataset.users.collect(), on="user_id", how="left")
    return users.select("user_id", pl.exclude("user_id")).sort("user_id")


def _write_interactions(frame: pl.LazyFrame, user_ids: IdMap, item_ids: IdMap, path: Path) -> None:
    """Streams the interactions with indices in place of ids."""
    columns = frame.collect_schema().names()
    users = pl.LazyFrame({"user_id": user_ids.ids}).with_row_index("user_idx")
    items = pl.LazyFrame({"item_id": item_ids.ids}).with_row_index("item_idx")
    weight = pl.col("weight") if "weight" in columns else pl.lit(1.0)
    kept = [pl.col("user_idx").cast(pl.Int64), pl.col("item_idx").cast(pl.Int64)]
    kept += [pl.col("timestamp")] if "timestamp" in columns else []
    joined = frame.join(users, on="user_id", how="inner").join(items, on="item_id", how="inner")
    joined.select(*kept, weight.cast(pl.Float32).alias("weight"), "split").sort(
        "user_idx", *(["timestamp"] if "timestamp" in columns else []), "item_idx"
    ).sink_parquet(path)


def _half_life(interactions: Path, n_users: int, n_items: int) -> float:
    """What the training histories say of how fast an interaction's weight should fall."""
    training = pl.read_parquet(interactions).filter(pl.col("split") == "train")
    return derived_half_life(History.from_interactions(training, n_users), n_items)


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
