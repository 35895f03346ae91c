"""Attributes and outside knowledge as triples (head, relation, tail) of named nodes, with counts of dropped values.

Names are namespaced, so that equal strings of different origin stay apart: ``item_id:b1`` and ``user_id:u1`` (by the
column of the id), ``author:Ann Lee`` (by the attribute column; ``prefix`` sets users' columns apart from items'),
``outside:Q42`` (an entity of the outside knowledge graph). Inverse relations are not made here: the graph adds them.

Every function returns its triples sorted by relation, head and tail, without repeats and self-loops, beside counts
that can be written as JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from reckg.data.schema import TRIPLE_COLUMNS
from reckg.errors import DataError
from reckg.graph.number_bins import NumberBins

OUTSIDE = "outside"
LINKED = "linked_to"  # relation of an item to an outside entity with too many items to be replaced by them
RESERVED = ("item_id", "user_id", OUTSIDE)
INVERSE_SHARE = 0.9
NAMED = 10  # examples that counts name

Counts = dict[str, Any]


def node_names(ids: pl.Series | Sequence[str], column: str) -> pl.Series:
    """Names the nodes of users or items.

    Args:
        ids: (n,) raw ids.
        column: ``user_id`` or ``item_id``.
    Returns:
        (n,) names.
    """
    return (column + ":" + pl.Series("name", ids, dtype=pl.String)).rename("name")


def attribute_triples(
    frame: pl.DataFrame,
    id_column: str,
    *,
    categorical: Sequence[str] = (),
    lists: Sequence[str] = (),
    numbers: Sequence[str] = (),
    number_bins: int = 8,
    max_share: float = 0.5,
    prefix: str = "",
) -> tuple[pl.DataFrame, Counts]:
    """Makes triples from attribute columns: (the row's node, the column, the value).

    Args:
        frame: one row per user or item.
        id_column: ``user_id`` or ``item_id``.
        categorical, lists, numbers: columns of strings, of lists of strings, and of numbers.
        number_bins: numbers become quantile bins, such as ``price:[8.5,12)``; a column of at most this many distinct
            numbers keeps them as they are.
        max_share: a value that more than this share of the rows has is dropped.
        prefix: goes before the column in relations and values, as in ``user.country:France``.
    Returns:
        Triples, and counts: rows, triples, and for each column its kind, rows without a value, empty values, values
        that a row repeats, distinct values, too common values (values, triples, the first names), triples, and the bins
        of numbers.
    Raises:
        DataError: a column is absent or its name is reserved, or an id is missing.
    """
    kinds = dict.fromkeys(categorical, "categorical") | dict.fromkeys(lists, "list") | dict.fromkeys(numbers, "number")
    _check_columns(frame, id_column, [prefix + column for column in kinds], list(kinds))
    head = node_names(frame[id_column], id_column)
    parts = []
    counts: Counts = {"rows": frame.height, "triples": 0, "columns": {}}
    for column, kind in kinds.items():
        pairs = pl.DataFrame({"head": head, "value": frame[column]})
        triples, of_column = _column_triples(pairs, kind, prefix + column, number_bins, max_share)
        parts.append(triples)
        counts["columns"][column] = {"kind": kind, **of_column}
        counts["triples"] += triples.height
    return _sorted(pl.concat([_no_triples(), *parts])), counts


def _check_columns(frame: pl.DataFrame, id_column: str, relations: list[str], columns: list[str]) -> None:
    """Raises DataError for absent columns, reserved names and missing ids."""
    missing = [column for column in (id_column, *columns) if column not in frame.columns]
    if missing:
        raise DataError(f"attribute columns {missing} are not in the table; it has {frame.columns}.")
    reserved = [relation for relation in relations if relation in RESERVED]
    if reserved:
        raise DataError(f"attribute columns must not be called {reserved}: the graph names its nodes so; rename them.")
    empty = int((frame[id_column].is_null() | (frame[id_column].cast(pl.String) == "")).sum())
    if empty:
        raise DataError(f"{empty} of {frame.height} values of {id_column} are empty; give every row an id.")


def _column_triples(
    pairs: pl.DataFrame, kind: str, relation: str, number_bins: int, max_share: float
) -> tuple[pl.DataFrame, Counts]:
    """Makes the triples of a column from (head, value), and its counts."""
    rows = pairs.height
    bin_counts: Counts = {}
    if kind == "number":
        labels, bins = _number_labels(pairs["value"].cast(pl.Float64), number_bins)
        pairs, bin_counts = pairs.with_columns(labels), {"bins": asdict(bins)}
        without = int(pairs["value"].null_count())
    elif kind == "list":
        size = pairs["value"].list.len().fill_null(0)
        without = int((size == 0).sum())
        pairs = pairs.filter(size > 0).explode("value").with_columns(pl.col("value").cast(pl.String))
    else:
        pairs = pairs.with_columns(pl.col("value").cast(pl.String))
        without = int(pairs["value"].null_count())
    given = pairs.height - (0 if kind == "list" else without)
    pairs = pairs.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
    distinct = pairs.unique()
    share = distinct.group_by("value").agg((pl.len() / rows).alias("share"))
    common = share.filter(pl.col("share") > max_share).sort("share", "value", descending=[True, False])
    kept = distinct.join(common, on="value", how="anti")
    triples = kept.select(
        "head", pl.lit(relation).alias("relation"), (pl.lit(relation + ":") + pl.col("value")).alias("tail")
    )
    return triples, {
        "rows_without_value": without,
        "empty_values": given - pairs.height,
        "repeated": pairs.height - distinct.height,
        "values": share.height,
        "too_common_values": common.height,
        "too_common_triples": distinct.height - kept.height,
        "too_common": common["value"].head(NAMED).to_list(),
        "triples": triples.height,
        **bin_counts,
    }


def _number_labels(values: pl.Series, number_bins: int) -> tuple[pl.Series, NumberBins]:
    """Makes labels, null for a number that is missing or not finite, and the bins that they name."""
    numbers = values.fill_null(float("nan")).to_numpy() + 0.0  # no negative zero
    bins = NumberBins.of(numbers[np.isfinite(numbers)], number_bins)
    labels = pl.Series("value", [*bins.labels, None], dtype=pl.String)
    place = bins.places(numbers)
    return labels.gather(pl.Series(np.where(place < 0, len(labels) - 1, place), dtype=pl.Int64)), bins


def outside_triples(
    triples: pl.LazyFrame,
    links: pl.LazyFrame,
    item_ids: pl.Series | Sequence[str],
    *,
    max_items_per_entity: int = 20,
    max_hops: int | None = None,
    taken: Collection[str] = (),
) -> tuple[pl.DataFrame, Counts]:
    """Makes triples of an outside knowledge graph, with linked entities replaced by their items.

    An entity with several items stands for each of them: its triples are repeated. An entity with more than
    ``max_items_per_entity`` stays an entity, and its items get a triple ``linked_to`` it. An item with several entities
    takes the triples of all. Of two relations that state the same pairs in opposite directions one is kept (see
    ``fold_inverses``). Entities without a path from a candidate item are dropped.

    Args:
        triples: head, relation, tail (names of the outside graph).
        links: item_id, entity.
        item_ids: the candidate items; links of others are dropped.
        max_items_per_entity: most items that replace an entity.
        max_hops: keep triples at most this many triples away from an item; None: any distance.
        taken: relation names in use by attributes; an outside relation of the same name becomes ``outside.<name>``.
    Raises:
        DataError: a value of triples or links is missing or empty.
    """
    facts = triples.select(pl.col(name).cast(pl.String) for name in TRIPLE_COLUMNS).collect(engine="streaming")
    pairs = links.select(pl.col(name).cast(pl.String) for name in ("item_id", "entity")).collect(engine="streaming")
    _refuse_empty(facts, "triples")
    _refuse_empty(pairs, "links")
    facts = facts.with_columns(
        pl.when(pl.col("relation").is_in(list(taken)))
        .then(pl.lit(OUTSIDE + ".") + pl.col("relation"))
        .otherwise("relation")
        .alias("relation")
    )
    facts, given = distinct_triples(facts)
    counts: Counts = {
        "rows": given["rows"],
        "repeated_rows": given["repeated"],
        "self_loops": given["self_loops"],
        "links": {},
    }
    pairs, hubs, counts["links"] = _usable_links(pairs, facts, item_ids, max_items_per_entity)
    replaced = _replace_by_items(_replace_by_items(facts, pairs, "head"), pairs, "tail")
    counts["added_for_several_items"] = replaced.height - facts.height
    replaced, merged = distinct_triples(pl.concat([replaced, hubs]))
    counts["repeated_after_links"], counts["self_loops_after_links"] = merged["repeated"], merged["self_loops"]
    replaced, counts["inverses"] = fold_inverses(replaced)
    replaced, counts["unreachable"] = _drop_unreachable(replaced, max_hops)
    counts["triples"] = replaced.height
    counts["by_relation"] = _by_relation(replaced)
    return replaced, counts


def _usable_links(
    links: pl.DataFrame, facts: pl.DataFrame, item_ids: pl.Series | Sequence[str], max_items: int
) -> tuple[pl.DataFrame, pl.DataFrame, Counts]:
    """Selects links that replace entities by items, triples for the entities of too many items, and counts."""
    distinct = links.unique()
    candidates = pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)}).unique()
    known = distinct.join(candidates, on="item_id", how="semi")
    entities = pl.concat([facts["head"], facts["tail"]]).unique().alias("entity").to_frame()
    used = known.join(entities, on="entity", how="semi")
    items_of = used.group_by("entity").agg(pl.len().alias("items"))
    entities_of = used.group_by("item_id").agg(pl.len().alias("entities"))
    hubs = items_of.filter(pl.col("items") > max_items)
    hub_links = used.join(hubs, on="entity", how="semi")
    hub_triples = hub_links.select(
        (pl.lit("item_id:") + pl.col("item_id")).alias("head"),
        pl.lit(LINKED).alias("relation"),
        (pl.lit(OUTSIDE + ":") + pl.col("entity")).alias("tail"),
    )
    return (
        used.join(hubs, on="entity", how="anti"),
        hub_triples,
        {
            "rows": links.height,
            "repeated": links.height - distinct.height,
            "of_other_items": distinct.height - known.height,
            "entity_not_in_triples": known.height - used.height,
            "used": used.height,
            "items_linked": entities_of.height,
            "items_not_linked": candidates.height - entities_of.height,
            "items_with_several_entities": int((entities_of["entities"] > 1).sum()),
            "entities_with_several_items": int((items_of["items"] > 1).sum()),
            "entities_of_too_many_items": hubs.height,
            "links_of_too_many_items": hub_links.height,
        },
    )


def _replace_by_items(facts: pl.DataFrame, links: pl.DataFrame, end: str) -> pl.DataFrame:
    """Renames an end of every triple to nodes: its items (one row each), or the outside entity."""
    node = pl.when(pl.col("item_id").is_not_null()).then(pl.lit("item_id:") + pl.col("item_id"))
    return facts.join(links, left_on=end, right_on="entity", how="left").select(
        node.otherwise(pl.lit(OUTSIDE + ":") + pl.col(end)).alias(name) if name == end else name
        for name in TRIPLE_COLUMNS
    )


def fold_inverses(triples: pl.DataFrame, share: float = INVERSE_SHARE) -> tuple[pl.DataFrame, Counts]:
    """Keeps one of two relations that state the same pairs in opposite directions.

    Relation b is an inverse of a if at least ``share`` of b's pairs, reversed, are pairs of a, and they are at least
    half of a's. The smaller one goes; of two equally large ones the one whose heads are items stays. Pairs that only
    b states are reversed and kept under a, so that no fact is lost. A relation that states both directions of a pair
    by itself stays as it is.

    Args:
        triples: distinct.
        share: least share of common pairs.
    Returns:
        Triples, and counts: for each dropped relation ``{"inverse_of", "share", "pairs", "moved"}``.
    """
    reverse = triples.lazy().select(head="tail", tail="head", inverse="relation")
    both = (
        triples.lazy()
        .join(reverse, on=["head", "tail"])
        .filter(pl.col("relation") != pl.col("inverse"))
        .group_by("relation", "inverse")
        .agg(pl.len().alias("common"))
        .collect(engine="streaming")
    )
    of_item = pl.col("head").str.starts_with("item_id:").sum()
    sizes = {name: row for name, *row in triples.group_by("relation").agg(pl.len(), of_item).iter_rows()}
    counts: Counts = {}
    for kept, dropped, common in both.sort(
        "common", "relation", "inverse", descending=[True, False, False]
    ).iter_rows():
        preferred = (-sizes[kept][0], -sizes[kept][1], kept) < (-sizes[dropped][0], -sizes[dropped][1], dropped)
        enough = common >= share * sizes[dropped][0] and 2 * common >= sizes[kept][0]
        free = kept not in counts and dropped not in counts
        if preferred and enough and free and all(dropped != count["inverse_of"] for count in counts.values()):
            moved = sizes[dropped][0] - common
            counts[dropped] = {
                "inverse_of": kept,
                "share": round(common / sizes[dropped][0], 4),
                "pairs": sizes[dropped][0],
                "moved": moved,
            }
    into = {dropped: count["inverse_of"] for dropped, count in counts.items()}
    gone = pl.col("relation").is_in(list(into))
    turned = triples.filter(gone).select(head="tail", relation=pl.col("relation").replace(into), tail="head")
    return distinct_triples(pl.concat([triples.filter(~gone), turned]))[0], counts


def distinct_triples(triples: pl.DataFrame) -> tuple[pl.DataFrame, Counts]:
    """Drops self-loops and exact repeats. Counts rows, both, and the triples that stay."""
    proper = triples.filter(pl.col("head") != pl.col("tail"))
    out = _sorted(proper.unique())
    return out, {
        "rows": triples.height,
        "self_loops": triples.height - proper.height,
        "repeated": proper.height - out.height,
        "triples": out.height,
    }


def _drop_unreachable(triples: pl.DataFrame, max_hops: int | None) -> tuple[pl.DataFrame, Counts]:
    """Drops triples whose two ends are both too far from any item."""
    names, head, tail = _codes(triples)
    reached = names.str.starts_with("item_id:").to_numpy().copy()
    keep = np.zeros(len(head), dtype=bool)
    hop = 0
    while max_hops is None or hop < max_hops:
        near = (reached[head] | reached[tail]) & ~keep
        if not near.any():
            break
        keep |= near
        reached[head[near]] = reached[tail[near]] = True
        hop += 1
    kept = triples.filter(pl.Series(keep))
    return kept, {
        "entities": int((~reached).sum()),
        "triples": triples.height - kept.height,
        "by_relation": _by_relation(triples.filter(pl.Series(~keep))),
    }


def prune_rare(triples: pl.DataFrame, keep: pl.Series | Sequence[str], min_degree: int) -> tuple[pl.DataFrame, Counts]:
    """Drops entities with fewer than ``min_degree`` triples, until every entity left has as many.

    Args:
        keep: (n,) names of the nodes that are never dropped: users and items.
        min_degree: least number of triples of an entity.
    Returns:
        Triples, and counts: rounds, dropped entities and triples, the triples by relation, and the entities that stay.
    """
    names, head, tail = _codes(triples)
    fixed = names.is_in(pl.Series(keep, dtype=pl.String).unique().implode()).to_numpy()
    alive, loop = np.ones(len(head), dtype=bool), head == tail
    dropped, rounds = np.zeros(len(names), dtype=bool), 0
    while True:
        degree = np.bincount(head[alive], minlength=len(names))
        degree += np.bincount(tail[alive & ~loop], minlength=len(names))
        rare = (degree < min_degree) & ~fixed & ~dropped
        if not rare.any():
            break
        dropped |= rare
        alive &= ~(dropped[head] | dropped[tail])
        rounds += 1
    return _sorted(triples.filter(pl.Series(alive))), {
        "min_degree": min_degree,
        "rounds": rounds,
        "entities": int(dropped.sum()),
        "triples": int((~alive).sum()),
        "by_relation": _by_relation(triples.filter(pl.Series(~alive))),
        "entities_left": int((~dropped & ~fixed).sum()),
    }


def _codes(triples: pl.DataFrame) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """Lists distinct node names, sorted, and the (m,) indices into them of heads and tails."""
    both = pl.concat([triples["head"], triples["tail"]])
    codes = (both.rank("dense").cast(pl.Int64) - 1).to_numpy()
    return both.unique().sort(), codes[: triples.height], codes[triples.height :]


def _by_relation(triples: pl.DataFrame) -> dict[str, int]:
    return dict(triples.group_by("relation").len().sort("relation").iter_rows())


def _sorted(triples: pl.DataFrame) -> pl.DataFrame:
    return triples.sort("relation", "head", "tail")


def _no_triples() -> pl.DataFrame:
    return pl.DataFrame(schema=TRIPLE_COLUMNS)


def _refuse_empty(frame: pl.DataFrame, table: str) -> None:
    """Raises DataError for missing or empty values."""
    for column in frame.columns:
        empty = (frame[column].is_null() | (frame[column] == "")).fill_null(True)
        if empty.any():
            raise DataError(
                f"{table}: {int(empty.sum())} of {frame.height} values of {column!r} are empty "
                f"(first: row {int(empty.arg_max() or 0)}); remove or complete those rows."
            )
