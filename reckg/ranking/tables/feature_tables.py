"""Feature tables: the inputs of ranking beside a history and the candidates, as of a state of the history."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from reckg.arrays.extended_array import Array, ExtendedArray
from reckg.data.schema import Target
from reckg.errors import ArtifactError
from reckg.files.file_hash import file_sha256
from reckg.files.mapped_tensors import Layout, check_tensors, mapped_tensors, write_tensors
from reckg.ranking.tables.item_item import Order
from reckg.ranking.tables.row_sums import Matrix
from reckg.retrieval.exact import longest_vector

FORMAT_VERSION = 2
ITEM_COLUMNS = (
    "popularity",
    "recent_popularity",
    "latest_popularity",
    "popularity_trend",
    "item_age",
    "entity_count",
)
USER_COLUMNS = ("history_length", "user_recency")
MATRICES = ("entities", "cooccurrence", "walk", "linear", "entity_neighbours", "text_neighbours")
LAYOUT: Layout = {
    "users": ("float32", ("users", len(USER_COLUMNS))),
    "items": ("float32", ("items", len(ITEM_COLUMNS))),
    "numbers": ("float32", ("items", "numbers")),
    "vectors": ("float16", ("items", "graph dimensions")),
    "text": ("float16", ("items", "text dimensions")),
    "factors": ("float32", ("items", "factors")),
    "factor_gram": ("float64", ("factors", "factors")),
    "event_keys": ("int64", ("events",)),
    "event_times": ("int64", ("events",)),
    "popular": ("int64", ("items",)),
    "popular_score": ("float32", ("items",)),
    "entity_length": ("float32", ("items",)),
}
OPTIONAL = ("linear.", "text_neighbours.")


@dataclass(frozen=True)
class FeatureTables:
    """The inputs of features beside the history, as of a state. U users, I items, E entities.

    Args:
        order: order of histories and of the predicted items (item_item.Order).
        now: epoch seconds of the state; None for data without times, and in tables of an older reckg whose order is not
            "between".
        graph_dim: leading dimensions of the vectors that are the graph model's; the others are its linear part.
        users, items: (U, 2) and (I, 6) float32: USER_COLUMNS and ITEM_COLUMNS.
        numbers: (I, Fn) float32: standardised, NaN for unknown values.
        vectors: (I, graph_dim) float16: the graph's part of the items' vectors at unit length.
        text: (I, t) float16 at unit length or zeros; t = 0 without texts.
        factors: (I, f) float32; f = 0 without.
        factor_gram: (f, f) float64.
        event_keys, event_times: (n,) int64, as columns.event_keys, and sorted times; empty unless order is "between"
            and times are known.
        popular: (I,) int64: item_idx by falling popularity, recent if times are known, equal ones by popularity
            overall.
        popular_score: (I,) float32: the popularity behind the order.
        entities: (I, E) csr: the rarity weight of each of an item's entities.
        entity_length: (I,) float32: the length of its row, 1 for an empty row.
        cooccurrence, walk, entity_neighbours: (I, I) csr.
        linear, text_neighbours: (I, I) csr, or None.
        user_entities: (U, E) csr of ones.
        attribute_lift: (E, I) csr.
        target: the question: new items, any, or those that come again.
        own: items of a user's history may be candidates, so that the user's own rhythm counts.
        weighted: the weights of histories count; tables of an older reckg ignore them.
    """

    order: Order
    now: int | None
    graph_dim: int
    users: np.ndarray
    items: Array
    numbers: Array
    vectors: Array
    text: Array
    factors: Array
    factor_gram: np.ndarray
    event_keys: np.ndarray
    event_times: np.ndarray
    popular: np.ndarray
    popular_score: np.ndarray
    entity_length: np.ndarray
    entities: Matrix
    cooccurrence: Matrix
    walk: Matrix
    entity_neighbours: Matrix
    user_entities: sp.csr_matrix
    attribute_lift: sp.csr_matrix
    linear: Matrix | None
    text_neighbours: Matrix | None
    target: Target = "new"
    own: bool = False
    weighted: bool = False

    @cached_property
    def longest_factor(self) -> float:
        """Length of the longest item factor, for the search over them."""
        return longest_vector(self.factors.base if isinstance(self.factors, ExtendedArray) else self.factors)

    def save(self, folder: Path) -> None:
        """Writes ``features.safetensors`` and ``features.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, np.ndarray] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                tensors[field.name] = value
            elif isinstance(value, sp.csr_matrix):
                tensors |= {
                    f"{field.name}.indptr": value.indptr.astype(np.int64),
                    f"{field.name}.indices": value.indices.astype(np.int32),
                    f"{field.name}.data": value.data.astype(np.float32),
                }
        path = folder / "features.safetensors"
        write_tensors(path, tensors)
        description = {
            "format_version": FORMAT_VERSION,
            "columns": [*USER_COLUMNS, *ITEM_COLUMNS],
            "order": self.order,
            "now": self.now,
            "graph_dim": self.graph_dim,
            "target": self.target,
            "own": self.own,
            "weighted": self.weighted,
            "n_users": len(self.users),
            "n_items": len(self.items),
            "n_entities": self.entities.shape[1],
            "n_user_entities": self.user_entities.shape[1],
            "sha256": file_sha256(path),
        }
        (folder / "features.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_feature_tables(folder: Path, *, checked: bool = False) -> FeatureTables:
    """Reads tables that ``FeatureTables.save`` wrote. The arrays are memory-mapped.

    Args:
        checked: the caller has checked the folder's files; otherwise the hash of the arrays is checked here.
    Raises:
        ArtifactError: a file is missing, was changed, or is of another version.
    """
    path = folder / "features.safetensors"
    again = "Run 'reckg rank' again."
    try:
        description = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        version, columns = description["format_version"], description["columns"]
        if (version, columns) != (FORMAT_VERSION, [*USER_COLUMNS, *ITEM_COLUMNS]):
            raise ArtifactError(
                f"{folder} holds tables of format {version} with {len(columns)} columns; this version of reckg reads "
                f"others, of format {FORMAT_VERSION}. {again}"
            )
        if not checked and (found := file_sha256(path)) != description["sha256"]:
            raise ArtifactError(f"{path} is damaged: its sha256 is {found[:12]}, features.json says otherwise. {again}")
        tensors = mapped_tensors(path)
        n_users, n_items, n_entities = (description[f"n_{name}"] for name in ("users", "items", "entities"))
        shapes = {name: (n_items, n_items) for name in MATRICES} | {
            "entities": (n_items, n_entities),
            "user_entities": (n_users, description["n_user_entities"]),
            "attribute_lift": (description["n_user_entities"], n_items),
        }
        _check_layout(path, tensors, n_users, n_items, shapes)
        matrices = {name: _matrix(tensors, name, shape) for name, shape in shapes.items()}
        arrays = {name: tensor for name, tensor in tensors.items() if "." not in name}
        now = description.get("now", int(arrays["event_times"][-1]) if len(arrays["event_times"]) else None)
        question = {name: description[name] for name in ("target", "own", "weighted") if name in description}
        parts: dict[str, Any] = {**arrays, **matrices, **question}
        return FeatureTables(description["order"], now, description["graph_dim"], **parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"feature tables in {path} cannot be read ({type(error).__name__}: {error}). {again}"
        ) from error


def _check_layout(
    path: Path, tensors: dict[str, np.ndarray], n_users: int, n_items: int, shapes: dict[str, tuple[int, int]]
) -> None:
    """Raises ArtifactError for a tensor whose name, dtype or shape is not as ``save`` writes it."""
    layout = dict(LAYOUT)
    for name, (rows, _) in shapes.items():
        layout[f"{name}.indptr"] = "int64", (rows + 1,)
        layout[f"{name}.indices"] = "int32", (f"entries of {name}",)
        layout[f"{name}.data"] = "float32", (f"entries of {name}",)
    check_tensors(path, tensors, layout, {"users": n_users, "items": n_items}, OPTIONAL)


def _matrix(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, int]) -> sp.csr_matrix | None:
    if f"{name}." in OPTIONAL and f"{name}.data" not in tensors:
        return None
    parts = tuple(tensors[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    matrix = sp.csr_matrix(parts, shape=shape)
    matrix.check_format(full_check=True)
    return matrix
