"""Filters: which items a request may get, by id and by attribute, as one bitmap over the catalogue."""

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
Wanted = Value | Sequence[Value] | Mapping[str, float]
RANGES = (">", ">=", "<", "<=")


@dataclass(frozen=True)
class Filters:
    """Conditions that every item of an answer satisfies, all together.

    Args:
        allow: raw ids of the only items that may be recommended. None: any. An empty list allows none.
        deny: raw ids of items that are not recommended.
        where: column of the catalogue to condition, or pairs if a column has several conditions. A condition is a
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
    where: Mapping[str, Wanted] | Sequence[tuple[str, Wanted]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether every item satisfies them."""
        return self.allow is None and not self.deny and not self.where


class ItemFilters:
    """Turns filters into (n_items,) bool over a catalogue; safe to share between threads.

    A column is indexed when it is first asked for: the items in the order of its values, so that a value or a range is
    one slice of them.
    """

    def __init__(self, items: pl.DataFrame, item_ids: IdMap, columns: Mapping[str, Sequence[str]]) -> None:
        """items: item_idx order. columns: the names of categorical, number and list columns, as a manifest has them."""
        self._items = items
        self._ids = item_ids
        kinds = ("categorical", "number", "list")
        self._kinds = {name: kind for kind in kinds for name in columns.get(kind, ()) if name in items.columns}
        self._sorted: dict[str, tuple[Any, np.ndarray]] = {}
        self._lock = threading.Lock()

    def allowed(self, filters: Filters) -> np.ndarray | None:
        """(n_items,) bool: the items that satisfy the filters; None where all do.

        Raises:
            FilterError: an unknown column, a value or a range that does not fit the column, ids that are no strings.
        """
        if filters.empty:
            return None
        allowed = (
            np.ones(len(self._items), dtype=bool) if filters.allow is None else self._listed(filters.allow, "allow")
        )
        if filters.deny:
            allowed &= ~self._listed(filters.deny, "deny")
        for column, wanted in filters.where.items() if isinstance(filters.where, Mapping) else filters.where:
            allowed &= self._matching(column, wanted)
        return allowed

    def _listed(self, ids: Sequence[str], what: str) -> np.ndarray:
        """Items by raw id; ids that the catalogue does not have are of no item."""
        if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
            raise FilterError(f"filter {what!r} must be a list of item ids, strings, got {ids!r}")
        mask = np.zeros(len(self._items), dtype=bool)
        mask[[idx for one in ids if (idx := self._ids.get(one)) is not None]] = True
        return mask

    def _matching(self, column: str, wanted: Any) -> np.ndarray:
        """Items whose value in the column is wanted."""
        kind = self._kinds.get(column)
        if kind is None:
            raise FilterError(f"filter on the unknown column {column!r}; known: {', '.join(self._kinds) or 'none'}")
        mask = np.zeros(len(self._items), dtype=bool)
        if isinstance(wanted, Mapping):
            if kind != "number":
                raise FilterError(f"filter on {column!r}, a {kind} column, cannot be a range, got {dict(wanted)!r}")
            mask[self._in_range(column, wanted)] = True
            return mask
        values = [wanted] if isinstance(wanted, str | int | float) else wanted
        if not isinstance(values, Sequence | set | frozenset) or isinstance(values, bytes):
            raise FilterError(f"filter on {column!r} must be a value, a list of values or a range, got {wanted!r}")
        for value in values:
            mask[self._having(column, kind, value)] = True
        return mask

    def _having(self, column: str, kind: str, value: Any) -> np.ndarray:
        """item_idx with this value."""
        needed: Any = (int, float) if kind == "number" else str
        if not isinstance(value, needed) or isinstance(value, bool) or value != value:
            raise FilterError(
                f"filter on {column!r}, a {kind} column, needs {'a number' if kind == 'number' else 'a string'}, "
                f"got {value!r}"
            )
        values, items = self._column(column)
        if isinstance(values, dict):
            return items[values.get(value, slice(0))]
        return items[slice(*(np.searchsorted(values, value, side=side) for side in ("left", "right")))]

    def _in_range(self, column: str, wanted: Mapping[str, Any]) -> np.ndarray:
        """item_idx within the bounds."""
        values, items = self._column(column)
        first, last = 0, len(items)
        for sign, bound in wanted.items():
            number = isinstance(bound, int | float) and not isinstance(bound, bool) and bound == bound
            if sign not in RANGES or not number:
                raise FilterError(
                    f"filter on {column!r}: a range maps {', '.join(RANGES)} to numbers, got {sign!r}: {bound!r}"
                )
            place = int(np.searchsorted(values, bound, side="left" if sign in (">=", "<") else "right"))
            first, last = (max(first, place), last) if sign[0] == ">" else (first, min(last, place))
        return items[first : max(first, last)]

    def _column(self, column: str) -> tuple[Any, np.ndarray]:
        """The item_idx in the order of their values, without missing ones; and those values in rising order, of a
        column of strings the place of each: {value: slice}."""
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
