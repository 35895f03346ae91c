"""Parts of the report's page: tables, cells, grids of plots, legends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from reckg.evaluation.comparison import SystemSection
from reckg.evaluation.report.svg import Mark
from reckg.metrics.significance import Interval


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: bool = False, ours: int | None = None) -> str:
    """Renders an HTML table that scrolls sideways if it is too wide.

    Args:
        head: column names.
        rows: cells, HTML each. A cell may be a whole <td>.
        words: align left, for words; numbers are aligned right.
        ours: the highlighted row.
    """
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        ("<tr class='ours'>" if number == ours else "<tr>")
        + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    kind = "scroll words" if words else "scroll"
    return f'<div class="{kind}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, str]) -> str:
    """Renders a table of names and texts."""
    rows = [[escape(name.replace("_", " ")), f'<td class="text">{escape(text)}</td>'] for name, text in values.items()]
    return table(["", "value"], rows, words=True) if rows else ""


def folded(summary: str, content: str) -> str:
    """Renders content that unfolds on a click, and is shown in print; empty without content."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def plots(drawn: Iterable[str]) -> str:
    """Renders a grid of plots; empty without any."""
    cards = "".join(f"<div>{plot}</div>" for plot in drawn if plot)
    return f'<div class="plots">{cards}</div>' if cards else ""


def listed(words: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(word)}</li>" for word in words) + "</ul>"


def legend(entries: Iterable[tuple[str, str, bool]]) -> str:
    """Renders the kinds of marks.

    Args:
        entries: (colour's name, text, square) of each.
    """
    keys = "".join(
        f'<span class="key"><i{" class=square" if square else ""} style="background:var(--{colour})"></i>'
        f"{escape(text)}</span>"
        for colour, text, square in entries
    )
    return f"<p>{keys}</p>"


SYSTEM_LEGEND = (("ours", "reckg, as served", False), ("own", "its parts alone", False), ("base", "baselines", False))


def kind(system: str, entry: SystemSection) -> str:
    return "ours" if system == "reckg" else "base" if entry["baseline"] else "own"


def mark(values: Interval, colour: str, name: str = "") -> Mark:
    return Mark(values["mean"], values["low"], values["high"], colour, name)


def cell(values: Interval | None, best: bool = False, form: str = "{:.4f}") -> str:
    """Renders a mean with its interval below it.

    Args:
        values: an interval; None: an empty cell.
        best: highlighted.
        form: of the numbers.
    """
    if values is None:
        return "<td></td>"
    low, high = form.format(values["low"]), form.format(values["high"])
    inside = f"<small>{low} to {high}</small>" if "low" in values and low != high else ""
    return f"<td{' class=best' if best else ''}>{form.format(values['mean'])}{inside}</td>"


def ours_row(systems: Mapping[str, Any]) -> int | None:
    return list(systems).index("reckg") if "reckg" in systems else None
