"""A catalog that has changed since its bundle was built: its rows, filters and traits.

Only changed rows are computed anew. The built bundle's values serve all other items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.data.ids import IdMap
from reckg.ranking.diversity import Diversity, ItemTraits, item_traits
from reckg.retrieval.filters import Filters, ItemFilters


@dataclass(frozen=True, eq=False)
class LiveBundle(Bundle):
    """A bundle with the changes of the catalog since it was built. It serves in this process and is never saved.

    The fields of Bundle hold the built items and, after them, the added ones.

    Args:
        base: the bundle as it was built.
        unavailable: (n,) int64, sorted item_idx that may not be recommended: blocked, removed or replaced by a later
            row.
        revised: item_idx of a built item to the row that replaces its own, by column; its vectors stay.
    """

    base: Bundle = field(kw_only=True, repr=False)
    unavailable: np.ndarray = field(kw_only=True, repr=False, default_factory=lambda: np.empty(0, dtype=np.int64))
    revised: Mapping[int, Mapping[str, Any]] = field(kw_only=True, repr=False, default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle) -> LiveBundle:
        """Returns a live bundle without changes yet, or ``bundle`` itself where it is live already."""
        if isinstance(bundle, LiveBundle):
            return bundle
        return cls(**{part.name: getattr(bundle, part.name) for part in fields(Bundle)}, base=bundle)

    @property
    def built(self) -> Bundle:
        return self.base

    @cached_property
    def item_filters(self) -> ChangedFilters:
        return ChangedFilters(self)

    def _item_traits(self, diversity: Diversity) -> ItemTraits:
        return compute_changed_traits(self, diversity)

    def titles(self, item_idx: np.ndarray) -> list[str]:
        titles = super().titles(item_idx)
        if self.title_column is not None:
            for place, item in enumerate(item_idx.tolist()):
                if item in self.revised:
                    titles[place] = self.revised[item][self.title_column] or ""
        return titles

    def row(self, item_idx: int) -> dict[str, Any]:
        return dict(self.revised[item_idx]) if item_idx in self.revised else super().row(item_idx)


def revise(bundle: Bundle, rows: Mapping[int, Mapping[str, Any]]) -> LiveBundle:
    """Replaces texts and attributes of built items, in replies and filters. The items' vectors stay.

    Args:
        rows: item_idx to a value for each column of the catalog, None where the item has none.
    """
    live = LiveBundle.of(bundle)
    return replace(live, revised={**live.revised, **rows})


def find_changed_rows(bundle: LiveBundle) -> tuple[np.ndarray, pl.DataFrame]:
    """Collects the rows that differ from the built bundle's: the revised ones and the added ones.

    Args:
        bundle: the live bundle. Only the last row of an item that was added twice counts.
    Returns:
        (r,) item_idx, revised items before added ones, each ascending, and the r rows.
    """
    n = len(bundle.built.items)
    revised = sorted(bundle.revised)
    rows = pl.DataFrame([bundle.revised[idx] for idx in revised], schema=bundle.built.items.schema)
    added = bundle.items[n:]
    counts = np.array([bundle.item_ids.get(item_id) == n + i for i, item_id in enumerate(added["item_id"])], dtype=bool)
    both = pl.concat([rows, added.filter(pl.Series(counts, dtype=pl.Boolean))], how="diagonal_relaxed")
    return np.concatenate([np.array(revised, dtype=np.int64), n + np.flatnonzero(counts)]), both


class ChangedFilters(ItemFilters):
    """ItemFilters over a bundle with changed rows. Threads may share it."""

    def __init__(self, bundle: LiveBundle) -> None:
        self._base, self._n = bundle.built.item_filters, len(bundle.item_ids)
        self._changed, rows = find_changed_rows(bundle)
        columns = bundle.manifest.get("item_columns", {})
        self._more = ItemFilters(rows, IdMap(rows["item_id"], "item id"), columns)

    def allowed(self, filters: Filters) -> np.ndarray | None:
        """Returns (I,) bool as ItemFilters.allowed.

        Args:
            filters: the filters of a request.
        Raises:
            FilterError: as ItemFilters.allowed.
        """
        known = self._base.allowed(filters)
        more = self._more.allowed(filters)
        if known is None or more is None:
            return None
        allowed = np.zeros(self._n, dtype=bool)
        allowed[: len(known)] = known
        allowed[self._changed] = more
        return allowed


def compute_changed_traits(bundle: LiveBundle, diversity: Diversity) -> ItemTraits:
    """Computes the item traits of a live bundle. New values and providers get numbers after the existing ones.

    Args:
        bundle: the live bundle.
        diversity: names the column and the provider column.
    Raises:
        ConfigError: the items lack a column.
    """
    old = bundle.built.traits(diversity)
    changed, rows = find_changed_rows(bundle)
    new = item_traits(rows, np.empty((0, 0)), diversity)
    place = np.arange(len(bundle.item_ids))
    place[len(bundle.built.item_ids) :] = -1
    place[changed] = len(bundle.built.item_ids) + np.arange(len(changed))
    values, value_names, provider, provider_names = None, dict[str, int](), None, dict[str, int]()
    if old.values is not None and new.values is not None:
        value_names, codes = _number_names(old.value_names, new.value_names)
        width = len(value_names)
        parts = new.values.data, codes[new.values.indices], new.values.indptr
        more = sparse.csr_matrix(parts, shape=(new.values.shape[0], width))
        more.sort_indices()
        parts = old.values.data, old.values.indices, old.values.indptr
        wide = sparse.csr_matrix(parts, shape=(old.values.shape[0], width))
        values = sparse.vstack([wide, more, sparse.csr_matrix((1, width))], format="csr")[place]
    if old.provider is not None and new.provider is not None:
        provider_names, codes = _number_names(old.provider_names, new.provider_names)
        provider = np.concatenate([old.provider, np.append(codes, -1)[new.provider], [-1]])[place]
    return ItemTraits(bundle.item_vectors, values, provider, list(value_names), list(provider_names))


def _number_names(old: Sequence[str], new: Sequence[str]) -> tuple[dict[str, int], np.ndarray]:
    """Numbers all names, the old ones first. Returns name to number, and (n,) numbers of the new names."""
    names = {name: code for code, name in enumerate(old)}
    return names, np.array([names.setdefault(name, len(names)) for name in new], dtype=np.int64)
