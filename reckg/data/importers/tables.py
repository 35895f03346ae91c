"""Tables of the canonical shape: a dataset folder, or one file of interactions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.read import open_table, read_dataset


def import_tables(src: Path, *, name: str | None = None) -> NotedDataset:
    """Reads a folder of interactions, items, users, triples and links, or a single file of interactions.

    CSV, TSV, JSON Lines and Parquet, as `read_dataset` reads them.

    Raises:
        DataError: what breaks the data contract.
    """
    src = Path(src)
    if src.is_dir():
        dataset, notes = read_dataset(src)
        return NotedDataset(replace(dataset, name=name or dataset.name), notes)
    single: list[str] = []
    raw = RawTables(name=name or src.stem, interactions=open_table(src, single), source=f"table {src.name}")
    return conform(raw, single)
