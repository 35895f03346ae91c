"""Filters over a small catalogue, with answers by hand, and what they refuse."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from reckg.data.ids import IdMap
from reckg.errors import DataError
from reckg.retrieval.filters import Filters, ItemFilters

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture()
def filters() -> ItemFilters:
    items = pl.DataFrame(
        {
            "item_id": IDS,
            "title": ["A", "B", "C", "D", "E"],
            "genre": ["drama", "crime", None, "drama", "ärger"],
            "year": [1999.0, 2010.0, 2015.0, None, float("nan")],
            "tags": [["old", "short"], ["short"], None, [], ["old", "old", None]],
        }
    )
    columns = {"text": ["title"], "categorical": ["genre"], "number": ["year"], "list": ["tags"]}
    return ItemFilters(items, IdMap(IDS, "item id"), columns)


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ({"genre": "drama"}, "ad"),
        ({"genre": ["crime", "ärger"]}, "be"),
        ({"genre": "western"}, ""),
        ({"genre": []}, ""),
        ({"year": 2010}, "b"),
        ({"year": [1999, 2015.0]}, "ac"),
        ({"year": {">=": 2010}}, "bc"),
        ({"year": {">": 2010}}, "c"),
        ({"year": {"<=": 2010}}, "ab"),
        ({"year": {"<": 2010}}, "a"),
        ({"year": {">=": 1999, "<": 2015}}, "ab"),
        ({"year": {">": 2015}}, ""),
        ({"year": {">": 2010, "<": 2000}}, ""),
        ({"year": {}}, "abc"),
        ({"tags": "short"}, "ab"),
        ({"tags": ["old", "new"]}, "ae"),
        ({"genre": "drama", "year": {"<": 2000}, "tags": "old"}, "a"),
    ],
)
def test_attributes(filters: ItemFilters, where: dict[str, Any], left: str) -> None:
    for _ in range(2):  # the second time from the column's index
        allowed = filters.allowed(Filters(where=where))
        assert allowed is not None
        assert "".join(item for item, holds in zip(IDS, allowed, strict=True) if holds) == left


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (Filters(allow=["b", "e", "unknown"]), "be"),
        (Filters(allow=[]), ""),
        (Filters(deny=["b", "unknown"]), "acde"),
        (Filters(allow=["a", "b"], deny=["b"]), "a"),
        (Filters(allow=["a", "b"], where={"genre": "crime"}), "b"),
    ],
)
def test_lists_of_items(filters: ItemFilters, given: Filters, left: str) -> None:
    allowed = filters.allowed(given)
    assert allowed is not None
    assert "".join(item for item, holds in zip(IDS, allowed, strict=True) if holds) == left


def test_without_filters_all_are_allowed(filters: ItemFilters) -> None:
    assert filters.allowed(Filters()) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Filters(where={"genra": "drama"}), "unknown column 'genra'; known: genre, year, tags"),
        (Filters(where={"title": "A"}), "unknown column 'title'"),
        (Filters(where={"genre": 3}), "'genre', a categorical column, needs a string, got 3"),
        (Filters(where={"genre": ["drama", None]}), "needs a string, got None"),  # type: ignore[dict-item, list-item]
        (Filters(where={"year": "2010"}), "'year', a number column, needs a number, got '2010'"),
        (Filters(where={"year": True}), "needs a number, got True"),
        (Filters(where={"year": float("nan")}), "needs a number, got nan"),
        (Filters(where={"genre": {">": 1}}), "'genre', a categorical column, cannot be a range"),
        (Filters(where={"year": {"=>": 1}}), "a range maps >, >=, <, <= to numbers, got '=>': 1"),
        (Filters(where={"year": {">": "1"}}), "to numbers, got '>': '1'"),  # type: ignore[dict-item]
        (Filters(where={"year": None}), "a value, a list of values or a range, got None"),  # type: ignore[dict-item]
        (Filters(allow="a"), "'allow' must be a list of item ids, strings, got 'a'"),
        (Filters(deny=[1]), r"'deny' must be a list of item ids, strings, got \[1\]"),  # type: ignore[list-item]
    ],
)
def test_what_does_not_fit_is_refused(filters: ItemFilters, given: Filters, message: str) -> None:
    with pytest.raises(DataError, match=message):
        filters.allowed(given)
