"""Node numbers: the names of triples become indices in the graph's node order."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from reckg.data.ids import IdMap
from reckg.errors import DataError
from reckg.graph.triples import node_names


@dataclass(frozen=True)
class NumberedTriples:
    """Triples of node indices: users 0..U-1, items U..U+I-1, then entities.

    Args:
        triples: head, relation, tail (int64), relation an index into ``relations``.
        relations: names.
        entities: entity_idx, name; the node of an entity is U + I + entity_idx.
    """

    triples: pl.DataFrame
    relations: tuple[str, ...]
    entities: pl.DataFrame


def number_nodes(triples: pl.DataFrame, user_ids: IdMap, item_ids: IdMap) -> NumberedTriples:
    """Replaces names by node indices. Relations and entities are numbered in the order of their names.

    Args:
        triples: head, relation, tail, names.
        user_ids, item_ids: of the run.
    Raises:
        DataError: a triple names a user or an item that is not in the maps.
    """
    own = pl.concat([node_names(user_ids.ids, "user_id"), node_names(item_ids.ids, "item_id")])
    names = pl.concat([triples["head"], triples["tail"]]).unique().sort()
    entities = names.filter(~names.is_in(own.implode()))
    strangers = entities.filter(entities.str.contains("^(user|item)_id:"))
    if len(strangers):
        raise DataError(
            f"{len(strangers)} nodes of the triples are no users or items of this run (first: {strangers[0]!r}); "
            "make the triples from the same tables."
        )
    nodes = pl.DataFrame({"name": pl.concat([own, entities])}).with_row_index("node")
    relations = triples["relation"].unique().sort()
    order = pl.DataFrame({"relation": relations}).with_row_index("number")
    numbered = (
        triples.join(nodes.rename({"name": "head"}), on="head", maintain_order="left")
        .join(nodes.rename({"name": "tail"}), on="tail", maintain_order="left", suffix="_tail")
        .join(order, on="relation", maintain_order="left")
        .select(head="node", relation="number", tail="node_tail")
        .cast(pl.Int64)
    )
    table = entities.alias("name").to_frame().with_row_index("entity_idx").cast({"entity_idx": pl.Int64})
    return NumberedTriples(numbered, tuple(relations.to_list()), table)
