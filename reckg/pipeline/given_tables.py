"""Tables that a caller of Python hands over: frames or files, as a dataset folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

from reckg.data.read import check_settings, conform_tables, open_table, write_dataset
from reckg.data.schema import TABLES
from reckg.data.text_table import ROW, Table, refuse_broken
from reckg.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    TableLike: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame | str | PathLike[str]


def write_tables(tables: Mapping[str, TableLike | None], settings: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Checks tables against the data contract and writes them as a dataset folder.

    Args:
        tables: by the names of the contract (interactions, items, users, triples, links); None: no such table.
        settings: the values of a dataset.toml.
        folder: dataset folder to write; an older one is replaced.
    Returns:
        One sentence for each decision that reading the tables took.
    Raises:
        DataError: a table or a setting breaks the contract. The message names the argument, the column, the number of
            bad values and the first bad row.
    """
    check_settings(settings, "settings")
    notes: list[str] = []
    opened = {name: _table(name, tables.get(name), notes, settings.get("list_separator", "|")) for name in TABLES}
    if opened["interactions"] is None:
        raise DataError("interactions is None; give a table with the columns user_id and item_id.")
    dataset, sentences = conform_tables(opened, settings, notes, "tables")
    write_dataset(dataset, folder, overwrite=True)
    return sentences


def _table(name: str, given: TableLike | None, notes: list[str], list_separator: str) -> Table | None:
    """Opens one argument as a lazy table whose label is the argument's name."""
    if given is None:
        return None
    if isinstance(given, str | PathLike):
        path = Path(given)
        try:
            table = open_table(path, notes, list_separator)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        return replace(table, label=f"{name} ({path.name})")
    if type(given).__module__.split(".")[0] == "pandas" and type(given).__name__ == "DataFrame":
        given = _from_pandas(given, name)
    if not isinstance(given, pl.DataFrame | pl.LazyFrame):
        raise DataError(
            f"{name} is of type {type(given).__name__}; give a Polars or pandas data frame, or the path of a file."
        )
    with refuse_broken(name):
        return Table(given.lazy().with_row_index(ROW, offset=1), name, list_separator=list_separator)


def _from_pandas(frame: pd.DataFrame, name: str) -> pl.DataFrame:
    """Converts a pandas frame column by column; missing values become null."""
    columns = [str(column) for column in frame.columns]
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{name}: the column {repeated[0]!r} occurs more than once; rename one.")
    return pl.DataFrame([_series(frame.iloc[:, place], column, name) for place, column in enumerate(columns)])


def _series(values: pd.Series[Any], column: str, name: str) -> pl.Series:
    if hasattr(values.dtype, "tz"):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(values.dtype, np.dtype) and values.dtype.kind != "O":
        array = values.to_numpy()
        array = array.astype("datetime64[us]") if array.dtype.kind == "M" else array
        return pl.Series(column, array, nan_to_null=True)
    missing = values.isna().tolist()
    plain = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
    try:
        return pl.Series(column, plain)
    except (TypeError, pl.exceptions.PolarsError) as error:
        types = sorted({type(value).__name__ for value in plain if value is not None})
        raise DataError(
            f"{name}: the values of column {column!r} have several types ({', '.join(types)}); convert them to one."
        ) from error
