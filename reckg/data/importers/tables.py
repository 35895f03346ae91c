"""Importer of tables in the canonical shape: a dataset folder, or a file of interactions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.read import open_table, read_dataset


def import_tables(src: Path, *, name: str | None = None) -> NotedDataset:
    """Reads a folder of interactions, items, users, triples and links, or a single file of interactions.

    The formats are those of `read_dataset`: CSV, TSV, JSON Lines and Parquet.

    Args:
        src: the folder or file.
        name: of the data set; default: of the folder or file.
    Raises:
        DataError: the tables break the data contract.
    """
    src = Path(src)
    if src.is_dir():
        dataset, notes = read_dataset(src)
        return NotedDataset(replace(dataset, name=name or dataset.name), notes)
    single: list[str] = []
    raw = RawTables(name=name or src.stem, interactions=open_table(src, single), source=f"table {src.name}")
    return conform(raw, single)
