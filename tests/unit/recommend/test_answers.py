"""Answers as tables: at the prompt, in a notebook, in Polars and in pandas."""

from __future__ import annotations

import html
import sys
import unicodedata
from html.parser import HTMLParser

import polars as pl
import pytest

from reckg.recommend.answers import RankedItems, Recommendations, RecommendedItem

LONG = "A title that is much longer than any prompt is wide, " * 4
ANSWER = Recommendations(
    [
        RecommendedItem("i1", "Dune", 2.5),
        RecommendedItem("i2 <b>", LONG, 1.25),
        RecommendedItem("i3", "砂の惑星" * 20, -0.5),
        RecommendedItem("i" * 70, "two\nlines\x1b[31m & 'quotes'", -10.0),
    ],
    "world-1",
    "popular",
    ("cold_user", "unknown_recent_items"),
    unknown_recent_items=("<x>",),
)


def width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)


def test_the_prompt_shows_ranks_titles_and_scores_in_80_columns() -> None:
    lines = repr(ANSWER).splitlines()
    assert lines[0].split() == ["rank", "item_id", "title", "score"]
    assert lines[1].split() == ["1", "i1", "Dune", "2.5000"]
    assert len(lines) == 1 + 4 + 4 and str(ANSWER) == repr(ANSWER)
    assert max(map(width, lines)) == 80
    assert len({width(line) for line in lines[:5]}) == 1  # the columns stand one below the other
    assert "two lines [31m & 'quotes'" in lines[4] and "\x1b" not in repr(ANSWER)
    assert lines[5:] == [
        "fallback: popular",
        "degraded: cold_user, unknown_recent_items",
        "unknown recent_items: <x>",
        "bundle world-1",
    ]


def test_short_answers_take_no_more_room_than_they_need() -> None:
    lines = repr(Recommendations([RecommendedItem("i1", "", 0.5)], "v1")).splitlines()
    assert lines == ["rank  item_id  title   score", "   1  i1              0.5000", "bundle v1"]
    assert repr(Recommendations([], "v1")).splitlines() == ["rank  item_id  title  score", "bundle v1"]


class Cells(HTMLParser):
    """Collects the tags, and the texts of the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_a_notebook_shows_an_escaped_table() -> None:
    found = Cells()
    found.feed(ANSWER._repr_html_())
    assert found.tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert found.cells[:8] == ["rank", "item_id", "title", "score", "1", "i1", "Dune", "2.5000"]
    assert "i2 <b>" in found.cells and "unknown recent_items: <x>" in found.cells
    assert html.escape("& 'quotes'") in ANSWER._repr_html_()


def test_ranked_items_show_the_unknown_ones_too() -> None:
    ranked = RankedItems(ANSWER, ("x1", "<x2>"))
    assert repr(ranked).splitlines()[5] == "unknown items: x1, <x2>"
    assert repr(ranked).splitlines()[:5] == repr(ANSWER).splitlines()[:5]
    assert "unknown items: x1, &lt;x2&gt;" in ranked._repr_html_()
    assert ranked.to_polars().equals(ANSWER.to_polars())


def test_frames_hold_every_item_in_order() -> None:
    frame = ANSWER.to_polars()
    assert frame.schema == {"rank": pl.Int32, "item_id": pl.String, "title": pl.String, "score": pl.Float32}
    assert frame.row(1) == (2, "i2 <b>", LONG, 1.25)
    assert Recommendations([], "v1").to_polars().schema == frame.schema
    pytest.importorskip("pandas")
    assert ANSWER.to_pandas().to_dict("list") == frame.to_dict(as_series=False)


def test_without_pandas_the_error_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas.*pip install pandas.*to_polars\(\)"):
        ANSWER.to_pandas()
