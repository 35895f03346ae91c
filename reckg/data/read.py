"""Reading and writing of dataset folders."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.ndjson import open_ndjson
from reckg.data.schema import TABLES, ColumnKinds, Dataset, TimeKind
from reckg.data.text_table import ROW, Table, open_delimited, refuse_broken
from reckg.errors import ArtifactError, DataError
from reckg.files.atomic_folder import written_folder

__all__ = [
    "NotedDataset",
    "check_settings",
    "check_target",
    "conform_tables",
    "open_table",
    "read_dataset",
    "write_dataset",
]

EXTENSIONS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
SETTINGS_FILE = "dataset.toml"
_SETTINGS = ("name", "source", "licence", "time", "list_separator", "items", "users")
_KINDS = ("text", "categorical", "number", "list")
_TIMES: tuple[TimeKind, ...] = ("utc", "order", "none")


def read_dataset(folder: Path) -> NotedDataset:
    """Reads a dataset folder: interactions, items and, if present, users, triples and links.

    Each table is one file named after it, as Parquet, CSV, TSV (no quotation) or JSON Lines. The frames are lazy;
    their values have been checked in streamed passes. `dataset.toml` gives the name, the source, the licence, the
    meaning of time and the kinds of columns. Without it the kinds are inferred, and a note is added.

    >>> from pathlib import Path
    >>> from reckg.data.read import read_dataset
    >>> dataset, notes = read_dataset(Path("data"))
    >>> dataset.name, dataset.time, notes
    ('bookshop', 'utc', ())

    Args:
        folder: the dataset folder.
    Returns:
        (dataset, notes): a note is a sentence about a counted decision.
    Raises:
        DataError: anything that breaks the data contract, with the file, the column, the count and the first row.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is {'a file' if folder.exists() else 'not there'}; expected a dataset folder.")
    notes: list[str] = []
    settings = _read_settings(folder)
    if settings is None:
        notes.append(f"{folder.name} has no {SETTINGS_FILE}: the name is the folder's, and kinds are inferred.")
        settings = {}
    separator = settings.get("list_separator", "|")
    tables: dict[str, Table | None] = {}
    for name in TABLES:
        path = _find(folder, name)
        tables[name] = None if path is None else open_table(path, notes, separator)
    if tables["interactions"] is None:
        raise DataError(
            f"{folder} has no interactions.parquet, .csv, .tsv or .jsonl; it holds {_listing(folder)}. "
            "Is it a dataset folder? 'reckg import' makes one of other formats."
        )
    return conform_tables(tables, settings, notes, folder.resolve().name)


def conform_tables(
    tables: Mapping[str, Table | None], settings: Mapping[str, Any], notes: list[str], name: str
) -> NotedDataset:
    """Checks tables against the data contract.

    Args:
        tables: by the names in TABLES; None stands for a missing table, ``interactions`` must be there.
        settings: values of a dataset.toml, as ``check_settings`` accepts them.
        notes: decisions taken so far, a sentence each.
        name: name of the dataset where the settings give none.
    Raises:
        DataError: a table breaks the data contract, or the settings name columns of a missing table.
    """
    for table in ("items", "users"):
        if tables[table] is None and any(settings.get(table, {}).values()):
            raise DataError(f"{SETTINGS_FILE} names columns of {table}, but there is no table {table}.")
    interactions = tables["interactions"]
    assert interactions is not None
    raw = RawTables(
        name=settings.get("name", name),
        interactions=interactions,
        items=tables["items"],
        users=tables["users"],
        triples=tables["triples"],
        links=tables["links"],
        item_columns=_kinds(settings, "items"),
        user_columns=_kinds(settings, "users"),
        time=settings.get("time"),
        source=settings.get("source", ""),
        licence=settings.get("licence", ""),
    )
    return conform(raw, notes)


def open_table(path: Path, notes: list[str], list_separator: str = "|") -> Table:
    """Opens a Parquet, CSV, TSV or JSON Lines file, recognised by its ending, as a lazy table.

    Args:
        path: the file.
        notes: gets a sentence for every counted decision.
        list_separator: stands between the values of a list that is written as one string.
    Raises:
        DataError: the file is missing, empty, damaged or of another format.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file.")
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    ending = path.suffix.lower()
    if ending == ".parquet":
        if path.stat().st_size == 0:
            raise DataError(f"{path.name} is empty.")
        with refuse_broken(path.name):
            frame = pl.scan_parquet(path, row_index_name=ROW, row_index_offset=1, glob=False, hive_partitioning=False)
            frame.collect_schema()
        table = Table(frame, path.name)
    elif ending == ".csv":
        table = open_delimited(path, ",", notes, quoted=True)
    elif ending == ".tsv":
        table = open_delimited(path, "\t", notes)
    elif ending in (".jsonl", ".ndjson"):
        table = open_ndjson(path, notes)
    else:
        raise DataError(f"{path.name}: unknown ending; expected one of {', '.join(EXTENSIONS)}.")
    return Table(table.frame, table.label, table.row_word, list_separator)


def write_dataset(dataset: Dataset, folder: Path, overwrite: bool = False) -> None:
    """Writes a dataset folder: a Parquet file per table, streamed, and dataset.toml.

    The files are written to a folder beside it, which is then renamed, so that a reader never sees half a data set.

    Args:
        dataset: the data set; its frames are read once.
        folder: the folder to write.
        overwrite: replace an earlier data set in the folder.
    Raises:
        DataError: the folder is not empty and ``overwrite`` is false, or it holds foreign files, which are never
            deleted, or the frames cannot be read.
    """
    folder = Path(folder)
    check_target(folder, overwrite)
    try:
        with written_folder(folder, overwrite=True, marker=None) as beside:
            for name in TABLES:
                frame: pl.LazyFrame | None = getattr(dataset, name)
                if frame is not None:
                    with refuse_broken(f"{dataset.name}: {name}"):
                        frame.sink_parquet(beside / f"{name}.parquet")
            (beside / SETTINGS_FILE).write_text(_settings_text(dataset), encoding="utf-8")
    except ArtifactError as error:
        raise DataError(str(error)) from error


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises DataError if ``write_dataset`` may not write to ``folder``."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder to write the data set to.")
    known = {f"{name}{ending}" for name in TABLES for ending in EXTENSIONS} | {SETTINGS_FILE}
    there = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in there if name not in known]
    if there and not overwrite:
        raise DataError(f"{folder} is not empty ({_listing(folder)}); choose another folder, or pass --overwrite.")
    if foreign:
        raise DataError(
            f"{folder} holds {len(foreign)} files that are no data set's ({', '.join(foreign[:5])}); "
            "nothing was overwritten. Choose another folder."
        )


def _find(folder: Path, name: str) -> Path | None:
    found = [folder / f"{name}{ending}" for ending in EXTENSIONS if (folder / f"{name}{ending}").exists()]
    if len(found) > 1:
        raise DataError(f"{folder} holds {' and '.join(path.name for path in found)}; keep one of them.")
    return found[0] if found else None


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "nothing"


def _read_settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS_FILE
    if not path.exists():
        return None
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{SETTINGS_FILE} cannot be read: {error}.") from error
    check_settings(settings, SETTINGS_FILE)
    return settings


def check_settings(settings: Mapping[str, Any], label: str) -> None:
    """Checks the values of a dataset.toml. Raises DataError, which starts with ``label``, with every problem."""
    problems = [_unknown(key, _SETTINGS) for key in settings if key not in _SETTINGS]
    for key in ("name", "source", "licence", "list_separator"):
        if not isinstance(settings.get(key, ""), str):
            problems.append(f"{key} must be a string, got {settings[key]!r}")
    if settings.get("list_separator", "|") == "":
        problems.append("list_separator is empty")
    if "time" in settings and settings["time"] not in _TIMES:
        problems.append(f"time must be one of {', '.join(_TIMES)}, got {settings['time']!r}")
    for section in ("items", "users"):
        kinds = settings.get(section, {})
        if not isinstance(kinds, dict):
            problems.append(f"{section} must be a table, got {kinds!r}")
            continue
        problems += [f"{section}: {_unknown(key, _KINDS)}" for key in kinds if key not in _KINDS]
        for kind, names in kinds.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                problems.append(f"{section}.{kind} must be a list of column names, got {names!r}")
    if problems:
        raise DataError(f"{label}: {len(problems)} problem{'s'[: len(problems) != 1]}: {'; '.join(problems)}.")


def _unknown(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"unknown key {key!r} ({f'did you mean {close[0]!r}?' if close else 'known: ' + ', '.join(known)})"


def _kinds(settings: Mapping[str, Any], section: str) -> ColumnKinds | None:
    if section not in settings:
        return None
    return ColumnKinds(**{kind: tuple(settings[section].get(kind, ())) for kind in _KINDS})


def _settings_text(dataset: Dataset) -> str:
    lines = [
        f"name = {_quote(dataset.name)}",
        f"source = {_quote(dataset.source)}",
        f"licence = {_quote(dataset.licence)}",
        f"time = {_quote(dataset.time)}  # utc: epoch seconds; order: a place in the user's own order; none",
    ]
    sections = [("items", dataset.item_columns)]
    if dataset.users is not None:
        sections.append(("users", dataset.user_columns))
    for section, kinds in sections:
        lines += ["", f"[{section}]"]
        lines += [f"{kind} = [{', '.join(map(_quote, getattr(kinds, kind)))}]" for kind in _KINDS]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
