"""ExtendedIndex: an index with added items, which are searched exactly."""

from __future__ import annotations

import numpy as np

from reckg.arrays.extended_array import ExtendedArray
from reckg.arrays.ragged_rows import Rows, kept_entries
from reckg.errors import ArtifactError
from reckg.retrieval.exact import (
    check_queries,
    check_seen,
    check_vectors,
    pair_scores,
    search_checked,
    write_best,
)
from reckg.retrieval.index import BATCH, ItemIndex
from reckg.retrieval.scored_items import ScoredItems, empty_result

PAIRS = 2**15  # up to this number of pairs of query and item are scored one by one


class ExtendedIndex(ItemIndex):
    """Index of a base and of added vectors. The base is neither changed nor copied.

    Args:
        base: an index, extended or not.
        added: (m, dim) float32 vectors. Their items are numbered after the base's.
    Raises:
        ArtifactError: the vectors do not fit, or are not finite.
    """

    def __init__(self, base: ItemIndex, added: np.ndarray) -> None:
        added = check_vectors(added)
        if added.shape[1] != base.dim:
            raise ArtifactError(f"{added.shape[1]} dimensions are added to an index of {base.dim}: from another run?")
        before = [base.added] if isinstance(base, ExtendedIndex) else []
        base = base.base if isinstance(base, ExtendedIndex) else base
        self.base: ItemIndex = base
        self.added: np.ndarray = np.concatenate([*before, added])
        self.kind, self.compression = base.kind, base.compression
        self.settings, self.recall = base.settings, base.recall
        self.n_items, self.dim = base.n_items + len(self.added), base.dim

    def vectors(self) -> ExtendedArray:  # type: ignore[override]
        """(n_items, dim) float32, without a copy."""
        return ExtendedArray(self.base.vectors(), self.added)

    def search(
        self, queries: np.ndarray, k: int, seen: Rows | None = None, allowed: np.ndarray | None = None
    ) -> ScoredItems:
        """Merges the best items of the base and the best added items.

        Args, Returns, Raises: as ItemIndex.search.
        """
        queries = check_queries(queries, self.dim, k)
        n, size = len(queries), self.base.n_items
        if allowed is not None:
            self._count_allowed(allowed)
        of_base = of_added = None
        if seen is not None:
            seen = check_seen(seen, n, self.n_items)
            behind = seen[1] >= size
            of_base = kept_entries(seen, ~behind)
            of_added = kept_entries((seen[0], seen[1] - size), behind)
        found = self.base.search(queries, k, of_base, None if allowed is None else allowed[:size])
        added = self._search_added(queries, k, of_added, None if allowed is None else allowed[size:])
        result = empty_result(n, k)
        item_idx = np.concatenate([found.item_idx, np.where(added.item_idx < 0, -1, added.item_idx + size)], axis=1)
        score = np.concatenate([found.score, added.score], axis=1)
        row, place = np.nonzero(item_idx >= 0)
        write_best(result, 0, row, item_idx[row, place], score[row, place])
        return result

    def _search_added(self, queries: np.ndarray, k: int, seen: Rows | None, allowed: np.ndarray | None) -> ScoredItems:
        """Searches the added items alone, numbered from 0.

        Args:
            seen: compressed rows of added items.
            allowed: (m,) bool.
        """
        n, m = len(queries), len(self.added)
        if n >= BATCH or n * m > PAIRS:
            items = np.arange(m) if allowed is None else np.flatnonzero(allowed)
            inside = None if seen is None else _renumber(seen, items, m)
            found = search_checked(queries, self.added[items], min(k, max(m, 1)), inside)
            return ScoredItems(np.where(found.item_idx < 0, -1, np.append(items, -1)[found.item_idx]), found.score)
        left = np.ones((n, m), dtype=bool) if allowed is None else np.tile(allowed, (n, 1))
        if seen is not None:
            left[np.repeat(np.arange(n), np.diff(seen[0])), seen[1]] = False
        row, item = np.nonzero(left)
        found = empty_result(n, min(k, max(m, 1)))
        write_best(found, 0, row, item, pair_scores(queries, self.added, row, item))
        return found


def _renumber(seen: Rows, items: np.ndarray, n_items: int) -> Rows:
    """Keeps the given items of compressed rows, numbered by their places.

    Args:
        items: (i,) rising numbers.
    """
    place = np.full(n_items, -1, dtype=np.int64)
    place[items] = np.arange(len(items))
    return kept_entries((seen[0], place[seen[1]]), place[seen[1]] >= 0)
