"""NewItem: the rows of an item that the model was not trained with, as arrays and as bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reckg.bundle.bundle import Bundle
from reckg.errors import ArtifactError
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS


@dataclass(frozen=True, eq=False)
class NewItem:
    """One item as rows of a bundle's parts.

    float32: vector (D,); layers (L, d), edge_count (1,) and log_total (1,), its place in the graph; columns (6,),
    ITEM_COLUMNS; numbers (Fn,); rarity (e,) of its entities; near_entities_by (a,) and near_texts_by (b,),
    similarities. float16 at unit length: graph_vector (graph_dim,), text (t,). int64: entities (e,); near_entities (a,)
    and near_texts (b,), the bundle's items with these similarities. unknown: values and columns that the graph does not
    know.
    """

    vector: np.ndarray
    layers: np.ndarray
    edge_count: np.ndarray
    log_total: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray
    graph_vector: np.ndarray
    text: np.ndarray
    entities: np.ndarray
    rarity: np.ndarray
    near_entities: np.ndarray
    near_entities_by: np.ndarray
    near_texts: np.ndarray
    near_texts_by: np.ndarray
    unknown: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Writes the arrays as safetensors, and the unknown values as JSON in one more array."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}
        unknown = np.frombuffer(json.dumps(self.unknown).encode(), dtype=np.uint8)
        return bytes(save({**tensors, "unknown": unknown}))

    @classmethod
    def from_bytes(cls, data: bytes, bundle: Bundle) -> NewItem:
        """Reads the bytes of ``to_bytes``.

        Args:
            data: the bytes.
            bundle: the bundle that the item was embedded for.
        Raises:
            ArtifactError: the bytes are damaged, or do not fit the bundle.
        """
        try:
            tensors = load(data)
            unknown = tuple(json.loads(tensors.pop("unknown").tobytes()))
            item = cls(**tensors, unknown=unknown)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"an embedded item cannot be read: {error!r}.") from error
        if problem := item._problem(bundle):
            raise ArtifactError(f"an embedded item does not fit bundle {bundle.version!r}: {problem}.")
        return item

    def _problem(self, bundle: Bundle) -> str:
        tables, n_items = bundle.features, len(bundle.item_ids)
        layers = bundle.embedder.arrays["layers"]
        pairs = (len(self.entities), len(self.near_entities), len(self.near_texts))
        shapes = {
            "vector": (bundle.item_vectors.shape[1],),
            "layers": (len(layers), layers[0].shape[1]),
            "edge_count": (1,),
            "log_total": (1,),
            "columns": (len(ITEM_COLUMNS),),
            "numbers": (tables.numbers.shape[1],),
            "graph_vector": (tables.graph_dim,),
            "text": (tables.text.shape[1],),
            **{f"{name}": (n,) for name, n in zip(("rarity", "near_entities_by", "near_texts_by"), pairs, strict=True)},
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype not in (np.float32, np.float16):
                return f"{name} is {array.dtype} of shape {array.shape}, expected {shape}"
        if not all(np.isfinite(part).all() for part in (self.vector, self.layers, self.graph_vector, self.text)):
            return "it holds values that are not finite"
        for name, size in (("entities", tables.entities.shape[1]), ("near_entities", n_items), ("near_texts", n_items)):
            array = getattr(self, name)
            if (
                array.dtype != np.int64
                or array.ndim != 1
                or (len(array) and not 0 <= array.min() <= array.max() < size)
            ):
                return f"{name} are not numbers below {size}"
        return ""


ARRAYS = tuple(field.name for field in fields(NewItem) if field.name != "unknown")
