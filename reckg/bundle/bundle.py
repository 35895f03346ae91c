"""Bundle: everything that is served, as one immutable, versioned folder.

    manifest.json           format and bundle version, configuration, metrics, sha256 and size of every other file, ...
    users.parquet           user_id, in user_idx order
    items.parquet           item_id, text and attribute columns, in item_idx order
    embeddings.safetensors  users (U, d), items (I, d) float32
    history.safetensors     the users' interactions as compressed rows, and their dislikes
    index/ features/        the FAISS index; the feature tables
    ranker/                 the LightGBM model as text, where the bundle has one
    inductive/              arrays that embed new items and users; may be left out
    golden.jsonl            a few requests with their answers
    model/ text_encoder/    added by the jobs

Vectors, history and feature tables are mapped into memory, and nothing is unpickled. Hashes are checked before FAISS or
LightGBM read a file: their parsers do not survive every damaged one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from reckg.bundle.manifest import Manifest
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.errors import CannotEmbedError
from reckg.inductive.embedder import Inductive
from reckg.ranking.diversity import Diversity, ItemTraits, item_traits
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.trees.ranker import Ranker
from reckg.retrieval.filters import ItemFilters
from reckg.retrieval.index import ItemIndex

DEFAULT_CANDIDATES = 200  # where the manifest holds no configuration


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that is served, in memory; U users, I items, d dimensions.

    Before a bundle is saved, its ``manifest`` holds the entries of the run; `save_bundle` adds the others.
    """

    version: str
    manifest: Manifest
    user_ids: IdMap
    item_ids: IdMap
    items: pl.DataFrame  # item_idx order; item_id, text and attribute columns
    user_vectors: np.ndarray  # (U, d) float32
    item_vectors: np.ndarray  # (I, d) float32; where items were added, a ExtendedArray
    index: ItemIndex
    history: History
    features: FeatureTables
    ranker: Ranker | None
    inductive: Inductive | None = field(default=None, repr=False)  # None: nothing can be embedded

    @property
    def built(self) -> Bundle:
        """The bundle as it was built: this one, or the one that a live bundle grew from."""
        return self

    @property
    def embedder(self) -> Inductive:
        """Embedder of new items and users. Raises CannotEmbedError: the bundle was built without one."""
        if self.inductive is None:
            raise CannotEmbedError(
                f"bundle {self.version!r} holds nothing to embed new items and users with: its folder inductive/ was "
                "left out. Run 'reckg bundle' again."
            )
        return self.inductive

    @property
    def candidates(self) -> int:
        """Items that are retrieved for reranking: as many as the ranker was trained for."""
        return int(self.manifest.get("config", {}).get("rank", {}).get("candidates", DEFAULT_CANDIDATES))

    def event_meaning(self, event: str) -> tuple[float, bool, bool]:
        """Looks up the meaning of an event type of a request: its weight, whether it is the target, and a dislike.

        A type that training did not have is no target, and weighs as the least of the known ones.
        """
        task = self.manifest.get("task", {})
        targets, weights = task.get("target_events", ()), task.get("event_weights", {})
        if not targets or not event:
            return 1.0, True, False
        disliked = event in task.get("negative_events", ())
        return weights.get(event, min(weights.values(), default=1.0)), event in targets, disliked

    @cached_property
    def diversity(self) -> Diversity:
        """Settings of the changes to lists after ranking; the defaults where the manifest holds none."""
        return Diversity(**self.manifest.get("config", {}).get("diversity", {}))

    def traits(self, diversity: Diversity) -> ItemTraits:
        """Returns the item traits that a diversity needs, and caches them.

        Args:
            diversity: names the column and the provider column.
        Raises:
            ConfigError: the items lack a column.
        """
        key = diversity.column, diversity.provider_column
        if key not in self._traits:
            self._traits[key] = self._item_traits(diversity)
        return self._traits[key]

    def _item_traits(self, diversity: Diversity) -> ItemTraits:
        return item_traits(self.items, self.item_vectors, diversity)

    @property
    def known_traits(self) -> list[tuple[str, str]]:
        """(column, provider column) pairs whose traits are cached."""
        return list(self._traits)

    @cached_property
    def _traits(self) -> dict[tuple[str, str], ItemTraits]:
        return {}

    @cached_property
    def available(self) -> np.ndarray:
        """(I,) bool: the items that may be recommended."""
        available = np.ones(len(self.item_ids), dtype=bool)
        available[self.unavailable] = False
        return available

    @cached_property
    def unavailable(self) -> np.ndarray:
        """(n,) int64, sorted item_idx that may not be recommended. None in a bundle as it was built."""
        return np.empty(0, dtype=np.int64)

    @cached_property
    def item_filters(self) -> ItemFilters:
        """Filters over the catalog."""
        return ItemFilters(self.items, self.item_ids, self.manifest.get("item_columns", {}))

    @cached_property
    def schema(self) -> pl.Schema:
        """Types of the catalog's columns, ``item_id`` first."""
        return self.items.schema

    @cached_property
    def title_column(self) -> str | None:
        """First text column of the catalog, or None."""
        text = self.manifest.get("item_columns", {}).get("text", [])
        return str(text[0]) if text else None

    def titles(self, item_idx: np.ndarray) -> list[str]:
        """Returns the titles of items.

        Args:
            item_idx: (n,) item_idx.
        Returns:
            n titles; empty for an item without a title.
        """
        if self.title_column is None:
            return [""] * len(item_idx)
        titles = self.items[self.title_column]
        return [titles[item] or "" for item in item_idx.tolist()]  # one by one: a gather of a few costs 50 times more

    def row(self, item_idx: int) -> dict[str, Any]:
        """Returns the catalog's row of an item, by column, ``item_id`` included.

        Args:
            item_idx: the item.
        """
        return self.items.row(item_idx, named=True)
