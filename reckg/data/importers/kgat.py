"""Importer of KGAT and KGIN folders: train.txt, test.txt, kg_final.txt and the lists of ids.

Format: https://github.com/xiangwang1223/knowledge_graph_attention_network
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.importers.sequences import split_sequences
from reckg.data.schema import ColumnKinds
from reckg.data.split import random_per_user
from reckg.data.text_table import LINE, ROW, Table, collect, open_delimited, open_lines
from reckg.errors import DataError

_VALID_SHARE = 0.1
_LISTS = ("user_list.txt", "item_list.txt", "entity_list.txt", "relation_list.txt")


def import_kgat(src: Path, *, name: str | None = None, seed: int = 0) -> NotedDataset:
    """Reads the given split and the knowledge graph; there are no timestamps.

    Without a valid.txt, a random tenth of each user's training interactions becomes the validation part. Original ids
    from user_list.txt and the other lists replace the indices. Item i is linked to entity i of kg_final.txt.

    Args:
        src: the folder.
        name: of the data set; default: the folder's.
        seed: of the validation part.
    Raises:
        DataError: train.txt or test.txt is missing, an index is in no list, or values break the data contract.
    """
    folder = Path(src)
    if not (folder / "train.txt").exists() or not (folder / "test.txt").exists():
        raise DataError(f"{folder} needs train.txt and test.txt; a KGAT folder has both, and kg_final.txt.")
    notes: list[str] = []
    lists = {file: _read_list(folder / file, notes) for file in _LISTS if (folder / file).exists()}
    if lists:
        notes.append(f"{', '.join(lists)}: the original ids were taken in place of the indices.")
    parts = _parts(folder, lists, seed, notes)
    items = lists.get("item_list.txt")
    triples, links = _graph(folder, lists, parts, notes)
    raw = RawTables(
        name=name or folder.resolve().name,
        interactions=parts,
        items=None if items is None else items.rename({"id": "item_id"}),
        triples=triples,
        links=links,
        item_columns=None if items is None else ColumnKinds(),
        time="none",
        source=f"KGAT folder {folder.resolve().name}",
    )
    return conform(raw, notes)


def _read_list(path: Path, notes: list[str]) -> Table:
    """Reads a list as columns ``index`` and ``id``: org_id (may hold spaces), remap_id and an unused freebase_id."""
    lines = open_lines(path, notes)
    header = collect(lines.frame.select(pl.col(LINE).first()), path.name).item().split()
    if header[:2] != ["org_id", "remap_id"] or len(header) > 3:
        raise DataError(f"{path.name}: the header is {' '.join(header)[:80]!r}, expected 'org_id remap_id'.")
    further = r"[ \t]+\S+" * (len(header) - 2)
    pattern = rf"^[ \t]*(?<id>.*\S)[ \t]+(?<index>[0-9]+){further}[ \t]*$"
    fields = pl.col(LINE).str.extract_groups(pattern)
    frame = lines.frame.filter(pl.col(ROW) > 1).select(ROW, LINE, fields.alias("fields")).unnest("fields")
    bad = pl.col("id").is_null()
    query = frame.select(
        pl.len(),
        bad.sum().alias("bad"),
        pl.col(ROW).filter(bad).min().alias("first"),
        pl.col("id").n_unique().alias("ids"),
        pl.col("index").n_unique().alias("indices"),
    )
    rows, broken, first, ids, indices = collect(query, path.name).row(0)
    if broken:
        raise DataError(
            f"{path.name}: {broken:_} of {rows:_} lines are not '{' '.join(header)}' (first: line {first}). "
            "Is the file cut off?"
        )
    if ids < rows or indices < rows:
        raise DataError(
            f"{path.name}: {rows - ids:_} ids and {rows - indices:_} indices of {rows:_} lines are repeated."
        )
    return Table(frame.select(ROW, "id", "index"), path.name, "line")


def _parts(folder: Path, lists: dict[str, Table], seed: int, notes: list[str]) -> tuple[Table, ...]:
    files = [path for path in (folder / "train.txt", folder / "valid.txt", folder / "test.txt") if path.exists()]
    parts = []
    for path in files:
        lines = split_sequences(open_lines(path, notes), notes)
        table = replace(lines, frame=lines.frame.explode("item_id"))
        table = _named(table, "user_id", lists.get("user_list.txt"))
        table = _named(table, "item_id", lists.get("item_list.txt"))
        frame = table.frame
        if path.stem == "train" and len(files) == 2:
            frame = random_per_user(frame, _VALID_SHARE, 0.0, seed)
            taken, rows = collect(frame.select((pl.col("split") == "valid").sum(), pl.len()), path.name).row(0)
            notes.append(
                f"{path.name}: {taken:_} of {rows:_} training interactions were taken for validation, by seeded chance "
                f"per user (share {_VALID_SHARE}, seed {seed})."
            )
        else:
            frame = frame.with_columns(pl.lit(path.stem).alias("split"))
        parts.append(replace(table, frame=frame.select(ROW, "user_id", "item_id", "split")))
    return tuple(parts)


def _graph(
    folder: Path, lists: dict[str, Table], parts: tuple[Table, ...], notes: list[str]
) -> tuple[Table | None, Table | None]:
    path = folder / "kg_final.txt"
    if not path.exists():
        notes.append(f"{folder.name} has no {path.name}: there is no outside graph.")
        return None, None
    triples = open_delimited(path, None, notes, columns=("head", "relation", "tail"))
    if len(triples.columns()) != 3:
        raise DataError(
            f"{path.name}: the lines have {len(triples.columns())} fields, expected head, relation and tail."
        )
    entities = lists.get("entity_list.txt")
    triples = _named(triples, "head", entities)
    triples = _named(triples, "relation", lists.get("relation_list.txt"))
    triples = _named(triples, "tail", entities)
    items = lists.get("item_list.txt")
    if items is None:
        ids = pl.concat([part.frame.select("item_id") for part in parts]).unique().sort("item_id")
        links = ids.with_columns(pl.col("item_id").alias("entity")).with_row_index(ROW, 1)
    else:
        links = items.frame.select(ROW, pl.col("id").alias("item_id"), pl.col("index").alias("entity"))
    label = "train.txt" if items is None else items.label
    return triples, _named(Table(links, label, "line"), "entity", entities)


def _named(table: Table, column: str, names: Table | None) -> Table:
    """Replaces the indices in a column by original ids.

    Args:
        table: the table.
        column: a column of indices.
        names: columns ``index`` and ``id``; None leaves the table as it is.
    Raises:
        DataError: an index is not listed.
    """
    if names is None:
        return table
    order = table.columns()
    listed = names.frame.select(pl.col("index").alias(column), pl.col("id").alias("id of the index"))
    stray = table.frame.join(listed, on=column, how="anti").select(pl.len(), pl.col(ROW).min(), pl.col(column).min())
    count, row, value = collect(stray, table.label).row(0)
    if count:
        raise DataError(
            f"{table.label}: {count:_} values of {column!r} are not in {names.label} "
            f"(first: {table.row_word} {row}; one of them: {value!r})."
        )
    frame = table.frame.join(listed, on=column, how="left").drop(column).rename({"id of the index": column})
    return replace(table, frame=frame.select(ROW, *order))
