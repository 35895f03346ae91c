"""GrownIndex: an index and a few items behind its own, which are searched exactly."""

from __future__ import annotations

import numpy as np

from reckg.arrays.extended_array import ExtendedArray
from reckg.arrays.ragged_rows import Rows, kept_entries
from reckg.errors import ArtifactError
from reckg.retrieval.exact import (
    checked_queries,
    checked_seen,
    checked_vectors,
    pair_scores,
    search_checked,
    write_best,
)
from reckg.retrieval.index import BATCH, ItemIndex
from reckg.retrieval.scored_items import ScoredItems, empty_result

PAIRS = 2**15  # up to so many pairs of a query and an item are scored one by one


class GrownIndex(ItemIndex):
    """``base`` and (m, dim) float32 more vectors behind its own; the base is neither changed nor copied.

    Raises:
        ArtifactError: the vectors do not fit, or are not finite.
    """

    def __init__(self, base: ItemIndex, more: np.ndarray) -> None:
        more = checked_vectors(more)
        if more.shape[1] != base.dim:
            raise ArtifactError(f"{more.shape[1]} dimensions are added to an index of {base.dim}: from another run?")
        before = [base.more] if isinstance(base, GrownIndex) else []
        base = base.base if isinstance(base, GrownIndex) else base
        self.base: ItemIndex = base
        self.more: np.ndarray = np.concatenate([*before, more])
        self.kind, self.compression = base.kind, base.compression
        self.settings, self.recall = base.settings, base.recall
        self.n_items, self.dim = base.n_items + len(self.more), base.dim

    def vectors(self) -> ExtendedArray:  # type: ignore[override]
        """(n_items, dim) float32, without a copy."""
        return ExtendedArray(self.base.vectors(), self.more)

    def search(
        self, queries: np.ndarray, k: int, seen: Rows | None = None, allowed: np.ndarray | None = None
    ) -> ScoredItems:
        """As ItemIndex.search: the base's best and the others' best, merged."""
        queries = checked_queries(queries, self.dim, k)
        n, size = len(queries), self.base.n_items
        if allowed is not None:
            self._checked_allowed(allowed)
        of_base = of_more = None
        if seen is not None:
            seen = checked_seen(seen, n, self.n_items)
            behind = seen[1] >= size
            of_base = kept_entries(seen, ~behind)
            of_more = kept_entries((seen[0], seen[1] - size), behind)
        found = self.base.search(queries, k, of_base, None if allowed is None else allowed[:size])
        more = self._search_more(queries, k, of_more, None if allowed is None else allowed[size:])
        result = empty_result(n, k)
        item_idx = np.concatenate([found.item_idx, np.where(more.item_idx < 0, -1, more.item_idx + size)], axis=1)
        score = np.concatenate([found.score, more.score], axis=1)
        row, place = np.nonzero(item_idx >= 0)
        write_best(result, 0, row, item_idx[row, place], score[row, place])
        return result

    def _search_more(self, queries: np.ndarray, k: int, seen: Rows | None, allowed: np.ndarray | None) -> ScoredItems:
        """The best of the items behind the base, numbered from 0."""
        n, m = len(queries), len(self.more)
        if n >= BATCH or n * m > PAIRS:
            items = np.arange(m) if allowed is None else np.flatnonzero(allowed)
            inside = None if seen is None else _among(seen, items, m)
            found = search_checked(queries, self.more[items], min(k, max(m, 1)), inside)
            return ScoredItems(np.where(found.item_idx < 0, -1, np.append(items, -1)[found.item_idx]), found.score)
        left = np.ones((n, m), dtype=bool) if allowed is None else np.tile(allowed, (n, 1))
        if seen is not None:
            left[np.repeat(np.arange(n), np.diff(seen[0])), seen[1]] = False
        row, item = np.nonzero(left)
        found = empty_result(n, min(k, max(m, 1)))
        write_best(found, 0, row, item, pair_scores(queries, self.more, row, item))
        return found


def _among(seen: Rows, items: np.ndarray, n_items: int) -> Rows:
    """Of compressed rows those of some rising items, numbered by their places."""
    place = np.full(n_items, -1, dtype=np.int64)
    place[items] = np.arange(len(items))
    return kept_entries((seen[0], place[seen[1]]), place[seen[1]] >= 0)
