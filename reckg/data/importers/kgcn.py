"""Importer of RippleNet and KGCN folders: a file of ratings, kg.txt and item_index2entity_id.txt.

Format: https://github.com/hwwang55/KGCN and https://github.com/hwwang55/RippleNet
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.text_table import ROW, Table, collect, open_delimited, open_lines
from reckg.errors import DataError

_RATINGS = ("ratings.txt", "ratings.csv", "ratings.dat", "user_artists.dat", "ratings_final.txt")
_COLUMNS = ("user_id", "item_id", "weight", "timestamp")
_SEPARATORS = ("::", "\t", ";", ",")


def import_kgcn(src: Path, *, name: str | None = None) -> NotedDataset:
    """Reads interactions, triples and the links of items to entities.

    Ratings have user, item and, optional, weight and timestamp. The first line gives the separator (::, tab,
    semicolon, comma or spaces). It is a header if its third (else its second) field is no number. Weights that are
    all 0 or 1 are labels: the zeros are sampled negatives, which are dropped and counted. ratings_final.txt is read if
    the raw ratings are missing. Its item i is line i of item_index2entity_id.txt, or entity i of kg_final.txt.

    Args:
        src: the folder.
        name: of the data set; default: the folder's.
    Raises:
        DataError: the folder has no file of ratings, or values break the data contract.
    """
    folder = Path(src)
    found = [folder / file for file in _RATINGS if (folder / file).exists()]
    if not found:
        raise DataError(f"{folder} holds none of {', '.join(_RATINGS)}; a KGCN folder has one of them, and kg.txt.")
    notes: list[str] = []
    if len(found) > 1:
        notes.append(f"{found[0].name} is read; {', '.join(path.name for path in found[1:])} is not.")
    interactions, time = _ratings(found[0], notes)
    final = found[0].name == "ratings_final.txt"
    triples, links = _graph(folder, final, interactions, notes)
    raw = RawTables(
        name=name or folder.resolve().name,
        interactions=interactions,
        triples=triples,
        links=links,
        time="utc" if time else "none",
        source=f"KGCN folder {folder.resolve().name}",
    )
    return conform(raw, notes)


def _ratings(path: Path, notes: list[str]) -> tuple[Table, bool]:
    line = collect(open_lines(path, []).frame.select(pl.col("line").first()), path.name).item()
    separator = next((s for s in _SEPARATORS if s in line), None)
    fields = [field.strip(' "') for field in line.split(separator)]
    header = len(fields) > 1 and not _is_number(fields[2] if len(fields) > 2 else fields[1])
    quoted = separator in (",", ";")
    table = open_delimited(path, separator, notes, columns=None if header else _COLUMNS, quoted=quoted)
    names = table.columns()
    if not 2 <= len(names) <= len(_COLUMNS):
        raise DataError(f"{path.name}: the first line has {len(names)} fields, expected {', '.join(_COLUMNS)}.")
    table = table.rename(dict(zip(names, _COLUMNS[: len(names)], strict=True)))
    if header:
        notes.append(f"{path.name}: the columns {', '.join(names)} were taken as {', '.join(_COLUMNS[: len(names)])}.")
    if len(names) < 3:
        return table, False
    return _drop_labels(table, notes), len(names) == 4


def _drop_labels(table: Table, notes: list[str]) -> Table:
    weight = pl.col("weight").str.strip_chars().cast(pl.Float64, strict=False)
    query = table.frame.select(
        pl.len(), (weight == 0).sum().alias("zeros"), (weight.is_in([0.0, 1.0])).fill_null(False).sum().alias("labels")
    )
    rows, zeros, labels = collect(query, table.label).row(0)
    if labels < rows:
        return table
    if zeros:
        notes.append(f"{table.label}: {zeros:_} of {rows:_} lines have the label 0, sampled negatives; left out.")
    return replace(table, frame=table.frame.filter(weight != 0).drop("weight"))


def _graph(folder: Path, final: bool, interactions: Table, notes: list[str]) -> tuple[Table | None, Table | None]:
    index = next((p for p in sorted(folder.glob("item_index2entity_id*.txt"))), None)
    raw_graph = sorted([*folder.glob("kg.txt"), *folder.glob("kg_rehashed.txt"), *folder.glob("kg_part*.txt")])
    numbered = folder / "kg_final.txt"
    if final and numbered.exists():
        ids = interactions.frame.select("item_id").unique().sort("item_id")
        links = ids.with_columns(pl.col("item_id").alias("entity")).with_row_index(ROW, 1)
        return _triples([numbered], notes), Table(links, interactions.label)
    if not raw_graph or index is None:
        missing = [file for file, there in (("kg.txt", raw_graph), ("item_index2entity_id.txt", index)) if not there]
        notes.append(f"{folder.name} has no {' and no '.join(missing)}: there is no outside graph.")
        return None, None
    links_table = _headless(index, ("item_id", "entity"), notes)
    if final:
        number = pl.int_range(pl.len()).cast(pl.String).alias("item_id")
        links_table = replace(links_table, frame=links_table.frame.with_columns(number))
    return _triples(raw_graph, notes), links_table


def _triples(paths: list[Path], notes: list[str]) -> Table:
    tables = [_headless(path, ("head", "relation", "tail"), notes) for path in paths]
    label = ", ".join(path.name for path in paths)
    return Table(pl.concat([table.frame for table in tables]), label, "line")


def _headless(path: Path, columns: tuple[str, ...], notes: list[str]) -> Table:
    line = collect(open_lines(path, []).frame.select(pl.col("line").first()), path.name).item()
    table = open_delimited(path, "\t" if "\t" in line else None, notes, columns=columns)
    if len(table.columns()) != len(columns):
        raise DataError(f"{path.name}: the lines have {len(table.columns())} fields, expected {', '.join(columns)}.")
    return table


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
