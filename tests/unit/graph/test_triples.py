"""Attributes and outside knowledge as triples: names, bins, links, inverses, pruning, and the counts of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reckg.data.ids import IdMap
from reckg.errors import DataError
from reckg.graph.numbering import number_nodes
from reckg.graph.triples import (
    attribute_triples,
    distinct_triples,
    fold_inverses,
    node_names,
    outside_triples,
    prune_rare,
)
from tests import toy

Rows = list[tuple[str, str, str]]


def triples_of(rows: Rows) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"head": pl.String, "relation": pl.String, "tail": pl.String}, orient="row")


def links_of(rows: list[tuple[str, str]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema={"item_id": pl.String, "entity": pl.String}, orient="row")


# The toy world


def test_the_toy_world_agrees_with_its_hand_worked_answers() -> None:
    history = toy.history()
    assert [tuple(history.items(user)) for user in range(toy.N_USERS)] == list(toy.HISTORY_ITEMS)
    assert np.bincount(toy.ITEM_IDX, minlength=toy.N_ITEMS).tolist() == toy.POPULARITY.tolist()
    assert np.bincount(toy.USER_IDX).tolist() == toy.USER_DEGREE.tolist()
    taken = np.zeros((toy.N_USERS, toy.N_ITEMS), dtype=int)
    taken[toy.USER_IDX, toy.ITEM_IDX] = 1
    assert (taken.T @ taken == toy.COMMON_USERS).all()
    has = np.zeros((toy.N_ITEMS, toy.N_ENTITIES), dtype=int)
    has[toy.TRIPLE_HEAD - toy.N_USERS, toy.TRIPLE_TAIL - toy.N_USERS - toy.N_ITEMS] = 1
    assert (has @ has.T == toy.COMMON_GENRES).all() and has.sum(axis=0).tolist() == toy.ENTITY_DEGREE.tolist()
    assert np.argmax(toy.POPULARITY - 9 * taken, axis=1).tolist() == toy.MOST_POPULAR_UNSEEN.tolist()
    dataset = toy.dataset()
    assert dataset.interactions.collect().height == 8 and dataset.items.collect().height == 5


def test_toy_attributes_become_the_drawn_triples_and_node_numbers() -> None:
    triples, counts = attribute_triples(toy.ITEMS, "item_id", lists=["genres"], max_share=1.0)
    assert triples.rows() == toy.TRIPLES.rows()
    assert counts["triples"] == 6 and counts["columns"]["genres"]["values"] == 3
    numbered = number_nodes(triples, IdMap(toy.USER_IDS), IdMap(toy.ITEM_IDS))
    assert numbered.relations == toy.RELATIONS
    assert numbered.entities["name"].to_list() == list(toy.ENTITIES)
    assert numbered.entities["entity_idx"].to_list() == [0, 1, 2]
    drawn = sorted(zip(toy.TRIPLE_HEAD, toy.TRIPLE_RELATION, toy.TRIPLE_TAIL, strict=True))
    assert sorted(numbered.triples.rows()) == drawn
    assert numbered.triples.dtypes == [pl.Int64] * 3


def test_a_triple_of_an_unknown_item_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 nodes .* 'item_id:ulysses'"):
        number_nodes(toy.TRIPLES, IdMap(toy.USER_IDS), IdMap(toy.ITEM_IDS[:4]))


# Attributes


def test_equal_strings_of_two_columns_and_two_tables_stay_apart() -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "author": ["Rome", "Ann"], "city": ["Rome", "Oslo"]})
    items, _ = attribute_triples(frame, "item_id", categorical=["author", "city"], max_share=1.0)
    assert items.rows() == [
        ("item_id:1", "author", "author:Rome"),
        ("item_id:2", "author", "author:Ann"),
        ("item_id:1", "city", "city:Rome"),
        ("item_id:2", "city", "city:Oslo"),
    ]
    people = frame.rename({"item_id": "user_id"}).drop("author")
    users, _ = attribute_triples(people, "user_id", categorical=["city"], max_share=1.0, prefix="user.")
    assert users.rows() == [
        ("user_id:1", "user.city", "user.city:Rome"),
        ("user_id:2", "user.city", "user.city:Oslo"),
    ]


def test_what_attributes_drop_is_counted() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "language": ["en", "en", "en", None, ""],
            "genres": [["x", "x", "y"], [], None, ["y", None, ""], ["z"]],
        }
    )
    triples, counts = attribute_triples(frame, "item_id", categorical=["language"], lists=["genres"], max_share=0.5)
    assert triples.rows() == [
        ("item_id:a", "genres", "genres:x"),
        ("item_id:a", "genres", "genres:y"),
        ("item_id:d", "genres", "genres:y"),
        ("item_id:e", "genres", "genres:z"),
    ]
    assert counts["columns"]["language"] == {
        "kind": "categorical",
        "rows_without_value": 1,
        "empty_values": 1,
        "repeated": 0,
        "values": 1,
        "too_common_values": 1,
        "too_common_triples": 3,
        "too_common": ["en"],
        "triples": 0,
    }
    assert counts["columns"]["genres"] == {
        "kind": "list",
        "rows_without_value": 2,
        "empty_values": 2,
        "repeated": 1,
        "values": 3,
        "too_common_values": 0,
        "too_common_triples": 0,
        "too_common": [],
        "triples": 4,
    }
    assert counts["rows"] == 5 and counts["triples"] == 4
    json.dumps(counts)


def test_numbers_become_quantile_bins_with_readable_labels() -> None:
    price = [8.5, 3, 5, 12, 9, 20, 7, 4, None, float("nan"), float("inf")]
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(11)], "price": price})
    triples, counts = attribute_triples(frame, "item_id", numbers=["price"], number_bins=4)
    # Sorted: 3 4 5 7 8.5 9 12 20; the lower quantiles at 0, 1/4 .. 1 of 7 steps: places 0 1 3 5 7.
    labels = dict(zip(triples["head"].to_list(), triples["tail"].to_list(), strict=True))
    assert labels == {
        "item_id:i1": "price:[3,4)",
        "item_id:i7": "price:[4,7)",
        "item_id:i2": "price:[4,7)",
        "item_id:i6": "price:[7,9)",
        "item_id:i0": "price:[7,9)",
        "item_id:i4": "price:[9,20]",
        "item_id:i3": "price:[9,20]",
        "item_id:i5": "price:[9,20]",
    }
    assert counts["columns"]["price"]["rows_without_value"] == 3


def test_few_distinct_numbers_keep_their_values_and_large_ones_their_digits() -> None:
    frame = pl.DataFrame(
        {"item_id": ["a", "b", "c"], "flag": [0.0, 1.0, -0.0], "id": [1700000001.0, 1700000002.0, 0.1]}
    )
    triples, _ = attribute_triples(frame, "item_id", numbers=["flag", "id"], max_share=1.0)
    assert triples["tail"].to_list() == ["flag:0", "flag:1", "flag:0", "id:1700000001", "id:1700000002", "id:0.1"]


def test_tied_numbers_that_all_fall_in_one_bin_are_too_common() -> None:
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(12)], "pages": [7.0] * 9 + [8.0, 9.0, 10.0]})
    triples, counts = attribute_triples(frame, "item_id", numbers=["pages"], number_bins=2)
    assert triples.is_empty() and counts["columns"]["pages"]["too_common"] == ["[7,10]"]


def test_no_columns_give_no_triples() -> None:
    triples, counts = attribute_triples(toy.ITEMS, "item_id")
    assert triples.columns == ["head", "relation", "tail"] and triples.is_empty() and counts["columns"] == {}


def test_broken_attribute_tables_are_refused() -> None:
    with pytest.raises(DataError, match=r"\['genre'\] are not in the table"):
        attribute_triples(toy.ITEMS, "item_id", categorical=["genre"])
    with pytest.raises(DataError, match="must not be called"):
        attribute_triples(toy.ITEMS.rename({"title": "outside"}), "item_id", categorical=["outside"])
    with pytest.raises(DataError, match="1 of 2 values of item_id are empty"):
        attribute_triples(pl.DataFrame({"item_id": ["a", None], "x": ["1", "2"]}), "item_id", categorical=["x"])


# Outside knowledge


def test_linked_entities_become_items_and_the_unreachable_is_dropped() -> None:
    facts: Rows = [
        ("Q1", "by", "Ann"),
        ("Q1", "by", "Ann"),
        ("Ann", "from", "Rome"),
        ("Bob", "from", "Oslo"),  # nothing leads there
        ("Q1", "same", "Q1"),
        ("Q9", "by", "Bob"),  # Q9 is the entity of a book that is no candidate
    ]
    links = links_of([("b1", "Q1"), ("b1", "Q1"), ("b2", "Q7"), ("old", "Q9")])
    triples, counts = outside_triples(triples_of(facts).lazy(), links, ["b1", "b2", "b3"])
    assert triples.rows() == [("item_id:b1", "by", "outside:Ann"), ("outside:Ann", "from", "outside:Rome")]
    assert counts == {
        "rows": 6,
        "repeated_rows": 1,
        "self_loops": 1,
        "links": {
            "rows": 4,
            "repeated": 1,
            "of_other_items": 1,
            "entity_not_in_triples": 1,
            "used": 1,
            "items_linked": 1,
            "items_not_linked": 2,
            "items_with_several_entities": 0,
            "entities_with_several_items": 0,
            "entities_of_too_many_items": 0,
            "links_of_too_many_items": 0,
        },
        "added_for_several_items": 0,
        "repeated_after_links": 0,
        "self_loops_after_links": 0,
        "inverses": {},
        "unreachable": {"entities": 3, "triples": 2, "by_relation": {"by": 1, "from": 1}},
        "triples": 2,
        "by_relation": {"by": 1, "from": 1},
    }
    json.dumps(counts)


def test_several_items_of_an_entity_and_several_entities_of_an_item() -> None:
    facts: Rows = [("Q1", "by", "Ann"), ("Q2", "by", "Ann"), ("Q1", "edition_of", "Q2"), ("Q2", "about", "sea")]
    links = links_of([("b1", "Q1"), ("b2", "Q1"), ("b1", "Q2")])  # Q1 is b1 and b2; b1 is Q1 and Q2
    triples, counts = outside_triples(triples_of(facts).lazy(), links, ["b1", "b2"])
    assert triples.rows() == [
        ("item_id:b1", "about", "outside:sea"),
        ("item_id:b1", "by", "outside:Ann"),
        ("item_id:b2", "by", "outside:Ann"),
        ("item_id:b2", "edition_of", "item_id:b1"),
    ]
    assert counts["links"]["items_with_several_entities"] == 1
    assert counts["links"]["entities_with_several_items"] == 1
    assert counts["added_for_several_items"] == 2  # 'by' and 'edition_of' of Q1, once more each
    assert counts["repeated_after_links"] == 1  # b1 by Ann, from Q1 and from Q2
    assert counts["self_loops_after_links"] == 1  # b1 edition_of b1


def test_an_entity_of_too_many_items_stays_an_entity() -> None:
    facts: Rows = [("series", "by", "Ann")]
    links = links_of([("b1", "series"), ("b2", "series"), ("b3", "series")])
    triples, counts = outside_triples(triples_of(facts).lazy(), links, ["b1", "b2", "b3"], max_items_per_entity=2)
    assert triples.rows() == [
        ("outside:series", "by", "outside:Ann"),
        ("item_id:b1", "linked_to", "outside:series"),
        ("item_id:b2", "linked_to", "outside:series"),
        ("item_id:b3", "linked_to", "outside:series"),
    ]
    assert counts["links"]["entities_of_too_many_items"] == 1 and counts["links"]["links_of_too_many_items"] == 3


def test_hops_limit_how_far_the_outside_graph_reaches() -> None:
    facts: Rows = [("Q1", "r", "a"), ("b", "r", "a"), ("b", "r", "c"), ("c", "r", "d")]
    links = links_of([("b1", "Q1")])
    for hops, expected in ((0, 0), (1, 1), (2, 2), (3, 3), (None, 4)):
        triples, counts = outside_triples(triples_of(facts).lazy(), links, ["b1"], max_hops=hops)
        assert triples.height == expected
        assert counts["unreachable"]["triples"] == 4 - expected


def test_an_outside_relation_named_like_an_attribute_is_set_apart() -> None:
    links = links_of([("b1", "Q1")])
    triples, _ = outside_triples(triples_of([("Q1", "author", "Ann")]).lazy(), links, ["b1"], taken=["author"])
    assert triples["relation"].to_list() == ["outside.author"]


def test_empty_ends_of_triples_and_links_are_refused() -> None:
    bad = pl.LazyFrame({"head": ["a", "b", "c"], "relation": ["r"] * 3, "tail": ["x", None, ""]})
    with pytest.raises(DataError, match=r"triples: 2 of 3 values of 'tail' are empty \(first: row 1\)"):
        outside_triples(bad, links_of([]), ["b1"])
    with pytest.raises(DataError, match=r"links: 1 of 1 values of 'entity'"):
        outside_triples(triples_of([]).lazy(), links_of([("b1", "")]), ["b1"])


# Inverses, repeats, rare entities


def test_of_two_inverse_relations_one_stays_and_takes_what_the_other_alone_states() -> None:
    forward: Rows = [(f"item_id:{n}", "film.actor", f"outside:{n % 7}") for n in range(20)]
    backward: Rows = [(tail, "actor.film", head) for head, _, tail in forward]
    backward[0] = ("outside:99", "actor.film", "item_id:3")
    triples, counts = fold_inverses(triples_of(forward + backward))
    assert triples.height == 21 and triples["relation"].unique().to_list() == ["film.actor"]
    assert ("item_id:3", "film.actor", "outside:99") in triples.rows()
    assert counts == {"actor.film": {"inverse_of": "film.actor", "share": 0.95, "pairs": 20, "moved": 1}}


def test_relations_that_share_only_some_pairs_are_no_inverses() -> None:
    forward: Rows = [(f"item_id:{n}", "by", f"outside:{n}") for n in range(20)]
    most: Rows = [(tail, "wrote", head) for head, _, tail in forward[:17]]  # 17 of its 20 pairs, less than nine tenths
    most += [(f"outside:x{n}", "wrote", "outside:y") for n in range(3)]
    few: Rows = [
        (tail, "praised", head) for head, _, tail in forward[:4]
    ]  # all of its pairs, but a fifth of those of 'by'
    symmetric: Rows = [("outside:1", "knows", "outside:2"), ("outside:2", "knows", "outside:1")]
    given = distinct_triples(triples_of(forward + most + few + symmetric))[0]
    triples, counts = fold_inverses(given)
    assert triples.rows() == given.rows() and counts == {}


def test_a_relation_is_not_folded_into_one_that_was_folded_itself() -> None:
    a: Rows = [(f"x{n}", "a", f"y{n}") for n in range(30)]
    b: Rows = [(tail, "b", head) for head, _, tail in a[:29]]
    c: Rows = [(tail, "c", head) for head, _, tail in b[:28]]  # c states what a states; its inverse b is gone
    triples, counts = fold_inverses(triples_of(a + b + c))
    assert list(counts) == ["b"] and counts["b"]["inverse_of"] == "a"
    assert set(triples["relation"]) == {"a", "c"} and triples.height == 30 + 28


def test_repeats_and_self_loops_are_dropped_and_counted() -> None:
    triples, counts = distinct_triples(triples_of([("a", "r", "b"), ("a", "r", "b"), ("c", "r", "c"), ("a", "s", "b")]))
    assert triples.rows() == [("a", "r", "b"), ("a", "s", "b")]
    assert counts == {"rows": 4, "self_loops": 1, "repeated": 1, "triples": 2}


def test_pruning_goes_on_until_nothing_is_rare_and_spares_items() -> None:
    rows: Rows = [
        ("item_id:1", "by", "ann"),
        ("item_id:2", "by", "ann"),
        ("ann", "from", "rome"),
        ("rome", "in", "italy"),  # italy goes first, then rome, then ann is down to two triples
        ("item_id:3", "by", "bob"),
    ]
    keep = node_names(["1", "2", "3"], "item_id")
    triples, counts = prune_rare(triples_of(rows), keep, 2)
    assert triples.rows() == [("item_id:1", "by", "ann"), ("item_id:2", "by", "ann")]
    assert counts == {
        "min_degree": 2,
        "rounds": 2,
        "entities": 3,
        "triples": 3,
        "by_relation": {"by": 1, "from": 1, "in": 1},
        "entities_left": 1,
    }
    assert prune_rare(triples_of(rows), keep, 3)[0].is_empty()
    assert prune_rare(triples_of(rows), keep, 1)[1]["triples"] == 0


def test_freebase_triples_of_movielens(shared_data: Path) -> None:
    folder = shared_data / "ml-100k"
    facts = pl.scan_csv(folder / "ml-100k.kg", separator="\t", new_columns=["head", "relation", "tail"])
    links = pl.scan_csv(folder / "ml-100k.link", separator="\t", new_columns=["item_id", "entity"])
    items = links.collect()["item_id"].cast(pl.String)
    triples, counts = outside_triples(facts, links, items)
    assert counts["rows"] == 91_631 and counts["links"]["items_linked"] == 1598
    assert len(counts["inverses"]) == 9 and all(count["share"] == 1.0 for count in counts["inverses"].values())
    assert counts["inverses"]["film.director.film"]["inverse_of"] == "film.film.directed_by"
    assert triples.height == 91_631 - sum(count["pairs"] for count in counts["inverses"].values())
