"""Answers as tables: at the prompt and in a notebook."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

Row = tuple[str, str, float]  # item id, title, score

COLUMNS = ("rank", "item_id", "title", "score")
WIDTH = 80  # columns of a prompt
ID_WIDTH = 24


def text_table(items: Iterable[Row], notes: Sequence[str]) -> str:
    """Formats items as a table of at most WIDTH columns, followed by single-line notes."""
    rows = [COLUMNS, *_rows(items)]
    ranks, ids, titles, scores = (list(column) for column in zip(*rows, strict=True))
    ids = [_cut(each, ID_WIDTH) for each in ids]
    rank_width, id_width, score_width = (max(map(_width, column)) for column in (ranks, ids, scores))
    title_width = min(max(map(_width, titles)), WIDTH - rank_width - id_width - score_width - 6)
    lines = [
        f"{rank:>{rank_width}}  {_fit(item_id, id_width)}  {_fit(title, title_width)}  {score:>{score_width}}"
        for rank, item_id, title, score in zip(ranks, ids, titles, scores, strict=True)
    ]
    return "\n".join([*lines, *(_cut(note, WIDTH) for note in notes)])


def html_table(items: Iterable[Row], notes: Sequence[str]) -> str:
    """Formats items as an HTML table, followed by notes. All texts are escaped."""
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in _rows(items))
    below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _rows(items: Iterable[Row]) -> Iterator[tuple[str, str, str, str]]:
    """Yields the cells of each item as single-line text."""
    for rank, (item_id, title, score) in enumerate(items, start=1):
        yield str(rank), _one_line(item_id), _one_line(title), f"{score:.4f}"


def _one_line(text: str) -> str:
    """Replaces line breaks and unprintable characters, which would break the table, by spaces."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _width(text: str) -> int:
    """Counts the columns of a text at the prompt: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _cut(text: str, width: int) -> str:
    """Shortens a text to a width, with an ellipsis if anything was cut."""
    if _width(text) <= width:
        return text
    text = text[:width]
    while _width(text) >= width:
        text = text[:-1]
    return text + "…"


def _fit(text: str, width: int) -> str:
    """Cuts a text to a width, or fills it up with spaces."""
    text = _cut(text, width)
    return text + " " * (width - _width(text))
