"""The data contract: the tables of a dataset folder, their columns, and the kinds of attribute columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

TABLES = ("interactions", "items", "users", "triples", "links")

TRIPLE_COLUMNS = {"head": pl.String, "relation": pl.String, "tail": pl.String}
LINK_COLUMNS = {"item_id": pl.String, "entity": pl.String}
SPLITS = ("train", "valid", "test")

TimeKind = Literal["utc", "order", "none"]
Target = Literal["new", "any", "repeat"]  # the question of a run


@dataclass(frozen=True)
class ColumnKinds:
    """Columns of a table by kind. A column has one kind at most; the first text column is the title."""

    text: tuple[str, ...] = ()  # String
    categorical: tuple[str, ...] = ()  # String (anything else is cast)
    number: tuple[str, ...] = ()  # Float64 after reading
    list: tuple[str, ...] = ()  # List(String)

    def all(self) -> tuple[str, ...]:
        return self.text + self.categorical + self.number + self.list


@dataclass(frozen=True)
class Dataset:
    """Lazy frames with the contract's columns and types.

    Attributes:
        interactions: user_id, item_id (String) and, optional, timestamp (Int64), weight (Float32), event, split
            (String).
        time: the meaning of ``timestamp``. ``utc``: epoch seconds. ``order``: a place in the user's own order,
            comparable within a user only. ``none``: the column is missing.
    """

    name: str
    interactions: pl.LazyFrame
    items: pl.LazyFrame
    users: pl.LazyFrame | None = None
    triples: pl.LazyFrame | None = None
    links: pl.LazyFrame | None = None
    item_columns: ColumnKinds = field(default_factory=ColumnKinds)
    user_columns: ColumnKinds = field(default_factory=ColumnKinds)
    time: TimeKind = "utc"
    source: str = ""
    licence: str = ""
