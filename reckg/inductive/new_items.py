"""A bundle with new items: catalogue, vectors, index and feature tables grown by items that nobody has taken yet."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from reckg.data.ids import IdMap
from reckg.errors import DataError
from reckg.inductive.embedder import EmbeddedItems, conformed
from reckg.ranking.columns import row_lengths, standardised, unit_length
from reckg.ranking.item_item import keep_largest
from reckg.ranking.tables import ITEM_COLUMNS, FeatureTables

if TYPE_CHECKING:
    from reckg.bundle import Bundle


def with_items(bundle: Bundle, new_items: pl.DataFrame) -> Bundle:
    """What Bundle.with_items says."""
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
    added = inductive.embed_items(new_items)
    rows = conformed(new_items, "item_id", inductive.item_kinds, "new items")
    same = rows.select([name for name in bundle.items.columns if name in rows.columns])
    items = pl.concat([bundle.items, same], how="diagonal")
    vectors = np.concatenate([bundle.item_vectors, added.vectors])
    said = {item_id: unknown for item_id, unknown in zip(ids, added.unknown, strict=True) if unknown}
    digest = hashlib.sha256(repr(ids).encode() + added.vectors.tobytes()).hexdigest()[:8]
    return replace(
        bundle,
        version=f"{bundle.version}+{digest}",
        manifest={**bundle.manifest, "added_items": {"items": len(ids), "unknown": said}},
        item_ids=IdMap([*bundle.item_ids.ids, *ids], "item id"),
        items=items,
        item_vectors=vectors,
        index=bundle.index.with_vectors(added.vectors),
        features=_grown(bundle, items, added),
        inductive=inductive.with_items(ids, added),
    )


def _grown(bundle: Bundle, items: pl.DataFrame, added: EmbeddedItems) -> FeatureTables:
    """The feature tables with rows of the new items, as of catalogue items without an interaction."""
    tables, n = bundle.features, len(bundle.item_ids)
    columns = bundle.manifest.get("item_columns", {}).get("number", [])
    numbers = np.full((len(added.vectors), tables.numbers.shape[1]), np.nan, dtype=np.float32)
    if len(columns) == numbers.shape[1]:
        given = items.select(pl.col(name).cast(pl.Float32) for name in columns).to_numpy().astype(np.float32)
        numbers = standardised(given[n:], like=given[:n]) if columns else numbers
    entities = _entities(tables.entities, added, len(bundle.embedder.entities))
    known: dict[str, Any] = dict.fromkeys(
        ("popularity", "recent_popularity", "latest_popularity", "popularity_trend"), 0.0
    )
    known["entity_count"] = np.log1p(np.diff(entities.indptr))
    rows = np.full((len(added.vectors), len(ITEM_COLUMNS)), np.nan, dtype=np.float32)
    for position, name in enumerate(ITEM_COLUMNS):
        if name in known and np.isfinite(tables.items[:, position]).any():  # without times, some are of no item
            rows[:, position] = known[name]
    m, all_entities = len(rows), sp.vstack([tables.entities, entities], format="csr")
    text = np.zeros((m, tables.text.shape[1]), dtype=np.float16)
    if added.texts.shape[1] == text.shape[1]:
        text = unit_length(added.texts)
    text = np.concatenate([tables.text, text])
    length = np.concatenate([tables.entity_length, row_lengths(entities)])
    unit = (sp.diags(1 / length) @ all_entities).astype(np.float32).tocsr()
    alike = unit[n:] @ unit.T
    neighbours = max(1, int(np.diff(tables.entity_neighbours.indptr).max(initial=0)))
    by_text = tables.text_neighbours
    if by_text is not None:
        cosine = text[n:].astype(np.float32) @ text.T.astype(np.float32)
        by_text = _joined(by_text, sp.csr_matrix(np.where(cosine > 0, cosine, 0)), neighbours)
    return replace(
        tables,
        items=np.concatenate([tables.items, rows]),
        numbers=np.concatenate([tables.numbers, numbers]),
        vectors=np.concatenate([tables.vectors, unit_length(added.vectors[:, : tables.graph_dim])]),
        text=text,
        factors=np.concatenate([tables.factors, np.zeros((m, tables.factors.shape[1]), dtype=np.float32)]),
        popular=np.concatenate([tables.popular, np.arange(n, n + m)]),
        popular_score=np.concatenate([tables.popular_score, np.zeros(m, dtype=np.float32)]),
        entity_length=length,
        entities=all_entities,
        cooccurrence=_padded(tables.cooccurrence, m),
        walk=_padded(tables.walk, m),
        entity_neighbours=_joined(tables.entity_neighbours, sp.csr_matrix(alike), neighbours),
        attribute_lift=_widened(tables.attribute_lift, m),
        linear=None if tables.linear is None else _padded(tables.linear, m),
        text_neighbours=by_text,
    )


def _joined(matrix: sp.csr_matrix, alike: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """A square matrix of similarities with m more rows and columns, alike (m, I + m): each new item's largest entries,
    in its own row and, but for the other new items, in those of its neighbours."""
    m, n = alike.shape[0], matrix.shape[0]
    row = np.repeat(np.arange(n, n + m), np.diff(alike.indptr))
    alike.data[alike.indices == row] = 0
    kept = keep_largest(alike, neighbours)
    of_known = sp.vstack([kept[:, :n].T, sp.csr_matrix((m, m))])
    more = sp.vstack([sp.csr_matrix((n, n + m)), kept]) + sp.hstack([sp.csr_matrix((n + m, n)), of_known])
    return sp.csr_matrix(_padded(matrix, m) + more)


def _entities(entities: sp.csr_matrix, added: EmbeddedItems, n_entities: int) -> sp.csr_matrix:
    """(m, E) csr: the rarity weights of the new items' entities; of one that no item has, that of a single owner."""
    weight = np.full(entities.shape[1], np.log(max(1, entities.shape[0])), dtype=np.float32)
    weight[entities.indices] = entities.data
    rows = [np.unique(edges.tail[edges.tail < min(n_entities, len(weight))]) for edges in added.edges]
    columns = np.concatenate(rows)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return sp.csr_matrix((weight[columns], columns, indptr), shape=(len(rows), len(weight)))


def _padded(matrix: sp.csr_matrix, more: int) -> sp.csr_matrix:
    """A square matrix with empty rows and columns at the end."""
    indptr = np.concatenate([matrix.indptr, np.full(more, matrix.indptr[-1], dtype=matrix.indptr.dtype)])
    size = matrix.shape[0] + more
    return sp.csr_matrix((matrix.data, matrix.indices, indptr), shape=(size, size))


def _widened(matrix: sp.csr_matrix, more: int) -> sp.csr_matrix:
    """With empty columns at the end."""
    shape = matrix.shape[0], matrix.shape[1] + more
    return sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=shape)
