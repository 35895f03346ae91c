"""A bundle with the changes of the catalogue since: pure, an overlay in and an overlay out.

The same bundle, changes and embedded items give the same answers, whether the changes came one by one or at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.errors import ArtifactError
from reckg.live.add_items import grow
from reckg.live.changes import CatalogChange, EmbeddedItem
from reckg.live.live_bundle import LiveBundle, revise
from reckg.live.new_item import NewItem
from reckg.live.rows import catalog_row, catalog_table
from reckg.ranking.diversity import Diversity

MANY_FORMER = 500  # rows that are of no use any more, from which on an overlay is made anew

logger = logging.getLogger("reckg.serving")


@dataclass(frozen=True)
class Overlay:
    """A bundle and the changes that were applied to it.

    grown: with the added items and the revised rows; its unavailable items are replaced or removed rows. served:
    answers requests; ``grown`` without the blocked items. revision: the last change that was applied. pending: upserts
    of items that are not embedded yet, by id.
    """

    grown: LiveBundle
    served: Bundle
    revision: int = 0
    pending: Mapping[str, CatalogChange] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()  # raw ids that were removed, or are not available
    removed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, bundle: Bundle) -> Overlay:
        """Without any change."""
        return cls(LiveBundle.of(bundle), bundle)

    @property
    def base(self) -> Bundle:
        return self.grown.built

    @property
    def known_revision(self) -> int:
        """The changes up to here are all answered with; those that wait for the embedder are not."""
        return min((change.revision - 1 for change in self.pending.values()), default=self.revision)

    @property
    def added_count(self) -> int:
        """Items beside the bundle's own, whether or not they may be recommended."""
        return len(self.grown.item_ids) - len(self.base.item_ids) - len(self.grown.unavailable)

    @property
    def blocked_count(self) -> int:
        """Items that are known and may not be recommended."""
        return sum(item_id in self.grown.item_ids for item_id in self.blocked)

    @property
    def is_worn(self) -> bool:
        """Whether it holds so many rows of no use that it should be made anew, from all changes."""
        return len(self.grown.unavailable) >= MANY_FORMER

    def apply(self, changes: Sequence[CatalogChange], embedded: Sequence[EmbeddedItem]) -> Overlay:
        """Applies more changes.

        Args:
            changes: by ascending revision.
            embedded: embedded items, among the pending ones and the upserts of ``changes``.
        Returns:
            The new overlay, or this one where nothing changed.
        """
        first = min(self.pending.values(), key=_order, default=None)  # later changes wait for it
        ready = {(item.item_id, item.revision) for item in embedded}
        if not changes and (first is None or (first.item_id, first.revision) not in ready):
            return self
        pending, unavailable, removed = dict(self.pending), set(self.blocked - self.removed), set(self.removed)
        revised, gone = dict[str, CatalogChange](), set[str]()
        for change in changes:
            item_id = change.item_id
            if change.kind in ("available", "unavailable"):
                (unavailable.add if change.kind == "unavailable" else unavailable.discard)(item_id)
                continue
            pending.pop(item_id, None)
            revised.pop(item_id, None)
            gone.discard(item_id)
            if change.kind == "remove":
                removed.add(item_id)
                gone.add(item_id)
            else:
                removed.discard(item_id)
                (revised if item_id in self.base.item_ids else pending)[item_id] = change
        grown, refused = _add_embedded(_revise_rows(self.grown, revised, gone), pending, embedded)
        grown = _remove_added(grown, gone | refused)
        blocked = frozenset(removed | unavailable)
        revision = max([self.revision, *(change.revision for change in changes)])
        served = _warm(_block_items(grown, blocked), self.served)
        return Overlay(grown, served, revision, pending, blocked, frozenset(removed))


def _revise_rows(grown: LiveBundle, revised: Mapping[str, CatalogChange], gone: set[str]) -> LiveBundle:
    """Replaces rows of built items, and restores the built rows of removed items.

    Args:
        grown: the live bundle.
        revised: upserts of built items by id.
        gone: ids of removed items.
    """
    base = grown.built
    kept = {idx: row for idx, row in grown.revised.items() if row["item_id"] not in gone}
    rows = {
        base.item_ids.idx(item_id): catalog_row(item_id, change.item or {}, base) for item_id, change in revised.items()
    }
    if len(kept) == len(grown.revised) and not rows:
        return grown
    return revise(replace(grown, revised=kept), rows)


def _add_embedded(
    grown: LiveBundle, pending: dict[str, CatalogChange], embedded: Sequence[EmbeddedItem]
) -> tuple[LiveBundle, set[str]]:
    """Adds pending items that are embedded, by revision, up to the first that is not embedded.

    Args:
        grown: the live bundle.
        pending: upserts by item id; the added and the refused ones are taken out.
        embedded: the embedded items.
    Returns:
        The live bundle, and the ids of items that could not be embedded.
    """
    base = grown.built
    ready = {(item.item_id, item.revision): item.data for item in embedded}
    rows, added, refused = [], [], set()
    for change in sorted(pending.values(), key=_order):
        data = ready.get((change.item_id, change.revision))
        if data is None:
            break
        del pending[change.item_id]
        try:
            if not data:
                raise ArtifactError("the bundle knows no text or attribute of an added item.")
            added.append(NewItem.from_bytes(data, base))
            rows.append(catalog_row(change.item_id, change.item or {}, base))
        except ArtifactError as error:
            refused.add(change.item_id)
            logger.warning("an item of catalogue revision %d is not recommended: %s", change.revision, error)
    if not added:
        return grown, refused
    return grow(grown, catalog_table(rows, base), added), refused


def _order(change: CatalogChange) -> tuple[int, str]:
    return change.revision, change.item_id


def _remove_added(grown: LiveBundle, item_ids: set[str]) -> LiveBundle:
    """Makes added items unavailable and removes their ids."""
    base = grown.built
    added = [item_id for item_id in sorted(item_ids) if item_id in grown.item_ids and item_id not in base.item_ids]
    if not added:
        return grown
    rows = [grown.item_ids.idx(item_id) for item_id in added]
    unavailable = np.union1d(grown.unavailable, rows).astype(np.int64)
    return replace(grown, item_ids=grown.item_ids.without(added), unavailable=unavailable)


def _block_items(grown: LiveBundle, blocked: frozenset[str]) -> LiveBundle:
    """Makes blocked items unavailable."""
    rows = [idx for item_id in blocked if (idx := grown.item_ids.get(item_id)) is not None]
    return replace(grown, unavailable=np.union1d(grown.unavailable, rows).astype(np.int64))


def _warm(served: Bundle, before: Bundle) -> Bundle:
    """Computes the cached values that requests would otherwise wait for."""
    _ = served.available, served.item_filters
    for column, provider_column in before.known_traits:
        served.traits(Diversity(column=column, provider_column=provider_column))
    return served
