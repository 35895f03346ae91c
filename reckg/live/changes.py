"""Changes of the catalog since a bundle was built, as a store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ChangeKind = Literal["upsert", "remove", "available", "unavailable"]


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """One change of one item. item: of an upsert, column to value (a string, a number or a list of strings).

    revision: rises with every call that stores changes; 0 before it is stored.
    """

    item_id: str
    kind: ChangeKind
    item: Mapping[str, Any] | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddedItem:
    """What a bundle's text encoder and graph made of an upserted item, as bytes; see serving/catalog/embedder.py."""

    item_id: str
    revision: int  # of the upsert that it was made from
    data: bytes
