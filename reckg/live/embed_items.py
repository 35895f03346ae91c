"""Embeds new items against a bundle: the only part of adding items that may need the text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from reckg.bundle.bundle import Bundle
from reckg.data.schema import ColumnKinds
from reckg.inductive.embedder import EmbeddedItems
from reckg.live.new_item import NewItem
from reckg.ranking.tables.columns import standardise, unit_length
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS

ROWS_AT_ONCE = 2**16  # of the catalogue's texts
ZERO_COLUMNS = ("popularity", "recent_popularity", "latest_popularity", "popularity_trend")


class NewItemEmbedder:
    """Embeds new items against a bundle, as items without interactions. Shared values are computed once.

    An item is embedded with the built items alone, so that items added before do not change the result.

    Raises:
        CannotEmbedError: the bundle was built without an embedder.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle.built
        self.inductive = bundle.embedder
        self.tables = self.bundle.features

    def embed(self, items: pl.DataFrame) -> list[NewItem]:
        """Embeds items.

        Args:
            items: (m rows) a table with any of the catalog's text and attribute columns.
        Returns:
            m items, in the table's order.
        Raises:
            DataError: as Inductive.embed_items.
        """
        added = self.inductive.embed_items(items)
        numbers, texts = self._numbers(items), self._texts(added)
        entities = [self._entities(added, place) for place in range(len(items))]
        return [
            NewItem(
                vector=added.vectors[place],
                layers=added.layers[place, :-1],
                edge_count=np.array([len(added.edges[place])], dtype=np.float32),
                log_total=self._log_total(added, place),
                columns=self._columns(len(entities[place][0])),
                numbers=numbers[place],
                graph_vector=unit_length(added.vectors[[place], : self.tables.graph_dim])[0],
                text=texts[place],
                entities=entities[place][0],
                rarity=entities[place][1],
                **self._near(entities[place], texts[place]),
                unknown=tuple(added.unknown[place]),
            )
            for place in range(len(items))
        ]

    def _numbers(self, items: pl.DataFrame) -> np.ndarray:
        """Standardises the number columns as the bundle's. Returns (m, Fn) float32, NaN for a missing value."""
        columns = self.bundle.manifest.get("item_columns", {}).get("number", [])
        if len(columns) != self.tables.numbers.shape[1] or not columns:
            return np.full((len(items), self.tables.numbers.shape[1]), np.nan, dtype=np.float32)
        given = [
            items[name].cast(pl.Float32).to_numpy() if name in items.columns else np.full(len(items), np.nan)
            for name in columns
        ]
        return standardise(np.stack(given, axis=1).astype(np.float32), like=self._known_numbers)

    @cached_property
    def _known_numbers(self) -> np.ndarray:
        columns = self.bundle.manifest.get("item_columns", {}).get("number", [])
        return self.bundle.items.select(pl.col(name).cast(pl.Float32) for name in columns).to_numpy()

    def _texts(self, added: EmbeddedItems) -> np.ndarray:
        """Returns (m, t) float16 text vectors at unit length; zeros where the bundle keeps texts of another width."""
        width = self.tables.text.shape[1]
        same = added.texts.shape[1] == width
        return unit_length(added.texts) if same else np.zeros((len(added.texts), width), dtype=np.float16)

    def _entities(self, added: EmbeddedItems, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns an item's entities, ascending, and their rarity. An entity without items has that of one item.

        Args:
            added: the embedded items.
            place: the item's place among them.
        """
        tails = added.edges[place].tail
        entities = np.unique(tails[tails < min(len(self.inductive.entities), len(self._rarity))])
        return entities, self._rarity[entities]

    @cached_property
    def _rarity(self) -> np.ndarray:
        """(E,) float32."""
        entities: sp.csr_matrix = self.tables.entities  # of a bundle to which nothing was added
        rarity = np.full(entities.shape[1], np.log(max(1, entities.shape[0])), dtype=np.float32)
        rarity[entities.indices] = entities.data
        return rarity

    def _columns(self, n_entities: int) -> np.ndarray:
        """Returns (6,) ITEM_COLUMNS for an item without interactions.

        A column that is NaN for every item of the bundle stays NaN.

        Args:
            n_entities: entities of the item.
        """
        known: dict[str, Any] = {**dict.fromkeys(ZERO_COLUMNS, 0.0), "entity_count": np.log1p(n_entities)}
        row = [known.get(name, np.nan) if name in self._known_columns else np.nan for name in ITEM_COLUMNS]
        return np.array(row, dtype=np.float32)

    @cached_property
    def _known_columns(self) -> set[str]:
        known = np.isfinite(np.asarray(self.tables.items)).any(axis=0)
        return {name for name, is_known in zip(ITEM_COLUMNS, known.tolist(), strict=True) if is_known}

    def _log_total(self, added: EmbeddedItems, place: int) -> np.ndarray:
        total = self.inductive.readout.shares(added.layers[place, 0], added.edges[place])[1]
        return np.array([total], dtype=np.float32)

    def _near(self, entities: tuple[np.ndarray, np.ndarray], text: np.ndarray) -> dict[str, np.ndarray]:
        """Finds the items nearest by entities and by text, as many as the bundle's items have at most.

        Args:
            entities: (e,) entities of the item and (e,) their rarity.
            text: (t,) text vector, zeros without a text.
        """
        owned, rarity = entities
        length = max(float(np.sqrt(np.square(rarity, dtype=np.float64).sum())), 1e-12)
        row = sp.csr_matrix((rarity / length, owned, [0, len(owned)]), shape=(1, self.tables.entities.shape[1]))
        by_entity = (row @ self._unit_by_entity).toarray()[0] if len(owned) else np.zeros(len(self.bundle.item_ids))
        near, value = _find_largest(by_entity, _max_neighbours(self.tables.entity_neighbours))
        found = {"near_entities": near, "near_entities_by": value}
        by_text = np.zeros(0)
        if self.tables.text_neighbours is not None and text.any():
            by_text = np.empty(len(self.bundle.item_ids), dtype=np.float32)
            for start in range(0, len(by_text), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                by_text[part] = self.tables.text[part].astype(np.float32) @ text.astype(np.float32)
        near, value = _find_largest(by_text, _max_neighbours(self.tables.text_neighbours))
        return {**found, "near_texts": near, "near_texts_by": value}

    @cached_property
    def _unit_by_entity(self) -> sp.csr_matrix:
        """(E, I) csr: the items' rows of rarity weights at unit length."""
        return sp.csr_matrix((sp.diags(1 / self.tables.entity_length) @ self.tables.entities).astype(np.float32).T)


def _max_neighbours(neighbours: Any) -> int:
    """Returns the largest number of neighbours of an item of the bundle."""
    return 1 if neighbours is None else max(1, int(np.diff(neighbours.indptr).max(initial=0)))


def _find_largest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k largest values above 0; ties go to the lower places.

    Args:
        values: (n,) values.
        k: at most so many.
    Returns:
        Their places, ascending, and the values there.
    """
    above = np.flatnonzero(values > 0)
    if len(above) > k:
        least = np.partition(values[above], len(above) - k)[len(above) - k]
        above = above[values[above] >= least]
        above = np.sort(above[np.argsort(-values[above], kind="stable")[:k]])
    return above.astype(np.int64), values[above].astype(np.float32)


def items_table(items: Sequence[Mapping[str, Any]], kinds: ColumnKinds) -> pl.DataFrame:
    """Builds the table that NewItemEmbedder takes. Values that do not fit a column of the bundle become null.

    Args:
        items: column to value of each item.
        kinds: the columns of the bundle's catalog.
    """
    names = dict.fromkeys(name for item in items for name in item)
    columns = {}
    for name in names:
        values = [item.get(name) for item in items]
        if name in kinds.number:
            columns[name] = pl.Series(name, [_number(value) for value in values], dtype=pl.Float64)
        elif name in (*kinds.text, *kinds.categorical):
            columns[name] = pl.Series(name, [v if isinstance(v, str) else None for v in values], dtype=pl.String)
        else:
            lists = [[] if v is None else [str(each) for each in (v if isinstance(v, list) else [v])] for v in values]
            columns[name] = pl.Series(name, lists, dtype=pl.List(pl.String))
    if not columns:  # a table has as many rows as its columns
        columns = {"": pl.Series("", [[] for _ in items], dtype=pl.List(pl.String))}
    return pl.DataFrame(columns)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
