"""`reckg import`: foreign formats to a dataset folder, with every decision counted and printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from reckg.data.clean import clean_interactions
from reckg.data.contract import NotedDataset
from reckg.data.importers.kgat import import_kgat
from reckg.data.importers.kgcn import import_kgcn
from reckg.data.importers.movielens import import_movielens
from reckg.data.importers.recbole import import_recbole
from reckg.data.importers.sequences import import_sequences
from reckg.data.importers.tables import import_tables
from reckg.data.log_summary import summarize_log
from reckg.data.read import check_target, write_dataset
from reckg.data.schema import SPLITS, Dataset
from reckg.errors import DataError

FORMATS = ("recbole", "kgat", "kgcn", "movielens", "sequences", "tables")
WHOLE_LOG = (
    "This cleaning saw the whole log, so that figures on a later part of it come out too high. [data] of a run cleans "
    "after the split."
)


def import_data(
    fmt: str,
    src: Path,
    out: Path,
    *,
    name: str | None = None,
    min_weight: float | None = None,
    k_core: int = 0,
    duplicates: str = "keep",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Imports a data set of format ``fmt`` from ``src`` and writes it to the dataset folder ``out``.

    Args:
        name: the stem of RecBole files; for other formats only the name of the data set.
        min_weight, k_core, duplicates: see `clean_interactions`; by default nothing is dropped.
        overwrite: replace a dataset folder that exists.
    Returns:
        {"counts": of the written tables, "cleaning": rows that each option dropped, "notes": the printed sentences}.
    Raises:
        DataError: the source breaks its format or the data contract, or ``out`` may not be written to.
    """
    src, out = Path(src), Path(out)
    check_target(out, overwrite)
    if not src.exists():
        raise DataError(f"{src} does not exist.")
    dataset, noted = _read(fmt, src, name)
    notes = list(noted)
    cleaned, cleaning = clean_interactions(
        dataset.interactions, min_weight=min_weight, duplicates=duplicates, k_core=k_core
    )
    dataset = replace(dataset, interactions=cleaned)
    notes += _say_cleaning(cleaning, min_weight, duplicates, k_core)
    if (duplicates != "keep" or k_core > 1) and "split" not in dataset.interactions.collect_schema().names():
        notes.append(WHOLE_LOG)
    write_dataset(dataset, out, overwrite=overwrite)
    counts = _count(dataset, out)
    for note in notes:
        print(f"- {note}")
    print(_summary(dataset, counts, out))
    return {"counts": counts, "cleaning": cleaning, "notes": notes}


def _read(fmt: str, src: Path, name: str | None) -> NotedDataset:
    if fmt == "recbole":
        return import_recbole(src, name=name)
    if fmt == "kgat":
        return import_kgat(src, name=name)
    if fmt == "kgcn":
        return import_kgcn(src, name=name)
    if fmt == "movielens":
        return import_movielens(src, name=name)
    if fmt == "sequences":
        return import_sequences(src, name=name)
    if fmt == "tables":
        return import_tables(src, name=name)
    raise DataError(f"unknown format {fmt!r}; one of {', '.join(FORMATS)}.")


def _say_cleaning(cleaning: dict[str, int], min_weight: float | None, duplicates: str, k_core: int) -> list[str]:
    read = cleaning["rows_read"]
    sentences = []
    if min_weight is not None:
        sentences.append(
            f"{cleaning['dropped_below_min_weight']:_} of {read:_} interactions weigh less than {min_weight}; dropped."
        )
    if duplicates != "keep":
        sentences.append(
            f"{cleaning['dropped_duplicates']:_} of {read:_} interactions repeat another ({duplicates} kept); dropped."
        )
    if k_core > 1:
        sentences.append(
            f"{cleaning['dropped_k_core']:_} of {read:_} interactions are outside the {k_core}-core "
            f"({cleaning['k_core_rounds']} rounds); dropped."
        )
    return sentences


def _count(dataset: Dataset, out: Path) -> dict[str, int]:
    interactions = pl.scan_parquet(out / "interactions.parquet", glob=False)
    columns = interactions.collect_schema().names()
    exprs = [
        pl.len().alias("interactions"),
        pl.col("user_id").n_unique().alias("interacting_users"),
        pl.col("item_id").n_unique().alias("interacting_items"),
    ]
    if "split" in columns:
        exprs += [(pl.col("split") == name).sum().alias(name) for name in SPLITS]
    counts = interactions.select(exprs).collect(engine="streaming").row(0, named=True)
    for table in ("items", "users", "triples", "links"):
        if getattr(dataset, table) is not None:
            rows = pl.scan_parquet(out / f"{table}.parquet", glob=False).select(pl.len())
            counts[table] = rows.collect(engine="streaming").item()
    return counts


def _summary(dataset: Dataset, counts: dict[str, int], out: Path) -> str:
    lines = [
        f"{dataset.name}: {counts['interactions']:_} interactions of {counts['interacting_users']:_} users and "
        f"{counts['interacting_items']:_} items, {counts['items']:_} items in the catalogue; time: {dataset.time}"
    ]
    lines += summarize_log(pl.scan_parquet(out / "interactions.parquet", glob=False), dataset.time).lines()
    if "train" in counts:
        lines.append("given split: " + ", ".join(f"{name} {counts[name]:_}" for name in SPLITS))
    if "triples" in counts:
        lines.append(f"outside graph: {counts['triples']:_} triples, {counts.get('links', 0):_} links")
    for what, kinds in (("items", dataset.item_columns), ("users", dataset.user_columns)):
        sentences = [f"{kind} {', '.join(getattr(kinds, kind))}" for kind in ("text", "categorical", "number", "list")]
        used = [part for part in sentences if " " in part.strip() and part.split(" ", 1)[1]]
        if used:
            lines.append(f"columns of {what}: {'; '.join(used)}")
    lines.append(f"written to {out}")
    return "\n".join(lines)
