"""A catalogue that has changed since its bundle was built: what is said of items, what filters and traits they have.

Only the changed rows are looked at anew; for all others what the bundle has worked out stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy import sparse

from reckg.data.ids import IdMap
from reckg.ranking.diversity import Diversity, ItemTraits, item_traits
from reckg.retrieval.filters import Filters, ItemFilters

if TYPE_CHECKING:
    from reckg.bundle import Bundle

FEW = 200  # items that may not be recommended, up to which they are left out as what a user has seen is


def revise(bundle: Bundle, rows: Mapping[int, Mapping[str, Any]]) -> Bundle:
    """The bundle with other texts and attributes for some of its items, in replies and filters; vectors stay.

    Args:
        rows: item_idx to a value for each column of the catalogue, None where there is none.
    """
    base = bundle if bundle.base is None else bundle.base
    return replace(bundle, base=base, revised={**bundle.revised, **rows})


def changed_rows(bundle: Bundle) -> tuple[np.ndarray, pl.DataFrame]:
    """(r,) item_idx of the items whose row is not the base's, rising, and these rows: the revised and the added ones.

    Of an item that was added twice the last row counts.
    """
    assert bundle.base is not None
    n = len(bundle.base.items)
    revised = sorted(bundle.revised)
    rows = pl.DataFrame([bundle.revised[idx] for idx in revised], schema=bundle.base.items.schema)
    added = bundle.items[n:]
    counts = np.array([bundle.item_ids.get(item_id) == n + i for i, item_id in enumerate(added["item_id"])], dtype=bool)
    both = pl.concat([rows, added.filter(pl.Series(counts, dtype=pl.Boolean))], how="diagonal_relaxed")
    return np.concatenate([np.array(revised, dtype=np.int64), n + np.flatnonzero(counts)]), both


class ChangedFilters:
    """As ItemFilters, over a bundle with changed rows; safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.base is not None
        self._base, self._n = bundle.base.item_filters, len(bundle.item_ids)
        self._changed, rows = changed_rows(bundle)
        columns = bundle.manifest.get("item_columns", {})
        self._more = ItemFilters(rows, IdMap(rows["item_id"], "item id"), columns)

    def allowed(self, filters: Filters) -> np.ndarray | None:
        """Returns, Raises: as ItemFilters.allowed."""
        known = self._base.allowed(filters)
        more = self._more.allowed(filters)
        if known is None or more is None:
            return None
        allowed = np.zeros(self._n, dtype=bool)
        allowed[: len(known)] = known
        allowed[self._changed] = more
        return allowed


def changed_traits(bundle: Bundle, diversity: Diversity) -> ItemTraits:
    """What Bundle.traits says, of a bundle with changed rows: values and providers that are new come after the others.

    Raises:
        ConfigError: the items lack a column.
    """
    assert bundle.base is not None
    old = bundle.base.traits(diversity)
    changed, rows = changed_rows(bundle)
    new = item_traits(rows, np.empty((0, 0)), diversity)
    place = np.arange(len(bundle.item_ids))
    place[len(bundle.base.item_ids) :] = -1
    place[changed] = len(bundle.base.item_ids) + np.arange(len(changed))
    values = provider = None
    if old.values is not None and new.values is not None:
        names = {name: code for code, name in enumerate(old.value_names)}
        codes = np.array([names.setdefault(name, len(names)) for name in new.value_names], dtype=np.int64)
        shape = new.values.shape[0], len(names)
        more = sparse.csr_matrix((new.values.data, codes[new.values.indices], new.values.indptr), shape=shape)
        more.sort_indices()
        wide = sparse.csr_matrix(
            (old.values.data, old.values.indices, old.values.indptr), shape=(old.values.shape[0], len(names))
        )
        nobody = sparse.csr_matrix((1, len(names)))
        values = sparse.vstack([wide, more, nobody], format="csr")[place]
    if old.provider is not None and new.provider is not None:
        names = {name: code for code, name in enumerate(old.provider_names)}
        codes = np.array([*(names.setdefault(name, len(names)) for name in new.provider_names), -1], dtype=np.int64)
        provider = np.concatenate([old.provider, codes[new.provider], [-1]])[place]
    return ItemTraits(bundle.item_vectors, values, provider)
