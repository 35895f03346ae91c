"""Maps between raw ids (strings) and contiguous indices."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from reckg.errors import DataError, UnknownIdError

_IDS = ("user_id", "item_id")


@dataclass(frozen=True)
class CodedIds:
    """A table in memory whose ids are codes (UInt32).

    A code is a place in the sorted ids ``user_id`` or ``item_id`` (strings), so codes sort as the ids do. A table of
    many rows takes a fraction of the memory.
    """

    frame: pl.DataFrame
    user_id: pl.Series
    item_id: pl.Series


def code_ids(frame: pl.LazyFrame) -> CodedIds:
    """Replaces the columns user_id and item_id (strings) by codes and collects the frame."""
    numbered = [pl.col(name).cast(pl.Categorical(pl.Categories.random())) for name in _IDS]  # in order of appearance
    table = frame.select(*numbered, pl.exclude(_IDS)).collect(engine="streaming")
    ids = []
    for name in _IDS:
        number = table[name].to_physical()
        distinct = table[name].unique()
        raw, by_id = distinct.cast(pl.String), distinct.cast(pl.String).arg_sort()
        place = np.zeros(int(number.max() or 0) + 1, dtype=np.uint32)  # type: ignore[arg-type]
        place[distinct.to_physical().gather(by_id).to_numpy()] = np.arange(len(raw), dtype=np.uint32)
        table = table.with_columns(pl.Series(name, place).gather(number))
        ids.append(raw.gather(by_id))
    return CodedIds(table, *ids)


def codes_of(column: pl.Series) -> np.ndarray:
    """Returns (n,) int64: integers as they are, places of an Enum, else places in the sorted distinct values."""
    if isinstance(column.dtype, pl.Enum):
        return column.to_physical().cast(pl.Int64).to_numpy()
    if column.dtype.is_integer():
        return column.cast(pl.Int64).to_numpy()
    ids = column.unique().sort().alias("id").to_frame().with_row_index("code")
    joined = column.alias("id").to_frame().join(ids, on="id", how="left", maintain_order="left", nulls_equal=True)
    return joined["code"].cast(pl.Int64).to_numpy()


class IdMap:
    """A bijection between n raw ids (strings) and the indices 0..n-1, in the given order.

    >>> from reckg.data.ids import IdMap
    >>> IdMap(["anna", "ben"], "user id").idx("ben")
    1

    Args:
        ids: the raw ids.
        noun: the kind of id in error messages.
    Raises:
        DataError: an id is empty, missing or repeated.
    """

    def __init__(self, ids: Sequence[str] | pl.Series, noun: str = "id") -> None:
        self.noun = noun
        self.ids = pl.Series("id", ids, dtype=pl.String)
        empty = (self.ids.is_null() | (self.ids == "")).sum()
        if empty:
            raise DataError(f"{empty} of {len(self.ids)} {noun}s are empty; give every row an id.")
        self._idx = dict(zip(self.ids.to_list(), range(len(self.ids)), strict=True))
        self._added_ids: list[str] = []
        self._added: dict[str, int] = {}
        if len(self._idx) != len(self.ids):
            first = self.ids.filter(self.ids.is_duplicated())[0]
            repeated = len(self.ids) - len(self._idx)
            raise DataError(f"{repeated} of {len(self.ids)} {noun}s are repeated (first: {first!r}); make them unique.")

    def without(self, ids: Sequence[str]) -> IdMap:
        """Returns a map that no longer knows some of the added ids. The indices stay as they are.

        Args:
            ids: added ids; others have no effect.
        """
        remaining, removed = copy.copy(self), set(ids)
        remaining._added = {raw: idx for raw, idx in self._added.items() if raw not in removed}
        return remaining

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, raw: str) -> bool:
        return raw in self._idx or raw in self._added

    def extended(self, ids: Sequence[str]) -> IdMap:
        """Returns a map with added ids after the others; the first ids are shared, not copied.

        Args:
            ids: new ids. An id that was added before gets the new index.
        Raises:
            DataError: an id is empty, repeated, or among the first ids.
        """
        own = len(self) - len(self._added_ids)
        if wrong := [raw for raw in ids if not raw or raw in self._idx]:
            raise DataError(
                f"{len(wrong)} of {len(ids)} {self.noun}s are empty or there already (first: {wrong[0]!r})."
            )
        extended = copy.copy(self)
        extended._added_ids = [*self._added_ids, *IdMap(ids, self.noun).ids]
        extended._added = self._added | {raw: len(self) + place for place, raw in enumerate(ids)}
        extended.ids = pl.concat([self.ids[:own], pl.Series("id", extended._added_ids, dtype=pl.String)], rechunk=False)
        return extended

    def idx(self, raw: str) -> int:
        """Returns the index of a raw id. Raises UnknownIdError."""
        idx = self.get(raw)
        if idx is None:
            raise UnknownIdError(f"unknown {self.noun} {raw!r}: not among the {len(self)} of this run.")
        return idx

    def get(self, raw: str) -> int | None:
        """Returns the index of a raw id, or None."""
        idx = self._idx.get(raw)
        return self._added.get(raw) if idx is None else idx

    def indices(self, raws: Sequence[str]) -> np.ndarray:
        """Looks up raw ids.

        Args:
            raws: n raw ids.
        Returns:
            (n,) int64 indices.
        Raises:
            UnknownIdError: ids are unknown; the message counts them and names the first.
        """
        found = [self.get(raw) for raw in raws]
        out = np.array([-1 if idx is None else idx for idx in found], dtype=np.int64)
        if (out < 0).any():
            unknown = int((out < 0).sum())
            first = raws[int(np.argmin(out))]
            raise UnknownIdError(f"{unknown} of {len(raws)} {self.noun}s are unknown (first: {first!r}).")
        return out

    def raw(self, indices: np.ndarray) -> list[str]:
        """Returns the raw ids of (n,) indices. Raises UnknownIdError for an index out of range."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise UnknownIdError(f"{self.noun} index out of range 0..{len(self) - 1}.")
        return self.ids.gather(indices).to_list()
