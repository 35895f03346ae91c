"""Feature tables: what ranking features need beside a history and the candidates, as of one state of the history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reckg.data.history import History
from reckg.errors import ArtifactError, DataError
from reckg.file_hash import file_sha256
from reckg.ranking.item_item import cooccurrence, linear_weights

FORMAT_VERSION = 1
LINEAR_ITEMS = 5_000  # catalogues above this have no linear score: its inverse costs n_items^3
LINEAR_REGULARISATION = 300.0
LINEAR_ENTRIES = 2_000_000  # the linear model's pruning costs accuracy; small catalogues keep it whole
RECENT_SHARE = 0.1  # of the interactions, the latest: what recent popularity looks at
DAY = 86_400.0

ITEM_COLUMNS = ("popularity", "recent_popularity", "popularity_trend", "item_age", "entity_count")
USER_COLUMNS = ("history_length", "user_recency")


@dataclass(frozen=True)
class FeatureTables:
    """What features need beside the history: everything as of one state of the history.

    users (U, 2) and items (I, 5) float32: USER_COLUMNS and ITEM_COLUMNS. numbers (I, Fn) float32: standardised, NaN
    where unknown. entities (I, E) csr: the rarity weight of each of an item's entities. cooccurrence and linear
    (I, I) csr; linear None above LINEAR_ITEMS items. vectors (I, d) float16: the items' vectors at unit length, or
    None. ordered: whether the order within a history means something.
    """

    users: np.ndarray
    items: np.ndarray
    numbers: np.ndarray
    entities: sp.csr_matrix
    cooccurrence: sp.csr_matrix
    linear: sp.csr_matrix | None
    vectors: np.ndarray | None
    ordered: bool

    def save(self, folder: Path) -> None:
        """Writes ``features.safetensors`` and ``features.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"users": self.users, "items": self.items, "numbers": self.numbers}
        if self.vectors is not None:
            tensors["vectors"] = self.vectors
        for name in ("entities", "cooccurrence", "linear"):
            matrix = getattr(self, name)
            if matrix is not None:
                tensors |= {
                    f"{name}.indptr": matrix.indptr.astype(np.int64),
                    f"{name}.indices": matrix.indices.astype(np.int32),
                    f"{name}.data": matrix.data.astype(np.float32),
                }
        path = folder / "features.safetensors"
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
        description = {
            "format_version": FORMAT_VERSION,
            "columns": [*USER_COLUMNS, *ITEM_COLUMNS],
            "n_users": len(self.users),
            "n_items": len(self.items),
            "n_entities": self.entities.shape[1],
            "linear": self.linear is not None,
            "ordered": self.ordered,
            "sha256": file_sha256(path),
        }
        (folder / "features.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_feature_tables(folder: Path) -> FeatureTables:
    """Reads what ``FeatureTables.save`` wrote.

    Raises:
        ArtifactError: a file is missing, was changed, or is of another version.
    """
    path = folder / "features.safetensors"
    again = "Run 'reckg rank' again."
    try:
        description = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        version, columns, found = description["format_version"], description["columns"], file_sha256(path)
        if (version, columns) != (FORMAT_VERSION, [*USER_COLUMNS, *ITEM_COLUMNS]):
            raise ArtifactError(
                f"{folder} holds tables of format {version} with {len(columns)} columns; this version of reckg reads "
                f"others, of format {FORMAT_VERSION}. {again}"
            )
        if found != description["sha256"]:
            raise ArtifactError(f"{path} is damaged: its sha256 is {found[:12]}, features.json says otherwise. {again}")
        tensors = load_file(path)
        n_items = description["n_items"]
        linear = _matrix(tensors, "linear", (n_items, n_items)) if description["linear"] else None
        return FeatureTables(
            users=tensors["users"],
            items=tensors["items"],
            numbers=tensors["numbers"],
            entities=_matrix(tensors, "entities", (n_items, description["n_entities"])),
            cooccurrence=_matrix(tensors, "cooccurrence", (n_items, n_items)),
            linear=linear,
            vectors=tensors.get("vectors"),
            ordered=description["ordered"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(
            f"feature tables in {folder} cannot be read ({type(error).__name__}: {error}). {again}"
        ) from error


def _matrix(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, int]) -> sp.csr_matrix:
    parts = tuple(tensors[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    matrix = sp.csr_matrix(parts, shape=shape)
    matrix.check_format(full_check=True)
    return matrix


def build_feature_tables(
    history: History,
    *,
    n_users: int,
    n_items: int,
    item_entities: sp.csr_matrix,
    numbers: np.ndarray,
    now: int | None,
    neighbours: int,
    ordered: bool,
    item_vectors: np.ndarray | None = None,
    linear_items: int = LINEAR_ITEMS,
) -> FeatureTables:
    """The tables of a history as it stands.

    Args:
        history: of n_users users; nothing later than ``now``.
        item_entities: (n_items, E): non-zero where the item has the entity.
        numbers: (n_items, Fn) float: number columns, NaN where unknown; Fn may be 0.
        now: epoch seconds, the time of the state; None where the data has no times, or only an order.
        neighbours: entries kept of a row of the co-occurrence matrix.
        ordered: whether the order within a history means something.
        item_vectors: (n_items, d), of the same state; None where there are none, for every state of a run alike.
        linear_items: the linear model is left out (its feature is NaN) in larger catalogues.
    Raises:
        DataError: shapes do not fit, or an interaction is later than ``now``.
    """
    numbers = np.asarray(numbers, dtype=np.float32)
    _check_shapes(history, n_users, n_items, item_entities, numbers, item_vectors)
    if now is not None and len(history.timestamp) and history.timestamp.max() > now:
        late = int((history.timestamp > now).sum())
        raise DataError(
            f"{late} of {len(history.timestamp)} interactions are later than the time of the features "
            f"({int(history.timestamp.max())} > {now}): they would leak into the ranker."
        )
    entities = sp.csr_matrix(item_entities, dtype=np.float32)
    entities.eliminate_zeros()
    entities.sort_indices()
    linear = None
    if n_items <= linear_items:
        kept = max(neighbours, LINEAR_ENTRIES // max(1, n_items))
        linear = linear_weights(history, n_items, LINEAR_REGULARISATION, kept)
    return FeatureTables(
        users=np.column_stack([np.log1p(np.diff(history.indptr)), user_recency(history, now)]).astype(np.float32),
        items=np.column_stack(
            [
                *item_popularity(history, n_items, now),
                item_age(history, n_items, now),
                np.log1p(np.diff(entities.indptr)),
            ]
        ).astype(np.float32),
        numbers=standardised(numbers),
        entities=rarity(entities),
        cooccurrence=cooccurrence(history, n_items, neighbours, ordered),
        linear=linear,
        vectors=None if item_vectors is None else unit_length(item_vectors),
        ordered=ordered,
    )


def _check_shapes(
    history: History,
    n_users: int,
    n_items: int,
    item_entities: sp.csr_matrix,
    numbers: np.ndarray,
    item_vectors: np.ndarray | None,
) -> None:
    if item_vectors is not None and (item_vectors.ndim != 2 or len(item_vectors) != n_items):
        raise DataError(f"features of {n_items} items: their vectors have the shape {item_vectors.shape}.")
    found = (history.n_users, item_entities.shape[0], numbers.ndim, len(numbers))
    if found != (n_users, n_items, 2, n_items):
        raise DataError(
            f"features of {n_users} users and {n_items} items: the history has {found[0]} users, the entities' matrix "
            f"{found[1]} items, the numbers the shape {numbers.shape}. Run 'reckg build-graph' again."
        )


def item_popularity(history: History, n_items: int, now: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(I,) each: log popularity overall, in the latest tenth of the interactions, and the log ratio of the rates."""
    overall = np.bincount(history.item_idx, minlength=n_items)
    nothing = np.full(n_items, np.nan)
    if now is None or not len(history.item_idx):
        return np.log1p(overall), nothing, nothing
    since = np.quantile(history.timestamp, 1 - RECENT_SHARE)
    latest = history.timestamp >= since
    recent = np.bincount(history.item_idx[latest], minlength=n_items)
    return np.log1p(overall), np.log1p(recent), np.log((1 + recent) / (1 + overall * latest.mean()))


def item_age(history: History, n_items: int, now: int | None) -> np.ndarray:
    """(I,) log(1 + days since the item's first interaction); NaN without one, or without times."""
    if now is None:
        return np.full(n_items, np.nan)
    first = np.full(n_items, np.inf)
    np.minimum.at(first, history.item_idx, history.timestamp)
    return np.where(np.isfinite(first), np.log1p((now - np.where(np.isfinite(first), first, now)) / DAY), np.nan)


def user_recency(history: History, now: int | None) -> np.ndarray:
    """(U,) log(1 + days since the user's last interaction); NaN without one, or without times."""
    result = np.full(history.n_users, np.nan)
    if now is not None:
        some = np.diff(history.indptr) > 0
        result[some] = np.log1p((now - history.timestamp[history.indptr[1:][some] - 1]) / DAY)
    return result


def standardised(numbers: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """(I, Fn) float32: every column with mean 0 and standard deviation 1 over its known values; NaN stays NaN.

    like: (m, Fn) numbers whose mean and deviation are taken in place of these.
    """
    like = numbers if like is None else like
    known = np.isfinite(like)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, like, 0).astype(np.float64)
    mean = values.sum(axis=0) / count
    spread = np.sqrt((np.where(known, like - mean, 0) ** 2).sum(axis=0) / count)
    scaled = (numbers - mean) / np.where(spread > 0, spread, 1)
    return np.where(np.isfinite(numbers), scaled, np.nan).astype(np.float32)


def rarity(entities: sp.csr_matrix) -> sp.csr_matrix:
    """(I, E) csr: log(I / items with the entity) in place of every entry. Source: Sparck Jones 1972 (idf)."""
    owners = np.bincount(entities.indices, minlength=entities.shape[1])
    weight = np.log(max(1, entities.shape[0]) / np.maximum(owners, 1)).astype(np.float32)
    return sp.csr_matrix((weight[entities.indices], entities.indices, entities.indptr), shape=entities.shape)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """(I, d) float16: every row at length 1; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float16)
