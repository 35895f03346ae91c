"""A catalogue that has changed since its bundle was built: what is said of items, what filters and traits they have.

Only the changed rows are looked at anew; for all others what the bundle has worked out stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy import sparse

from reckg.data.ids import IdMap
from reckg.ranking.diversity import Diversity, ItemTraits, item_traits
from reckg.retrieval.filters import Filters, ItemFilters

if TYPE_CHECKING:
    from reckg.bundle.bundle import Bundle


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
    values, value_names, provider, provider_names = None, dict[str, int](), None, dict[str, int]()
    if old.values is not None and new.values is not None:
        value_names, codes = _numbered(old.value_names, new.value_names)
        width = len(value_names)
        parts = new.values.data, codes[new.values.indices], new.values.indptr
        more = sparse.csr_matrix(parts, shape=(new.values.shape[0], width))
        more.sort_indices()
        parts = old.values.data, old.values.indices, old.values.indptr
        wide = sparse.csr_matrix(parts, shape=(old.values.shape[0], width))
        values = sparse.vstack([wide, more, sparse.csr_matrix((1, width))], format="csr")[place]
    if old.provider is not None and new.provider is not None:
        provider_names, codes = _numbered(old.provider_names, new.provider_names)
        provider = np.concatenate([old.provider, np.append(codes, -1)[new.provider], [-1]])[place]
    return ItemTraits(bundle.item_vectors, values, provider, list(value_names), list(provider_names))


def _numbered(old: Sequence[str], new: Sequence[str]) -> tuple[dict[str, int], np.ndarray]:
    """The numbers of all names, the old ones first, and (n,) those of the new."""
    names = {name: code for code, name in enumerate(old)}
    return names, np.array([names.setdefault(name, len(names)) for name in new], dtype=np.int64)


def catalogue_row(item_id: str, item: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """An item, given as columns to values, as a row of the bundle's catalogue; what does not fit a column is dropped
    from it."""
    return {
        name: item_id if name == "item_id" else _fitting(item.get(name), kind) for name, kind in bundle.schema.items()
    }


def catalogue_table(rows: Sequence[Mapping[str, Any]], bundle: Bundle) -> pl.DataFrame:
    """Rows of ``catalogue_row`` as a table."""
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
