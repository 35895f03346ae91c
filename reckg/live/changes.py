"""Changes of the catalog since a bundle was built, as a store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ChangeKind = Literal["upsert", "remove", "available", "unavailable"]


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """A change of an item.

    item: column to value (a string, a number or a list of strings) for an upsert, else None. revision: rises with every
    call that stores changes; 0 before the change is stored.
    """

    item_id: str
    kind: ChangeKind
    item: Mapping[str, Any] | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddedItem:
    """Embedding of an upserted item for one bundle, as bytes. Empty bytes: the bundle knows nothing of the item."""

    item_id: str
    revision: int  # of the upsert that it was made from
    data: bytes
