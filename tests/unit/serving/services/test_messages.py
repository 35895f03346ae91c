"""Messages to the library's terms: what is refused, and in which words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from reckg.data.schema import ColumnKinds
from reckg.live.embed_items import items_table
from reckg.ranking.diversity import Diversity
from reckg.retrieval.filters import Filters
from reckg.v1 import item_pb2
from reckg.v1 import recommender_pb2 as pb
from serving.errors import InvalidRequestError
from serving.services import messages
from serving.services.item_messages import parse_item

KINDS = ColumnKinds(text=("title",), categorical=("genre",), number=("price",), list=("tags",))


def filtered(*predicates: pb.AttributePredicate) -> pb.RecommendRequest:
    return pb.RecommendRequest(filter=pb.ItemFilter(predicates=predicates))


def diverse(**fields: Any) -> pb.RecommendRequest:
    return pb.RecommendRequest(diversity=pb.Diversity(**fields))


def item(*attributes: item_pb2.ItemAttribute, item_id: str = "n") -> item_pb2.Item:
    return item_pb2.Item(item_id=item_id, attributes=attributes)


def attribute(name: str, *values: str, numbers: tuple[float, ...] = ()) -> item_pb2.ItemAttribute:
    return item_pb2.ItemAttribute(name=name, values=values, numbers=numbers)


def test_filters_become_those_of_the_library() -> None:
    assert messages.read_filters(pb.RecommendRequest()) is None
    assert messages.read_filters(pb.RecommendRequest(filter=pb.ItemFilter())) == Filters(None, [], [])
    nothing = pb.ItemFilter(allowed_items=pb.ItemIdList(), denied_item_ids=["i1"])
    assert messages.read_filters(pb.RecommendRequest(filter=nothing)) == Filters([], ["i1"], [])
    found = messages.read_filters(
        filtered(
            pb.AttributePredicate(column="genre", values=["a", "b"]),
            pb.AttributePredicate(column="price", numbers=[3.0]),
            pb.AttributePredicate(column="price", range=pb.NumberRange(at_least=1, below=9)),
            pb.AttributePredicate(column="year", range=pb.NumberRange()),
        )
    )
    assert found is not None
    assert found.where == [("genre", ["a", "b"]), ("price", [3.0]), ("price", {">=": 1.0, "<": 9.0}), ("year", {})]


def test_diversity_becomes_that_of_the_library() -> None:
    assert messages.read_diversity(pb.RecommendRequest()) is None
    assert messages.read_diversity(diverse(strategy="DIVERSITY_STRATEGY_NONE")) == Diversity(
        "none", 0.0, max_per_provider=1
    )
    found = messages.read_diversity(diverse(strategy="DIVERSITY_STRATEGY_CALIBRATED", weight=0.25, column="genre"))
    assert found == Diversity("calibrated", 0.25, "genre", max_per_provider=1)
    found = messages.read_diversity(
        diverse(strategy="DIVERSITY_STRATEGY_PROVIDER", provider_column="seller", max_per_provider=3, column="x")
    )
    assert found == Diversity("provider", 0.0, "", "seller", 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: messages.read_item_count(-1, 500), r"max_item_count must be 0\.\.500, got -1"),
        (lambda: messages.read_item_count(2**31 - 1, 50), r"max_item_count must be 0\.\.50, got 2147483647"),
        (lambda: messages.read_recent_items(["i"] * 501), "recent_item_ids must be at most 500, got 501"),
        (
            lambda: messages.read_context_items(pb.Context(item_ids=["i"] * 100_000)),
            "context.item_ids must be at most 100, got 100000",
        ),
        (lambda: messages.read_context_items(pb.Context(placement="Home")), "context.placement must .* got 'Home'"),
        (lambda: messages.read_context_items(pb.Context(placement="a" * 65)), "up to 64 of the characters"),
        (lambda: messages.read_request_id("é"), "request_id must be up to 128 printable ASCII characters, got 'é'"),
        (lambda: messages.read_request_id("a" * 129), "request_id must be up to 128"),
        (lambda: messages.read_request_id("a\n"), "request_id must be up to 128"),
        (lambda: messages.check_ids("item_ids", [], 3), "item_ids must not be empty"),
        (lambda: messages.check_ids("item_ids", ["a", "b", "c", "d"], 3), "item_ids must be at most 3, got 4"),
        (lambda: messages.check_ids("item_ids", ["a", ""], 3), r"item_ids\[1\] must have 1\.\.256 characters, got 0"),
        (
            lambda: messages.check_ids("item_ids", ["a" * 257], 3),
            r"item_ids\[0\] must have 1\.\.256 characters, got 257",
        ),
        (lambda: messages.check_ids("item_ids", ["a", "b", "b"], 3), r"must not repeat, got item_ids\[2\] twice: 'b'"),
        (
            lambda: messages.read_attributes([pb.UserAttribute(name="age", numbers=[math.inf])]),
            r"attributes\['age'\].numbers must be finite, got inf",
        ),
        (lambda: messages.read_attributes([pb.UserAttribute()]), "attributes.name must not be empty"),
        (lambda: messages.read_attributes([pb.UserAttribute(name="a")] * 2), "must not repeat, got 'a' twice"),
        (lambda: messages.read_filters(filtered(pb.AttributePredicate())), r"predicates\[0\].column must not be empty"),
        (
            lambda: messages.read_filters(filtered(pb.AttributePredicate(column="a"))),
            r"filter.predicates\[0\] must have exactly one of values, numbers and range, got 0",
        ),
        (
            lambda: messages.read_filters(filtered(pb.AttributePredicate(column="a", values=["b"], numbers=[1]))),
            "exactly one of values, numbers and range, got 2",
        ),
        (
            lambda: messages.read_filters(filtered(pb.AttributePredicate(column="a", numbers=[math.nan]))),
            r"filter.predicates\[0\].numbers must be finite, got nan",
        ),
        (
            lambda: messages.read_filters(
                filtered(pb.AttributePredicate(column="a", range=pb.NumberRange(above=math.nan)))
            ),
            r"filter.predicates\[0\].range.above must be finite, got nan",
        ),
        (lambda: messages.read_diversity(diverse(weight=0.5)), "diversity.strategy must be one of .*_NONE.*, got 0"),
        (lambda: messages.read_diversity(diverse(strategy=99)), "got 99"),
        (
            lambda: messages.read_diversity(diverse(strategy=2, weight=math.nan)),
            "diversity.weight must be finite, got nan",
        ),
        (lambda: messages.read_diversity(diverse(strategy=2, weight=1.5)), r"diversity.weight must be 0\.\.1, got 1.5"),
        (lambda: messages.read_diversity(diverse(strategy=3)), "diversity.column must not be empty"),
        (lambda: messages.read_diversity(diverse(strategy=4)), "diversity.provider_column must not be empty"),
        (
            lambda: messages.read_diversity(diverse(strategy=4, provider_column="s")),
            "diversity.max_per_provider must be at least 1, got 0",
        ),
        (lambda: parse_item("items[0]", item(item_id=""), KINDS), r"items\[0\].item_id must have 1\.\.256"),
        (lambda: parse_item("items[0]", item(attribute("")), KINDS), r"items\[0\].attributes.name must not be empty"),
        (lambda: parse_item("items[0]", item(attribute("item_id", "x")), KINDS), "other than 'item_id'"),
        (lambda: parse_item("items[0]", item(*[attribute("x", "y")] * 2), KINDS), "repeat, got 'x' twice"),
        (
            lambda: parse_item("items[0]", item(attribute("title", "a", "b")), KINDS),
            r"items\[0\].attributes\['title'\] must have one value, got 2",
        ),
        (
            lambda: parse_item("items[0]", item(attribute("price", "dear")), KINDS),
            r"attributes\['price'\] must have one number, got 1 values",
        ),
        (
            lambda: parse_item("items[0]", item(attribute("price", numbers=(math.inf,))), KINDS),
            r"attributes\['price'\] must be finite, got inf",
        ),
        (
            lambda: parse_item("items[0]", item(attribute("tags", numbers=(1.0,))), KINDS),
            r"attributes\['tags'\] must have values, got 1 numbers",
        ),
        (
            lambda: parse_item("items[0]", item(attribute("other", "a", numbers=(1.0,))), KINDS),
            r"attributes\['other'\] must have values or numbers, got both",
        ),
    ],
)
def test_what_is_wrong_is_said_with_field_range_and_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        call()


def test_what_is_right_passes() -> None:
    assert (
        messages.read_item_count(0, 500) == 10
        and messages.read_item_count(0, 5) == 5
        and messages.read_item_count(7, 500) == 7
    )
    assert messages.read_request_id("a b~") == "a b~" and len(messages.read_request_id("")) == 32
    assert messages.read_context_items(pb.Context(item_ids=["b", "a", "b"], placement="cart_1.x-y")) == ["b", "a"]
    assert messages.read_attributes([pb.UserAttribute(name="age", numbers=[3], values=["x"])]) == {"age": ["x", 3.0]}


def test_an_item_goes_to_the_store_and_into_a_table_and_back() -> None:
    given = item(
        attribute("title", "Dune"),
        attribute("price", numbers=(3.5,)),
        attribute("tags", "a", "b"),
        attribute("colour", "red"),
        attribute("weight", numbers=(2.0,)),
    )
    row = parse_item("items[0]", given, KINDS)
    assert row == {"title": "Dune", "price": 3.5, "tags": ["a", "b"], "colour": ["red"], "weight": 2.0}
    table = items_table([row, {"genre": "x", "title": 3}], KINDS)
    assert table.rows() == [
        ("Dune", 3.5, ["a", "b"], ["red"], ["2.0"], None),
        (None, None, [], [], [], "x"),
    ]
    assert items_table([{}, {}], KINDS).height == 2
    back = messages.write_item({"item_id": "n", "title": "Dune", "genre": None, "price": 3.5, "tags": ["a", None, "b"]})
    assert back == item(attribute("title", "Dune"), attribute("price", numbers=(3.5,)), attribute("tags", "a", "b"))
