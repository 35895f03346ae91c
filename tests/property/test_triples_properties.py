"""Properties of triples for any attributes, facts and links."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.data.ids import IdMap
from reckg.graph.numbering import number_nodes
from reckg.graph.triples import attribute_triples, fold_inverses, node_names, outside_triples, prune_rare

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f", "Q1", "Q2", "Q3"])
FACTS = st.lists(st.tuples(NAMES, st.sampled_from(["r", "s", "t"]), NAMES), max_size=40)
LINKS = st.lists(st.tuples(st.sampled_from(["1", "2", "3", "9"]), NAMES), max_size=8)
ITEMS = ["1", "2", "3", "4"]
SCHEMA = {"head": pl.String, "relation": pl.String, "tail": pl.String}


def triples_of(rows: list[tuple[str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def links_of(rows: list[tuple[str, str]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema={"item_id": pl.String, "entity": pl.String}, orient="row")


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float)), min_size=1, max_size=40),
    bins=st.integers(2, 6),
)
def test_every_finite_number_is_in_the_bin_that_its_label_names(values: list[float | None], bins: int) -> None:
    frame = pl.DataFrame({"item_id": [str(n) for n in range(len(values))], "x": pl.Series(values, dtype=pl.Float64)})
    triples, counts = attribute_triples(frame, "item_id", numbers=["x"], number_bins=bins, max_share=1.0)
    labels = dict(zip(triples["head"], triples["tail"], strict=True))
    for n, value in enumerate(values):
        label = labels.pop(f"item_id:{n}", None)
        if value is None or value != value or abs(value) == float("inf"):
            assert label is None
            continue
        assert label is not None
        text = label.removeprefix("x:")
        if text.startswith("["):
            low, high = (float(part) for part in text[1:-1].split(","))
            assert low <= value < high or (text.endswith("]") and value == high)
        else:
            assert float(text) == value
    assert not labels
    assert counts["columns"]["x"]["values"] <= bins
    assert counts["columns"]["x"]["triples"] + counts["columns"]["x"]["rows_without_value"] == len(values)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from(["", "x", "y", "z"])))), max_size=20
    ),
    max_share=st.floats(0.05, 1.0),
)
def test_list_members_are_kept_or_counted(rows: list[list[str | None] | None], max_share: float) -> None:
    frame = pl.DataFrame(
        {"item_id": [str(n) for n in range(len(rows))], "tags": pl.Series(rows, dtype=pl.List(pl.String))}
    )
    triples, counts = attribute_triples(frame, "item_id", lists=["tags"], max_share=max_share)
    count = counts["columns"]["tags"]
    members = [(n, member) for n, row in enumerate(rows) for member in row or ()]
    dropped = count["empty_values"] + count["repeated"] + count["too_common_triples"]
    assert triples.height == count["triples"] == len(members) - dropped
    assert count["rows_without_value"] == sum(not row for row in rows)
    holders = {m: sum(m in (row or ()) for row in rows) for m in ("x", "y", "z")}
    for member, number in holders.items():
        kept = triples.filter(pl.col("tail") == f"tags:{member}").height
        assert kept == (0 if rows and number / len(rows) > max_share else number)


@settings(max_examples=80, deadline=None)
@given(facts=FACTS, links=LINKS, limit=st.integers(1, 3))
def test_outside_triples_are_clean_reachable_and_independent_of_order(
    facts: list[tuple[str, str, str]], links: list[tuple[str, str]], limit: int
) -> None:
    triples, counts = outside_triples(triples_of(facts).lazy(), links_of(links), ITEMS, max_items_per_entity=limit)
    again, _ = outside_triples(
        triples_of(facts[::-1]).lazy(), links_of(links[::-1]), ITEMS[::-1], max_items_per_entity=limit
    )
    assert triples.rows() == again.rows()
    assert not triples.is_duplicated().any()
    assert (triples["head"] != triples["tail"]).all()
    assert counts["triples"] == triples.height == sum(counts["by_relation"].values())
    nodes = set(triples["head"]) | set(triples["tail"])
    reached = {node for node in nodes if node.startswith("item_id:")}
    assert reached <= {f"item_id:{item}" for item in ITEMS}
    for _ in nodes:
        reached |= {b for a, _, b in triples.rows() if a in reached} | {a for a, _, b in triples.rows() if b in reached}
    assert reached == nodes
    replaced = {entity for item, entity in links if item in ITEMS}
    own = [sum(1 for item, other in set(links) if other == entity and item in ITEMS) for entity in replaced]
    for entity, number in zip(replaced, own, strict=True):
        if number <= limit:
            assert f"outside:{entity}" not in nodes


@settings(max_examples=80, deadline=None)
@given(facts=FACTS)
def test_folding_inverses_keeps_every_pair_in_one_direction_at_least(facts: list[tuple[str, str, str]]) -> None:
    given_triples = triples_of([fact for fact in dict.fromkeys(facts) if fact[0] != fact[2]])
    triples, counts = fold_inverses(given_triples)
    into = {dropped: count["inverse_of"] for dropped, count in counts.items()}
    assert not set(into) & set(into.values())
    expected = {(t, into[r], h) if r in into else (h, r, t) for h, r, t in given_triples.rows()}
    assert set(triples.rows()) == expected and triples.height == len(expected)


@settings(max_examples=80, deadline=None)
@given(facts=FACTS, min_degree=st.integers(1, 5))
def test_pruning_leaves_the_largest_graph_of_that_degree(facts: list[tuple[str, str, str]], min_degree: int) -> None:
    keep = ["a", "b"]
    given_triples = triples_of(list(dict.fromkeys(facts)))
    triples, counts = prune_rare(given_triples, keep, min_degree)
    expected = given_triples.rows()
    while True:  # the slow, obvious way
        rare = {
            node
            for node in {n for h, _, t in expected for n in (h, t)} - set(keep)
            if sum(node in (h, t) for h, _, t in expected) < min_degree
        }
        if not rare:
            break
        expected = [row for row in expected if not {row[0], row[2]} & rare]
    assert sorted(triples.rows()) == sorted(expected)
    assert counts["triples"] == given_triples.height - triples.height == sum(counts["by_relation"].values())
    assert prune_rare(triples, keep, min_degree)[1]["triples"] == 0


@settings(max_examples=40, deadline=None)
@given(facts=FACTS, links=LINKS)
def test_node_numbers_read_back_as_the_names(facts: list[tuple[str, str, str]], links: list[tuple[str, str]]) -> None:
    triples, _ = outside_triples(triples_of(facts).lazy(), links_of(links), ITEMS)
    numbered = number_nodes(triples, IdMap(["u", "v"]), IdMap(ITEMS))
    names = ["user_id:u", "user_id:v", *node_names(ITEMS, "item_id"), *numbered.entities["name"]]
    back = [(names[h], numbered.relations[r], names[t]) for h, r, t in numbered.triples.rows()]
    assert back == triples.rows()
