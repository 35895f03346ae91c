"""Filters on the items of a request by id and by attribute, as one bitmap over the catalog."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from reckg.data.ids import IdMap
from reckg.errors import FilterError

Value = str | int | float
Condition = Value | Sequence[Value] | Mapping[str, float]
RANGES = (">", ">=", "<", "<=")


@dataclass(frozen=True)
class Filters:
    """Conditions that every item of an answer satisfies, all together.

    Args:
        allow: raw ids of the only items that may be recommended. None: any. An empty list allows none.
        deny: raw ids of items that are not recommended.
        where: column of the catalog to condition, or pairs if a column has several conditions. A condition is a
            value, a list of values that match alternatively, or, for a number column, a mapping from ``>``, ``>=``,
            ``<``, ``<=`` to numbers. A list column matches if it contains the value, or one of the values. An item
            without a value matches nothing.

    >>> import reckg
    >>> filters = reckg.Filters(where={"genres": ["x", "y"], "price": {">=": 2.0}}, deny=["i04"])
    >>> answer = reckg.load("run/bundle").recommend("u03", filters=filters)
    >>> "i04" in {item.item_id for item in answer.items}
    False
    """

    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    where: Mapping[str, Condition] | Sequence[tuple[str, Condition]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether every item satisfies the filters."""
        return self.allow is None and not self.deny and not self.where


class ItemFilters:
    """Evaluates filters over a catalog. Safe to share between threads.

    A column is indexed when it is first used: its items are sorted by value, so that a value or a range is one slice.
    """

    def __init__(self, items: pl.DataFrame, item_ids: IdMap, columns: Mapping[str, Sequence[str]]) -> None:
        """Prepares the columns.

        Args:
            items: one row per item, in the order of item_idx.
            item_ids: raw ids.
            columns: names of the categorical, number and list columns, as in a manifest.
        """
        self._items = items
        self._ids = item_ids
        kinds = ("categorical", "number", "list")
        self._kinds = {name: kind for kind in kinds for name in columns.get(kind, ()) if name in items.columns}
        self._sorted: dict[str, tuple[Any, np.ndarray]] = {}
        self._lock = threading.Lock()

    def allowed(self, filters: Filters) -> np.ndarray | None:
        """Finds the items that satisfy the filters.

        Returns:
            (n_items,) bool. None: all items do.
        Raises:
            FilterError: an unknown column, a value or a range that does not fit the column, or ids that are no strings.
        """
        if filters.empty:
            return None
        allowed = (
            np.ones(len(self._items), dtype=bool) if filters.allow is None else self._find_ids(filters.allow, "allow")
        )
        if filters.deny:
            allowed &= ~self._find_ids(filters.deny, "deny")
        for column, condition in filters.where.items() if isinstance(filters.where, Mapping) else filters.where:
            allowed &= self._find_matching(column, condition)
        return allowed

    def _find_ids(self, ids: Sequence[str], name: str) -> np.ndarray:
        """Finds items by raw id, (n_items,) bool. Unknown ids are ignored."""
        if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
            raise FilterError(f"filter {name!r} must be a list of item ids, strings, got {ids!r}")
        mask = np.zeros(len(self._items), dtype=bool)
        mask[[idx for one in ids if (idx := self._ids.get(one)) is not None]] = True
        return mask

    def _find_matching(self, column: str, condition: Any) -> np.ndarray:
        """Finds the items that satisfy a condition on a column, (n_items,) bool."""
        kind = self._kinds.get(column)
        if kind is None:
            raise FilterError(f"filter on the unknown column {column!r}; known: {', '.join(self._kinds) or 'none'}")
        mask = np.zeros(len(self._items), dtype=bool)
        if isinstance(condition, Mapping):
            if kind != "number":
                raise FilterError(f"filter on {column!r}, a {kind} column, cannot be a range, got {dict(condition)!r}")
            mask[self._find_range(column, condition)] = True
            return mask
        values = [condition] if isinstance(condition, str | int | float) else condition
        if not isinstance(values, Sequence | set | frozenset) or isinstance(values, bytes):
            raise FilterError(f"filter on {column!r} must be a value, a list of values or a range, got {condition!r}")
        for value in values:
            mask[self._find_value(column, kind, value)] = True
        return mask

    def _find_value(self, column: str, kind: str, value: Any) -> np.ndarray:
        """Finds the item_idx with a value."""
        needed: Any = (int, float) if kind == "number" else str
        if not isinstance(value, needed) or isinstance(value, bool) or value != value:
            raise FilterError(
                f"filter on {column!r}, a {kind} column, needs {'a number' if kind == 'number' else 'a string'}, "
                f"got {value!r}"
            )
        values, items = self._sort_column(column)
        if isinstance(values, dict):
            return np.asarray(items[values.get(value, slice(0))])
        return np.asarray(items[slice(*(np.searchsorted(values, value, side=side) for side in ("left", "right")))])

    def _find_range(self, column: str, bounds: Mapping[str, Any]) -> np.ndarray:
        """Finds the item_idx within bounds."""
        values, items = self._sort_column(column)
        first, last = 0, len(items)
        for sign, bound in bounds.items():
            number = isinstance(bound, int | float) and not isinstance(bound, bool) and bound == bound
            if sign not in RANGES or not number:
                raise FilterError(
                    f"filter on {column!r}: a range maps {', '.join(RANGES)} to numbers, got {sign!r}: {bound!r}"
                )
            place = int(np.searchsorted(values, bound, side="left" if sign in (">=", "<") else "right"))
            first, last = (max(first, place), last) if sign[0] == ">" else (first, min(last, place))
        return np.asarray(items[first : max(first, last)])

    def _sort_column(self, column: str) -> tuple[Any, np.ndarray]:
        """Sorts the items of a column by value, without missing values.

        Returns:
            The rising values of a number column, or value to slice of another column; and the item_idx in that order.
        """
        with self._lock:
            if column not in self._sorted:
                frame = self._items.select(pl.col(column).alias("value"), item=pl.int_range(pl.len(), dtype=pl.Int64))
                if self._kinds[column] == "list":
                    frame = frame.explode("value")
                if self._kinds[column] == "number":
                    frame = frame.with_columns(pl.col("value").cast(pl.Float64).fill_nan(None))
                frame = frame.drop_nulls().sort("value", maintain_order=True)
                values: Any = frame["value"].to_numpy()
                if self._kinds[column] != "number":
                    runs = frame["value"].rle().struct.unnest()
                    ends = runs["len"].cum_sum().to_list()
                    slices = map(slice, [0, *ends], ends)
                    values = dict(zip(runs["value"].to_list(), slices, strict=True))
                self._sorted[column] = values, frame["item"].to_numpy()
            return self._sorted[column]
