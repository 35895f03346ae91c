"""The report's plots as inline SVG, drawn by hand.

Colours come from the page's style sheet, so that they follow light and dark. Every plot is narrow enough to be read on
a phone without shrinking. The classes of marks are ``ours``, ``own`` (the product's other stages) and ``base``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 380
LETTER = 7.6  # approximate width of a letter
LABEL = (92, 160)  # least and greatest width of the labels' column
VALUE = 60  # width of the values' column
ROW = 26
TOP = 22


@dataclass(frozen=True)
class Mark:
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    kind: str = "base"
    name: str = ""


@dataclass(frozen=True)
class Line:
    """Points of a line.

    Args:
        x, y: x rising.
        kind: class of the line.
        best: place of a marked point.
    """

    x: Sequence[float]
    y: Sequence[float]
    kind: str = "ours"
    best: int | None = None


def dot_plot(
    title: str,
    rows: Sequence[tuple[str, Sequence[Mark]]],
    *,
    signed: bool = False,
    zero: bool = False,
    say: Callable[[float], str] | None = None,
) -> str:
    """Draws means with intervals, a row for each label. Several marks of a row lie above each other.

    Args:
        title: above the plot.
        rows: label, and its marks; the first mark's mean is printed at the end of the row.
        signed: print the values with their sign.
        zero: the axis includes zero, drawn as a line.
        say: writes a value; None: with four decimals.
    """
    marks = [mark for _, row in rows for mark in row]
    if not marks:
        return ""
    words = say or ("{:+.4f}" if signed else "{:.4f}").format
    low, high = min(m.low for m in marks), max(m.high for m in marks)
    left = label_width([label for label, _ in rows])
    several = len({row[0].kind for _, row in rows if row}) > 1
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    step = max(ROW, max(len(row) for _, row in rows) * 13)
    height = TOP + step * len(rows) + 24
    place = _scale(low, high, left + 10, WIDTH - VALUE - 10)
    parts = [_title(title)]
    bottom = TOP + step * len(rows)
    for tick in ticks:
        kind = "zero" if zero and abs(tick) < 1e-12 else "grid"
        parts.append(_line(place(tick), TOP - 2, place(tick), bottom, kind))
        parts.append(_text(place(tick), bottom + 15, _tick(tick, say), "tick", "middle"))
    for r, (label, row) in enumerate(rows):
        middle = TOP + step * (r + 0.5)
        strong = " strong" if several and row and row[0].kind == "ours" else ""
        parts.append(_text(left, middle + 4, _cut(label, int(left / LETTER)), "label" + strong, "end", label))
        for m, mark in enumerate(row):
            y = middle + (m - (len(row) - 1) / 2) * 11
            parts.append(_dot(place, mark, y, label, words))
        if row:
            parts.append(_text(WIDTH - 2, middle + 4, words(row[0].mean), "value" + strong, "end"))
    return _svg(height, title, parts)


def line_chart(title: str, lines: Sequence[Line], x_label: str) -> str:
    """Draws lines over a common x axis. The marked point, or else the last one, carries its value.

    Args:
        title: above the plot.
        lines: the lines.
        x_label: below the axis.
    """
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    height, left, right, bottom = 190, 52, WIDTH - 14, 150
    ys = [y for line in lines for y in line.y]
    xs = [x for line in lines for x in line.x]
    ticks = nice_ticks(min(ys), max(ys))
    y_place = _scale(min(min(ys), ticks[0]), max(max(ys), ticks[-1]), bottom, TOP + 8)
    x_place = _scale(min(xs), max(xs), left, right)
    parts = [_title(title)]
    for tick in ticks:
        parts.append(_line(left, y_place(tick), right, y_place(tick), "grid"))
        parts.append(_text(left - 6, y_place(tick) + 4, _short(tick), "tick", "end"))
    for tick in nice_ticks(min(xs), max(xs), whole=True):
        if min(xs) <= tick <= max(xs):
            parts.append(_text(x_place(tick), bottom + 16, _short(tick), "tick", "middle"))
    parts.append(_text((left + right) / 2, bottom + 34, x_label, "tick", "middle"))
    for line in lines:
        points = " ".join(f"{x_place(x):.1f},{y_place(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        parts.append(f'<polyline class="line {line.kind}" points="{points}"/>')
        at = len(line.x) - 1 if line.best is None else line.best
        x, y = x_place(line.x[at]), y_place(line.y[at])
        caption = f"{line.y[at]:.4g}" + (f" at {_short(line.x[at])}" if line.best is not None else "")
        parts.append(
            f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{caption}</title></circle>'
        )
        side = "end" if x > (left + right) / 2 else "start"
        shift = -7 if side == "end" else 7
        parts.append(_text(x + shift, y - 7, caption, "value strong", side))
    return _svg(height, title, parts)


def bar_chart(title: str, rows: Sequence[tuple[str, float]], say: Callable[[float], str]) -> str:
    """Draws horizontal bars from zero, each with its value at the end.

    Args:
        title: above the plot.
        rows: label and value.
        say: writes a value.
    Raises:
        ValueError: a value is negative.
    """
    if not rows:
        return ""
    if min(value for _, value in rows) < 0:
        raise ValueError("bars are for values >= 0")
    label, step = label_width([name for name, _ in rows]), 23
    place = _scale(0.0, max(max(value for _, value in rows), 1e-12), label + 8, WIDTH - 64)
    parts = [_title(title)]
    for r, (name, value) in enumerate(rows):
        y = TOP + step * r
        width = max(1.0, place(value) - place(0.0))
        parts.append(_text(label, y + 15, _cut(name, int(label / LETTER)), "label", "end", name))
        parts.append(
            f'<rect class="bar" x="{label + 8:.1f}" y="{y + 4}" width="{width:.1f}" height="14" rx="3">'
            f"<title>{escape(name)}: {escape(say(value))}</title></rect>"
        )
        parts.append(_text(label + 8 + width + 6, y + 15, say(value), "value", "start"))
    return _svg(TOP + step * len(rows) + 4, title, parts)


def beeswarm(title: str, rows: Sequence[tuple[str, Sequence[tuple[float, float | None]]]]) -> str:
    """Draws single values as dots, a row for each label, side by side if they would overlap.

    Args:
        title: above the plot.
        rows: label, and (value, shade): a shade from 0 to 1 is one of five colours, None a colour of its own.
    """
    values = [value for _, points in rows for value, _ in points]
    if not values:
        return ""
    left, step, size = label_width([label for label, _ in rows]), 26, 2.3
    ticks = nice_ticks(min(*values, 0.0), max(*values, 0.0), 3)
    place = _scale(ticks[0], ticks[-1], left + 10, WIDTH - 8)
    bottom = TOP + step * len(rows)
    parts = [_title(title)]
    for tick in ticks:
        parts.append(_line(place(tick), TOP - 2, place(tick), bottom, "zero" if abs(tick) < 1e-12 else "grid"))
        parts.append(_text(place(tick), bottom + 15, _short(tick), "tick", "middle"))
    for r, (label, points) in enumerate(rows):
        middle = TOP + step * (r + 0.5)
        parts.append(_text(left, middle + 4, _cut(label, int(left / LETTER)), "label", "end", label))
        taken: dict[int, int] = {}
        for value, shade in sorted(points, key=lambda point: point[0]):
            column = round(place(value) / (2 * size))
            count = taken[column] = taken.get(column, 0) + 1
            shift = min(count // 2, 5) * 2 * (1 if count % 2 else -1)
            kind = "none" if shade is None else f"v{min(4, int(shade * 5))}"
            parts.append(f'<circle class="bee {kind}" cx="{place(value):.1f}" cy="{middle + shift:.1f}" r="{size}"/>')
    return _svg(bottom + 22, title, parts)


def label_width(labels: Sequence[str]) -> float:
    """Computes the width of a column of labels. Long labels are cut."""
    return min(max(LABEL[0], max((len(label) for label in labels), default=0) * LETTER), LABEL[1])


def nice_ticks(low: float, high: float, wanted: int = 4, whole: bool = False) -> list[float]:
    """Chooses round numbers that enclose an interval.

    Args:
        low, high: the interval.
        wanted: about the number of ticks.
        whole: only whole numbers.
    """
    if high - low < 1e-12:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    if whole:
        step = max(1.0, float(round(step)))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, last + 1)]


def _dot(place: Callable[[float], float], mark: Mark, y: float, label: str, words: Callable[[float], str]) -> str:
    caption = f"{mark.name or label}: {words(mark.mean)} ({words(mark.low)} to {words(mark.high)})"
    x = place(mark.mean)
    shape = f'<circle class="dot {mark.kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    if mark.kind == "rival":
        shape = f'<rect class="dot rival" x="{x - 3.8:.1f}" y="{y - 3.8:.1f}" width="7.6" height="7.6"/>'
    ends = f'x1="{place(mark.low):.1f}" x2="{place(mark.high):.1f}"'
    interval = f'<line class="span {mark.kind}" {ends} y1="{y:.1f}" y2="{y:.1f}"/>'
    return f"<g><title>{escape(caption)}</title>{interval}{shape}</g>"


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (stop - start)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">' + "".join(parts) + "</svg>"
    )


def _title(title: str) -> str:
    return _text(0, 13, title, "title", "start")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str, tip: str = "") -> str:
    inside = escape(text) + (f"<title>{escape(tip)}</title>" if tip else "")
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{inside}</text>'


def _tick(value: float, say: Callable[[float], str] | None) -> str:
    """Formats a tick as a number, or in per cent if the values are."""
    return f"{_short(value * 100)}%" if say is not None and say(value).endswith("%") else _short(value)


def _short(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
