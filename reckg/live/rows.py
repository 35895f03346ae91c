"""Rows of a bundle's catalog, made of items that are given as columns to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from reckg.bundle.bundle import Bundle
from reckg.data.schema import ColumnKinds
from reckg.inductive.embedder import KINDS


def item_kinds(bundle: Bundle) -> ColumnKinds:
    """The columns of the bundle's catalogue."""
    columns = bundle.manifest.get("item_columns", {})
    return ColumnKinds(**{kind: tuple(columns.get(kind, ())) for kind in KINDS})


def catalog_row(item_id: str, item: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """An item, given as columns to values, as a row of the bundle's catalogue; what does not fit a column is dropped
    from it."""
    return {
        name: item_id if name == "item_id" else _fitting(item.get(name), kind) for name, kind in bundle.schema.items()
    }


def catalog_table(rows: Sequence[Mapping[str, Any]], bundle: Bundle) -> pl.DataFrame:
    """Rows of ``catalog_row`` as a table."""
    return pl.DataFrame(rows, schema=bundle.schema)


def _fitting(value: Any, dtype: pl.DataType) -> Any:
    """The value as one of a column of this type, or None."""
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
