"""Texts of items for the encoder, joined from the columns of the items table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import polars as pl


def item_texts(items: pl.DataFrame, columns: Mapping[str, Sequence[str]], attributes: bool = False) -> list[str]:
    """Joins each item's text columns, the title first.

    >>> import polars as pl
    >>> from reckg.data.item_texts import item_texts
    >>> items = pl.DataFrame({"title": ["Dune"], "genres": [["desert", "space"]]})
    >>> item_texts(items, {"text": ["title"], "categorical": [], "list": ["genres"]}, attributes=True)
    ['Dune. genres: desert, space']

    Args:
        items: rows of the items table. Columns that it lacks are left out.
        columns: column names by kind: ``text``, ``categorical``, ``list``.
        attributes: append the categorical and list columns, each as "column: value, value".
    Returns:
        one text per item, "" for an item without text.
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
    filled = pl.concat_list([part.str.strip_chars(". ") for part in parts]).list.eval(
        pl.element().filter(pl.element() != "")
    )
    return items.select(filled.list.join(". ").alias("text"))["text"].to_list()


def _present(names: Sequence[str], columns: Collection[str]) -> list[str]:
    return [name for name in names if name in columns]
