"""Rows of a bundle's catalog, made of items that are given as columns to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from reckg.bundle.bundle import Bundle
from reckg.data.schema import ColumnKinds
from reckg.inductive.embedder import KINDS


def item_kinds(bundle: Bundle) -> ColumnKinds:
    """Returns the columns of the bundle's catalog by kind."""
    columns = bundle.manifest.get("item_columns", {})
    return ColumnKinds(**{kind: tuple(columns.get(kind, ())) for kind in KINDS})


def catalog_row(item_id: str, item: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Makes a row of the bundle's catalog. A value that does not fit its column becomes None.

    Args:
        item_id: the item's id.
        item: column to value; other columns than the catalog's are left out.
        bundle: names the columns and their types.
    """
    return {name: item_id if name == "item_id" else _fit(item.get(name), kind) for name, kind in bundle.schema.items()}


def catalog_table(rows: Sequence[Mapping[str, Any]], bundle: Bundle) -> pl.DataFrame:
    """Makes a table of rows.

    Args:
        rows: as ``catalog_row`` returns them.
        bundle: names the columns and their types.
    """
    return pl.DataFrame(rows, schema=bundle.schema)


def _fit(value: Any, dtype: pl.DataType) -> Any:
    """Converts a value to a column's type, or to None."""
    if isinstance(value, bool) or value is None:
        return None
    if dtype == pl.String:
        return value if isinstance(value, str) else None
    if isinstance(dtype, pl.List):
        values = [value] if isinstance(value, str) else value
        return [each for each in values if isinstance(each, str)] if isinstance(values, list | tuple) else None
    if dtype.is_float():
        return float(value) if isinstance(value, int | float) else None
    if dtype.is_integer():
        return int(value) if isinstance(value, int | float) and value == int(value) else None
    return None
