"""Inductive: the vectors of new items and users, in the space of a bundle's own, in one call and without training.

    inductive/inductive.safetensors   arrays of reckg.inductive.readout, weights of the text and linear parts
    inductive/inductive.json          names, settings
    inductive/entities.parquet        the graph's entities in node order
    text_encoder/                     beside it, where the model reads texts

The arrays are mapped into memory, so that processes on a machine share them. torch is imported when the first
text is encoded.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from reckg.data.columns import conform_attributes
from reckg.data.item_texts import item_texts
from reckg.data.schema import ColumnKinds
from reckg.data.text_table import ROW, Table
from reckg.errors import ArtifactError, DataError
from reckg.files.atomic_folder import FileRecord, files_sha256
from reckg.graph.number_bins import NumberBins
from reckg.graph.recency import recency_weights
from reckg.inductive.attributes import Attributes, Vocabulary, as_text, listed
from reckg.inductive.info import InductiveInfo
from reckg.inductive.readout import Edges, Readout, unit
from reckg.model.linear.content import Content, NewItems, equalize_lengths

if TYPE_CHECKING:
    from reckg.model.text.encode import Encoder

ENCODER = "text_encoder"  # the folder of a bundle
USER_PREFIX = "user."  # before users' columns in the graph
KINDS = ("text", "categorical", "number", "list")


@dataclass(frozen=True)
class EmbeddedItems:
    """n embedded items.

    vectors (n, D) float32, unit length. unknown: n lists of values and columns that the graph does not know. layers
    (n, L + 1, d) and n edges: the items' places in the graph. texts (n, t): text vectors, zeros without a text.
    """

    vectors: np.ndarray
    unknown: list[list[str]]
    layers: np.ndarray
    edges: list[Edges]
    texts: np.ndarray


class Inductive:
    """Everything that new nodes are embedded with.

    Args:
        arrays: as reckg.model.joint.inductive_arrays gives them.
        info: settings and names.
        entities: their names in node order. item_ids: in item_idx order.
        folder: where it was read from; None: items were added.
        encoder: folder of the text encoder.
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        info: InductiveInfo,
        entities: Sequence[str],
        item_ids: Sequence[str],
        folder: Path | None,
        encoder: Path | None,
    ) -> None:
        self.arrays, self.info, self.entities = arrays, info, entities
        self.folder, self.encoder_folder = folder, encoder
        relations = ("interact", *info["relations"])
        self.readout = Readout(arrays, len(relations), info["aggregator"], info["combine"], info["interaction_share"])
        self.item_kinds, self.user_kinds = (
            ColumnKinds(**{kind: tuple(names) for kind, names in columns.items()})
            for columns in (info["item_columns"], info["user_columns"])
        )
        known = {*self.item_kinds.all(), *(USER_PREFIX + name for name in self.user_kinds.all())}
        self.vocabulary = Vocabulary(
            relations,
            {name: node for node, name in enumerate(entities)},
            {name: node for node, name in enumerate(item_ids, start=len(entities))},
            frozenset(known),
            {name: NumberBins(tuple(bins["points"]), bins["exact"]) for name, bins in info["numbers"].items()},
        )

    @property
    def dim(self) -> int:
        """D, of the vectors."""
        layers, dim = len(self.arrays["layers"]), self.readout.dim
        graph = (layers + 1) * dim if self.info["combine"] == "concat" else dim
        linear = self.arrays["linear.source"].shape[1] + 1 if "linear.source" in self.arrays else 0
        return graph + linear + ("new.level" in self.arrays)

    def problems(self, n_users: int, n_items: int, dim: int) -> list[str]:
        """Lists differences from a bundle of these sizes.

        Args:
            n_users, n_items: of the bundle.
            dim: dimensions of the bundle's vectors.
        """
        found, expected = (self.info["n_users"], self.info["n_items"], self.dim), (n_users, n_items, dim)
        nodes = len(self.entities) + n_items
        if found != expected or len(self.arrays["layers"][0]) != nodes:
            return [f"inductive.safetensors is of {found} users, items and dimensions, the bundle of {expected}"]
        return []

    def encoder_problems(self, files: Mapping[str, FileRecord]) -> list[str]:
        """Checks that a bundle holds the text encoder that the model was trained with.

        Args:
            files: the described files of the bundle.
        """
        text = self.info["text"]
        expected = None if text is None else text.get("encoder_sha256")  # older bundles lack it
        if expected in (None, files_sha256(files, f"{ENCODER}/")):
            return []
        return [f"{ENCODER} is not the text encoder that the model was trained with"]

    def embed_items(self, items: pl.DataFrame | Sequence[tuple[str, Attributes]]) -> EmbeddedItems:
        """Embeds n items that the graph does not have, in one call.

        Args:
            items: a table with any of the catalog's text and attribute columns; a column that is a relation of the
                outside graph holds names of that graph, or item ids (``^relation``: the item is the tail). Or (text,
                attributes by column) for each item.
        Raises:
            DataError: a column is of another kind than the catalog's; or an item has neither a text that the model
                reads nor an attribute that the graph knows.
        """
        frame, attributes = self._rows(items)
        with_attributes = bool(self.info["text"] and self.info["text"]["attributes"])
        texts = self._encode_texts(item_texts(frame, self.info["item_columns"], with_attributes))
        edges, unknown = zip(*(self.vocabulary.edges(row) for row in attributes), strict=True)
        if self.info["text"] is None and not isinstance(items, pl.DataFrame):
            for names, (text, _) in zip(unknown, items, strict=True):
                names += ["text"] if text else []
        empty = [n for n in range(len(edges)) if not len(edges[n]) and not texts[n].any()]
        if empty:
            lack = "neither a text nor an attribute value" if self.info["text"] else "no attribute value"
            raise DataError(
                f"{len(empty)} of {len(edges)} new items have {lack} that the model knows (first: row {empty[0] + 1}; "
                f"unknown: {', '.join(unknown[empty[0]]) or 'nothing given'}): complete them, or leave them out."
            )
        layers = [self.readout.layers(own, edge) for own, edge in zip(self._project_texts(texts), edges, strict=True)]
        vectors = [self._item(each, text, edge) for each, text, edge in zip(layers, texts, edges, strict=True)]
        return EmbeddedItems(np.stack(vectors), list(unknown), np.stack(layers), list(edges), texts)

    def embed_user(
        self,
        items: np.ndarray,
        attributes: Attributes | None = None,
        user_idx: int | None = None,
        weights: np.ndarray | None = None,
    ) -> tuple[np.ndarray, list[str]]:
        """Embeds a user. Returns a (D,) unit vector, zeros without items and attributes, and the unknown attributes.

        Args:
            items: (m,) item_idx of the whole history, oldest first; an item that is there twice counts twice.
            user_idx: of a user whom the graph has: with the ID vector and the attributes of training, where
                ``attributes`` has no value for the column.
            weights: (m,) of the items, 1 on average. None: all 1.
        """
        edges, unknown = self.vocabulary.edges(attributes or {}, USER_PREFIX)
        own = np.zeros(self.readout.dim, dtype=np.float32)
        if user_idx is not None:
            edges = edges.joined(self._select_user_edges(user_idx, edges.relation))
            own = self.arrays["user_inputs"][user_idx] if "user_inputs" in self.arrays else own
        items = np.asarray(items, dtype=np.int64)
        recency = recency_weights(np.zeros(len(items), dtype=np.int64), self.info["half_life"])
        amount = np.ones(len(items)) if weights is None else np.asarray(weights, dtype=np.float64)
        taken, where = np.unique(items, return_inverse=True)
        weight = np.bincount(where, weights=recency * amount, minlength=len(taken))
        count = np.bincount(where, weights=amount, minlength=len(taken))
        edges = Edges(np.zeros(len(taken), dtype=np.int64), taken + len(self.entities), count, weight).joined(edges)
        if not len(edges) and not own.any():
            return np.zeros(self.dim, dtype=np.float32), unknown
        vector = self.readout.combined(self.readout.layers(own, edges))
        if "linear.source" in self.arrays:
            linear = unit(np.einsum("m,mr->r", weight, self.arrays["linear.source"][taken]))
            level = [1] if "new.level" in self.arrays else []
            vector = unit(np.concatenate([vector, linear, level, [0]]))
        return vector, unknown

    def extended(self, arrays: Mapping[str, Any], n_items: int) -> Inductive:
        """Returns a copy with other arrays. The copy cannot be saved.

        Args:
            arrays: as of the constructor, with rows of added items.
            n_items: items among the nodes.
        """
        copied = copy.copy(self)
        copied.arrays, copied.folder = arrays, None
        copied.info = {**self.info, "n_items": n_items}
        copied.readout = replace(self.readout, arrays=arrays)
        return copied

    def _item(self, layers: np.ndarray, text: np.ndarray, edges: Edges) -> np.ndarray:
        """Combines an item's layers and its linear columns, which are computed from its text and edges.

        Args:
            layers: (L + 1, d) the item's layers.
            text: (t,) its text vector.
            edges: its edges.
        Returns:
            (D,) unit vector.
        """
        vector = self.readout.combined(layers)
        if "linear.source" not in self.arrays:
            return vector
        columns = np.zeros((1, self.arrays["linear.source"].shape[1]), dtype=np.float32)
        if self._content is not None:
            row = np.zeros(len(edges), dtype=np.int64)
            text = text[None, : len(self._content.by_text)]
            columns = self._content.columns(row, edges.relation, edges.tail, text)
        own, linear = self.arrays.get("new.scales", (1.0, 1.0))
        new = NewItems(float(own), float(linear), np.asarray(self.arrays.get("new.level", 0.0)).item())
        placed = new.place(vector[None], columns)
        if "new.level" not in self.arrays:  # a bundle of an older reckg shifts new items along the mean user
            placed = placed[:, :-1] + self.arrays.get("new.shift", np.zeros(1, dtype=np.float32))
        return np.asarray(equalize_lengths(placed, self.arrays["linear.longest"].item())[0])

    @cached_property
    def _content(self) -> Content | None:
        parts = {name.split(".")[1]: array for name, array in self.arrays.items() if name.startswith("content.")}
        return Content(**parts, weights={}) if parts else None

    def _select_user_edges(self, user_idx: int, given: np.ndarray) -> Edges:
        """Returns the attribute edges of a user of the graph, except those of the given relations."""
        rows = slice(*self.arrays["user_edges.indptr"][user_idx : user_idx + 2].tolist())
        relation, tail = self.arrays["user_edges.relation"][rows], self.arrays["user_edges.tail"][rows]
        if len(given):
            kept = ~np.isin(relation, given)
            relation, tail = relation[kept], tail[kept]
        ones = np.ones(len(tail))
        return Edges(relation, tail, ones, ones)

    def _rows(
        self, items: pl.DataFrame | Sequence[tuple[str, Attributes]]
    ) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
        """Casts the items' known columns to the catalog's types, and lists the attributes of each item."""
        kinds, n = self.item_kinds, len(items)
        if not isinstance(items, pl.DataFrame):
            items = _as_frame(items, kinds)
        given = items.drop("item_id", strict=False)
        numbered = pl.DataFrame({"item_id": range(n)}).hstack(given)
        frame = conform_table(numbered, "item_id", kinds, "new items")
        others = [name for name in given.columns if name not in kinds.all()]
        attributes = frame.drop("item_id", *kinds.text, strict=False).hstack(given.select(others))
        return frame, attributes.to_dicts()

    def _project_texts(self, texts: np.ndarray) -> np.ndarray:
        """Projects (n, t) text vectors to (n, d) inputs of the propagation, as JointModel.project_text."""
        if self.info["text"] is None:
            return np.zeros((len(texts), self.readout.dim), dtype=np.float32)
        gate = texts @ self.arrays["text_gate.weight"].T + self.arrays["text_gate.bias"]
        projected = texts @ self.arrays["text_projection.weight"].T
        return np.asarray(projected / (1 + np.exp(-gate)), dtype=np.float32)

    def _encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes n texts. Returns (n, t) float32, zeros for an empty text or a model without texts."""
        if self.info["text"] is None:
            return np.zeros((len(texts), 1), dtype=np.float32)
        if not any(texts):
            return np.zeros((len(texts), self.arrays["text_projection.weight"].shape[1]), dtype=np.float32)
        return self._encoder.vectors(texts)

    @cached_property
    def _encoder(self) -> Encoder:
        from reckg.model.text.encode import Encoder

        text = self.info["text"]
        if text is None or self.encoder_folder is None or not self.encoder_folder.is_dir():
            raise ArtifactError(
                f"the model reads texts, but {self.encoder_folder}, its encoder, is missing: run 'reckg bundle' again."
            )
        return Encoder(self.encoder_folder, text["max_tokens"])


def conform_table(frame: pl.DataFrame, key: str, kinds: ColumnKinds, label: str) -> pl.DataFrame:
    """Casts and checks columns as those of a dataset folder.

    Args:
        frame: a table.
        key: its id column.
        kinds: the known columns by kind; other columns are left out.
        label: names the table in messages.
    Raises:
        DataError: a column is of another kind, or an id is missing or repeated.
    """
    there = {kind: tuple(c for c in getattr(kinds, kind) if c in frame.columns) for kind in KINDS}
    table = Table(frame.with_row_index(ROW, 1).lazy(), label)
    lazy, _ = conform_attributes(table, key, ColumnKinds(**there), [])
    assert lazy is not None
    return lazy.collect()


def _as_frame(items: Sequence[tuple[str, Attributes]], kinds: ColumnKinds) -> pl.DataFrame:
    """Makes a table of (text, attributes): the text in the first text column, every value as a string."""
    columns: dict[str, list[Any]] = {kinds.text[0]: [text for text, _ in items]} if kinds.text else {}
    names = dict.fromkeys(name for _, attributes in items for name in attributes)
    for name in names:
        if name in columns and any(text and attributes.get(name) for text, attributes in items):
            raise DataError(f"an item's text is given twice, as its text and as its {name!r}: give it once.")
        values = [attributes.get(name) for _, attributes in items]
        if name in (*kinds.text, *kinds.categorical, *kinds.number):
            beside = columns.get(name, [None] * len(values))
            columns[name] = [
                other if value is None else as_text(value) for value, other in zip(values, beside, strict=True)
            ]
        else:
            lists = [[] if value is None else [as_text(v) for v in listed(value)] for value in values]
            columns[name] = lists
    return pl.DataFrame({name: pl.Series(name, values) for name, values in columns.items()})
