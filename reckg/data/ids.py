"""IdMap: raw ids (strings) to contiguous indices and back."""

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
    """A table in memory whose ids are codes (UInt32): places among the sorted ids, which are ``user_id`` and
    ``item_id`` (strings). Codes sort as the ids do, and a table of many rows takes a fraction of the memory."""

    frame: pl.DataFrame
    user_id: pl.Series
    item_id: pl.Series


def code_ids(frame: pl.LazyFrame) -> CodedIds:
    """Replaces the columns user_id and item_id (strings) by codes."""
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
    """(n,) int64: whole numbers as they are, others as places among the sorted distinct ones."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64).to_numpy()
    ids = column.unique().sort().alias("id").to_frame().with_row_index("code")
    joined = column.alias("id").to_frame().join(ids, on="id", how="left", maintain_order="left", nulls_equal=True)
    return joined["code"].cast(pl.Int64).to_numpy()


class IdMap:
    """A bijection between n raw ids (strings) and the indices 0..n-1, in the order given.

    Raises:
        DataError: an id is empty, missing or repeated.
    """

    def __init__(self, ids: Sequence[str] | pl.Series, what: str = "id") -> None:
        self.what = what
        self.ids = pl.Series("id", ids, dtype=pl.String)
        empty = (self.ids.is_null() | (self.ids == "")).sum()
        if empty:
            raise DataError(f"{empty} of {len(self.ids)} {what}s are empty; give every row an id.")
        self._idx = dict(zip(self.ids.to_list(), range(len(self.ids)), strict=True))
        self._added_ids: list[str] = []
        self._added: dict[str, int] = {}
        if len(self._idx) != len(self.ids):
            first = self.ids.filter(self.ids.is_duplicated())[0]
            repeated = len(self.ids) - len(self._idx)
            raise DataError(f"{repeated} of {len(self.ids)} {what}s are repeated (first: {first!r}); make them unique.")

    def without(self, ids: Sequence[str]) -> IdMap:
        """Without some of the ids that were added: they are unknown from now on, their indices stay."""
        less, gone = copy.copy(self), set(ids)
        less._added = {raw: idx for raw, idx in self._added.items() if raw not in gone}
        return less

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, raw: str) -> bool:
        return raw in self._idx or raw in self._added

    def extended(self, ids: Sequence[str]) -> IdMap:
        """With more ids behind the others, of which nothing is copied.

        An id that was added in this way before is of the new index alone from now on.

        Raises:
            DataError: an id is empty, repeated, or one of the first.
        """
        own = len(self) - len(self._added_ids)
        if wrong := [raw for raw in ids if not raw or raw in self._idx]:
            raise DataError(
                f"{len(wrong)} of {len(ids)} {self.what}s are empty or there already (first: {wrong[0]!r})."
            )
        grown = copy.copy(self)
        grown._added_ids = [*self._added_ids, *IdMap(ids, self.what).ids]
        grown._added = self._added | {raw: len(self) + place for place, raw in enumerate(ids)}
        grown.ids = pl.concat([self.ids[:own], pl.Series("id", grown._added_ids, dtype=pl.String)], rechunk=False)
        return grown

    def idx(self, raw: str) -> int:
        """The index of one raw id. Raises UnknownIdError."""
        idx = self.get(raw)
        if idx is None:
            raise UnknownIdError(f"unknown {self.what} {raw!r}: not among the {len(self)} of this run.")
        return idx

    def get(self, raw: str) -> int | None:
        """The index of one raw id, or None."""
        idx = self._idx.get(raw)
        return self._added.get(raw) if idx is None else idx

    def indices(self, raws: Sequence[str]) -> np.ndarray:
        """(n,) int64 indices of n raw ids. Raises UnknownIdError, which counts the unknown and names the first."""
        found = [self.get(raw) for raw in raws]
        out = np.array([-1 if idx is None else idx for idx in found], dtype=np.int64)
        if (out < 0).any():
            unknown = int((out < 0).sum())
            first = raws[int(np.argmin(out))]
            raise UnknownIdError(f"{unknown} of {len(raws)} {self.what}s are unknown (first: {first!r}).")
        return out

    def raw(self, indices: np.ndarray) -> list[str]:
        """Raw ids of (n,) indices. Raises UnknownIdError on an index out of range."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise UnknownIdError(f"{self.what} index out of range 0..{len(self) - 1}.")
        return self.ids.gather(indices).to_list()
