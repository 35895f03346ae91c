"""The one text of an item that the encoder reads, from the columns of the catalogue."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import polars as pl


def item_texts(items: pl.DataFrame, columns: Mapping[str, Sequence[str]], attributes: bool = False) -> list[str]:
    """One text an item: its text columns joined, the title first; empty where there is none.

    Args:
        items: rows of the catalogue; a column that is not there says nothing.
        columns: the names by kind: ``text``, ``categorical``, ``list``.
        attributes: what the categorical and list columns say follows, each as "column: value, value".
    """
    parts = [pl.col(name).fill_null("") for name in _present(columns["text"], items.columns)]
    if attributes:
        for name in _present([*columns["categorical"], *columns["list"]], items.columns):
            value = pl.col(name).list.join(", ") if name in columns["list"] else pl.col(name).cast(pl.String)
            parts.append(
                pl.when(value.is_null() | (value == "")).then(pl.lit("")).otherwise(pl.lit(f"{name}: ") + value)
            )
    if not parts:
        return [""] * items.height
    said = pl.concat_list([part.str.strip_chars(". ") for part in parts]).list.eval(
        pl.element().filter(pl.element() != "")
    )
    return items.select(said.list.join(". ").alias("text"))["text"].to_list()


def _present(names: Sequence[str], columns: Collection[str]) -> list[str]:
    return [name for name in names if name in columns]
