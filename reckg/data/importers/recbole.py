"""Importer of RecBole atomic files: X.inter, X.item, X.user, X.kg, X.link, and X.train.inter and others as a split.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from reckg.data.columns import is_text_name, titles_first
from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.schema import SPLITS, ColumnKinds
from reckg.data.text_table import ROW, Table, open_delimited
from reckg.errors import DataError

_TYPES = ("token", "token_seq", "float", "float_seq")
_WEIGHTS = ("rating", "weight")


def import_recbole(src: Path, *, name: str | None = None) -> NotedDataset:
    """Reads the atomic files with the same stem in a folder.

    `rating` (or `weight`) becomes the weight. A `token_seq` column is a list, or text by its name (movie_title,
    description). `token` is categorical, `float` a number. If X.train.inter, X.valid.inter and X.test.inter exist,
    they are the given split, and X.inter is not read.

    Args:
        src: the folder, or one of its .inter files.
        name: the stem, needed if the folder has several.
    Raises:
        DataError: the folder has no or several stems, a header has no types, or values break the data contract.
    """
    folder, stem = _find_stem(Path(src), name)
    notes: list[str] = []
    interactions = _interactions(folder, stem, notes)
    items, item_columns = _attributes(folder / f"{stem}.item", "item_id", notes)
    users, user_columns = _attributes(folder / f"{stem}.user", "user_id", notes)
    triples = _rename_columns(
        folder / f"{stem}.kg", {"head_id": "head", "relation_id": "relation", "tail_id": "tail"}, notes
    )
    links = _rename_columns(folder / f"{stem}.link", {"item_id": "item_id", "entity_id": "entity"}, notes)
    raw = RawTables(
        name=stem,
        interactions=interactions,
        items=items,
        users=users,
        triples=triples,
        links=links,
        item_columns=item_columns,
        user_columns=user_columns,
        source=f"RecBole atomic files, {stem}",
    )
    return conform(raw, notes)


def _find_stem(src: Path, name: str | None) -> tuple[Path, str]:
    if src.is_file() and src.suffix == ".inter":
        return src.parent, name or _stem(src)
    if not src.is_dir():
        raise DataError(f"{src} is no folder of RecBole atomic files and no .inter file.")
    stems = sorted({_stem(path) for path in src.glob("*.inter")})
    if not stems:
        raise DataError(f"{src} holds no .inter file; RecBole data has NAME.inter or NAME.train.inter there.")
    if name is None and len(stems) > 1:
        raise DataError(f"{src} holds several data sets: {', '.join(stems)}; choose one with --name.")
    if name is not None and name not in stems:
        raise DataError(f"{src} holds no {name}.inter; there is {', '.join(stems)}.")
    return src, name or stems[0]


def _stem(path: Path) -> str:
    stem = path.name.removesuffix(".inter")
    for split in SPLITS:
        stem = stem.removesuffix(f".{split}")
    return stem


def _interactions(folder: Path, stem: str, notes: list[str]) -> tuple[Table, ...]:
    parts = {split: folder / f"{stem}.{split}.inter" for split in SPLITS}
    there = [split for split, path in parts.items() if path.exists()]
    whole = folder / f"{stem}.inter"
    if not there:
        return (_interaction_columns(whole, notes),)
    if len(there) < len(parts):
        missing = ", ".join(path.name for path in parts.values() if not path.exists())
        raise DataError(f"{folder}: a given split needs all three parts; {missing} is missing.")
    if whole.exists():
        notes.append(f"{whole.name} was not read: the split of {stem}.train.inter and its like is taken.")
    tables = [(_interaction_columns(path, notes), split) for split, path in parts.items()]
    return tuple(
        replace(table, frame=table.frame.with_columns(pl.lit(split).alias("split"))) for table, split in tables
    )


def _interaction_columns(path: Path, notes: list[str]) -> Table:
    table, types = _open_atomic(path, notes)
    names: dict[str, str] = {c: c for c in ("user_id", "item_id", "timestamp") if c in types}
    weight = next((c for c in _WEIGHTS if c in types), None)
    if weight is not None:
        names[weight] = "weight"
    left_out = [c for c in types if c not in names]
    if left_out:
        notes.append(
            f"{path.name}: column {', '.join(map(repr, left_out))} left out; the contract has no place for it."
        )
    for needed in ("user_id", "item_id"):
        if needed not in names:
            raise DataError(f"{path.name}: no column {needed!r}; the columns are {', '.join(map(repr, types))}.")
    return table.rename(names)


def _attributes(path: Path, key: str, notes: list[str]) -> tuple[Table | None, ColumnKinds | None]:
    if not path.exists():
        return None, None
    table, types = _open_atomic(path, notes)
    if key not in types:
        raise DataError(f"{path.name}: no column {key!r}; the columns are {', '.join(map(repr, types))}.")
    found: dict[str, list[str]] = {"text": [], "categorical": [], "number": [], "list": []}
    for column, kind in types.items():
        if column == key:
            continue
        if kind in ("token", "token_seq") and is_text_name(column):
            found["text"].append(column)
        elif kind == "float_seq":
            notes.append(
                f"{path.name}: column {column!r} of type float_seq left out; the contract has no place for it."
            )
        else:
            found[{"token": "categorical", "token_seq": "list", "float": "number"}[kind]].append(column)
    kinds = ColumnKinds(
        text=titles_first(found["text"]),
        categorical=tuple(found["categorical"]),
        number=tuple(found["number"]),
        list=tuple(found["list"]),
    )
    chosen = Table(table.frame.select(ROW, key, *kinds.all()), table.label, table.row_word, " ")
    return chosen, kinds


def _rename_columns(path: Path, names: dict[str, str], notes: list[str]) -> Table | None:
    if not path.exists():
        return None
    table, types = _open_atomic(path, notes)
    for needed in names:
        if needed not in types:
            raise DataError(f"{path.name}: no column {needed!r}; the columns are {', '.join(map(repr, types))}.")
    return table.rename(names)


def _open_atomic(path: Path, notes: list[str]) -> tuple[Table, dict[str, str]]:
    """Opens an atomic file. Returns the table with plain column names, and the type of each column."""
    table = open_delimited(path, "\t", notes)
    headers = table.columns()
    types: dict[str, str] = {}
    for header in headers:
        column, _, kind = header.rpartition(":")
        if not column or ":" in column or kind not in _TYPES:
            raise DataError(
                f"{path.name}: {header[:80]!r} in the header is no 'name:type' with a type of {', '.join(_TYPES)}; "
                "are the columns separated by tabs?"
            )
        if column in types:
            raise DataError(f"{path.name}: the column name {column!r} is repeated in the header.")
        types[column] = kind
    return table.rename(dict(zip(headers, types, strict=True))), types
