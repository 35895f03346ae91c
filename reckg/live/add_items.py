"""A bundle with new items: everything grows by rows of its own, and nothing of the bundle is copied or changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from reckg.arrays.extended_array import Array, ExtendedArray
from reckg.arrays.extended_matrix import ExtendedMatrix, extend_matrix
from reckg.bundle.bundle import Bundle
from reckg.data.ids import IdMap
from reckg.errors import DataError
from reckg.inductive.embedder import Inductive, conform_table
from reckg.live.embed_items import NewItemEmbedder
from reckg.live.live_bundle import LiveBundle
from reckg.live.new_item import NewItem
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.retrieval.extended_index import ExtendedIndex


def with_items(bundle: Bundle, new_items: pl.DataFrame) -> LiveBundle:
    """Adds new items at the end of the catalog, to be recommended at once in this process.

    ``manifest["added_items"]`` counts them, and lists by item id the values and columns that the graph does not know.

    Args:
        bundle: a bundle that has a text encoder and graph arrays to embed with.
        new_items: a table with ``item_id`` and any of the catalog's text and attribute columns; further columns as of
            Inductive.embed_items.
    Raises:
        DataError: an id is empty, repeated, or in the bundle already; or as Inductive.embed_items.
        CannotEmbedError: the bundle was built without its folder inductive/.
    """
    inductive = bundle.embedder
    if "item_id" not in new_items.columns:
        raise DataError(f"new items have no column item_id; they have {', '.join(new_items.columns)}.")
    ids = IdMap(new_items["item_id"].cast(pl.String), "new item id").ids.to_list()
    clash = [item_id for item_id in ids if item_id in bundle.item_ids]
    if clash:
        raise DataError(
            f"{len(clash)} of {len(ids)} new items are in the bundle already (first: {clash[0]!r}): leave them out; "
            "'reckg run' takes changes of known items."
        )
    rows = conform_table(new_items, "item_id", inductive.item_kinds, "new items")
    added = NewItemEmbedder(bundle).embed(new_items)
    unknown = {item_id: list(item.unknown) for item_id, item in zip(ids, added, strict=True) if item.unknown}
    digest = hashlib.sha256(repr(ids).encode() + b"".join(item.vector.tobytes() for item in added)).hexdigest()[:8]
    return replace(
        grow(bundle, rows, added),
        version=f"{bundle.version}+{digest}",
        manifest={**bundle.manifest, "added_items": {"items": len(ids), "unknown": unknown}},
    )


def grow(bundle: Bundle, rows: pl.DataFrame, added: Sequence[NewItem]) -> LiveBundle:
    """Adds items at the end of a bundle with NumPy alone; the text encoder is not needed.

    Time and memory grow with the added items and with a few numbers for each item of the bundle.

    Args:
        bundle: the bundle, or a live bundle.
        rows: ``item_id`` and columns of the catalog, a row for each added item. An id that was added before names the
            new row from now on, and the former row is not recommended any more.
        added: the results of NewItemEmbedder, made for ``bundle.built``.
    """
    live = LiveBundle.of(bundle)
    if not added:
        return live
    base, n = live.built, len(live.item_ids)
    former = [idx for item_id in rows["item_id"].to_list() if (idx := live.item_ids.get(item_id)) is not None]
    more = rows.select([name for name in base.items.columns if name in rows.columns])
    before = live.items[len(base.items) :]
    vectors = np.stack([item.vector for item in added])
    return replace(
        live,
        item_ids=live.item_ids.extended(rows["item_id"].to_list()),
        items=pl.concat([base.items, pl.concat([before, more], how="diagonal_relaxed", rechunk=True)], rechunk=False),
        item_vectors=ExtendedArray(live.item_vectors, vectors),  # type: ignore[arg-type]
        index=ExtendedIndex(live.index, vectors),
        features=_extend_tables(live.features, n, added),
        inductive=_extend_inductive(live.embedder, added),
        unavailable=np.union1d(live.unavailable, former).astype(np.int64),
    )


def _extend_inductive(inductive: Inductive, added: Sequence[NewItem]) -> Inductive:
    """Adds items as nodes that histories may hold. Other nodes, and items that are embedded later, do not hear them."""
    arrays, m = dict(inductive.arrays), len(added)
    layers = np.stack([item.layers for item in added])
    arrays["layers"] = tuple(ExtendedArray(nodes, layers[:, n]) for n, nodes in enumerate(arrays["layers"]))
    counts = np.concatenate([item.edge_count for item in added])
    arrays["others"] = ExtendedArray(arrays["others"], counts)
    arrays["interactions"] = ExtendedArray(arrays["interactions"], np.zeros_like(counts))
    if "log_total" in arrays:
        totals = np.concatenate([item.log_total for item in added])
        arrays["log_total"] = ExtendedArray(arrays["log_total"], totals)
    if "linear.source" in arrays:
        nothing = np.zeros((m, arrays["linear.source"].shape[1]), dtype=np.float32)
        arrays["linear.source"] = ExtendedArray(arrays["linear.source"], nothing)
    return inductive.extended(arrays, inductive.info["n_items"] + m)


def _extend_tables(tables: FeatureTables, n: int, added: Sequence[NewItem]) -> FeatureTables:
    """Adds the rows of new items to the feature tables.

    Args:
        tables: tables of n items.
        n: the items of the tables.
        added: the new items.
    """
    m = len(added)
    square = (n + m, n + m)
    place = np.arange(n, n + m)
    length = [np.sqrt(np.square(item.rarity, dtype=np.float64).sum()) or 1 for item in added]
    entities = extend_matrix(
        tables.entities,
        (n + m, tables.entities.shape[1]),
        np.repeat(place, [len(item.entities) for item in added]),
        _concatenate(added, "entities"),
        _concatenate(added, "rarity"),
    )
    return replace(
        tables,
        items=_stack(tables.items, added, "columns"),
        numbers=_stack(tables.numbers, added, "numbers"),
        vectors=_stack(tables.vectors, added, "graph_vector"),
        text=_stack(tables.text, added, "text"),
        factors=ExtendedArray(tables.factors, np.zeros((m, tables.factors.shape[1]), dtype=np.float32)),
        popular=np.append(tables.popular, place),
        popular_score=np.append(tables.popular_score, np.zeros(m, dtype=np.float32)),
        entity_length=np.append(tables.entity_length, np.array(length, dtype=np.float32)),
        entities=entities,
        cooccurrence=extend_matrix(tables.cooccurrence, square),
        walk=extend_matrix(tables.walk, square),
        entity_neighbours=_with_neighbours(tables.entity_neighbours, n, added, "near_entities"),
        linear=None if tables.linear is None else extend_matrix(tables.linear, square),
        text_neighbours=None
        if tables.text_neighbours is None
        else _with_neighbours(tables.text_neighbours, n, added, "near_texts"),
    )


def _with_neighbours(matrix: object, n: int, added: Sequence[NewItem], name: str) -> ExtendedMatrix:
    """Adds each new item's neighbours in its own row, and the new item in its neighbours' rows."""
    item = np.repeat(np.arange(n, n + len(added)), [len(getattr(each, name)) for each in added])
    near, value = _concatenate(added, name), _concatenate(added, f"{name}_by")
    entries = np.concatenate([item, near]), np.concatenate([near, item]), np.concatenate([value, value])
    return extend_matrix(matrix, (n + len(added), n + len(added)), *entries)


def _stack(base: Array, added: Sequence[NewItem], name: str) -> ExtendedArray:
    return ExtendedArray(base, np.stack([getattr(item, name) for item in added]))


def _concatenate(added: Sequence[NewItem], name: str) -> np.ndarray:
    return np.concatenate([getattr(item, name) for item in added])
