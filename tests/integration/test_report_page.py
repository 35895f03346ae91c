"""The report's page in headless Chromium: every plot is drawn, nothing sticks out, nothing is asked of the network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reckg.evaluation.report.write import write_report
from tests.small_report import diversity, sample_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DARK = "--blink-settings=preferredColorScheme=0"
WIDTHS = {"desk": 1100, "phone": 390}
# Looks at the page in a frame of each width once all are loaded, and leaves what it saw in the body of the outer page.
LOOK = """
const box = r => [r.x, r.y, r.width, r.height];
const look = frame => {
  const page = frame.contentDocument, view = frame.contentWindow;
  for (const part of page.querySelectorAll('details')) part.open = true;
  const drawn = [...page.querySelectorAll('svg')].map(svg => {
    const seen = svg.getBoundingClientRect(), inner = [...svg.querySelectorAll('circle,rect,polyline,line,text')];
    return {title: svg.getAttribute('aria-label'), box: box(seen),
      marks: inner.filter(e => e.matches('circle,rect,polyline')).map(e => box(e.getBoundingClientRect())),
      texts: inner.filter(e => e.matches('text')).map(e => [e.firstChild.data, ...box(e.getBoundingClientRect())]),
      letters: Math.min(...inner.filter(e => e.matches('text')).map(
        e => parseFloat(view.getComputedStyle(e).fontSize) * seen.width / svg.viewBox.baseVal.width))};
  });
  const style = view.getComputedStyle(page.body), ink = view.getComputedStyle(page.querySelector('svg text'));
  return {drawn, width: view.innerWidth, scroll: page.documentElement.scrollWidth,
    asked: view.performance.getEntriesByType('resource').map(e => e.name),
    colours: [style.backgroundColor, style.color, ink.fill],
    dark: view.matchMedia('(prefers-color-scheme:dark)').matches};
};
addEventListener('load', () => {
  const seen = {};
  for (const frame of document.querySelectorAll('iframe')) seen[frame.id] = look(frame);
  document.body.textContent = 'SEEN' + JSON.stringify(seen) + 'SEEN';
});
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


def run_chromium(folder: Path, page: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def look(folder: Path, content: str, *flags: str) -> dict[str, Any]:
    """What the browser saw of a page, by the name of the width."""
    frames = "".join(
        f'<iframe id={name} width={width} height=900 style="border:0" srcdoc="{html.escape(content)}"></iframe>'
        for name, width in WIDTHS.items()
    )
    outer = folder / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8"><body>{frames}<script>{LOOK}</script></body>', "utf-8")
    seen = run_chromium(folder, outer, "--dump-dom", "--window-size=1600,1000", *flags).split("SEEN")
    found: dict[str, Any] = json.loads(html.unescape(seen[-2]))
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_report(sample_report(diversity=diversity()), folder)
    return folder / "report.html"


@pytest.mark.parametrize("dark", [False, True])
def test_every_plot_is_drawn_on_desk_and_phone_and_nothing_is_requested(page: Path, tmp_path: Path, dark: bool) -> None:
    content = page.read_text(encoding="utf-8")
    seen = look(tmp_path, content, *([DARK] if dark else []))
    for name, width in WIDTHS.items():
        found = seen[name]
        assert found["width"] == width and found["dark"] is dark
        assert found["asked"] == []
        assert found["scroll"] <= width  # wide tables scroll inside themselves
        assert len(found["drawn"]) == content.count("<svg") >= 22
        for plot in found["drawn"]:
            problems = faults(plot, width)
            assert not problems, f"{plot['title']} on {name}: {problems}"
        back, text, ink = (luminance(colour) for colour in found["colours"])
        assert contrast(back, text) > 7 and contrast(back, ink) > 7
        assert (back < 0.1) is dark


def test_a_request_and_a_plot_that_is_not_drawn_would_be_seen(page: Path, tmp_path: Path) -> None:
    content = page.read_text(encoding="utf-8")
    broken = content.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>').replace("<svg", "<svg hidden", 1)
    broken = broken.replace("</style>", "svg[hidden]{display:none}</style>")
    found = look(tmp_path, broken)["phone"]
    assert found["asked"] == ["http://127.0.0.1:9/x.png"]
    assert [bool(faults(plot, 390)) for plot in found["drawn"]][:2] == [True, False]


def test_it_prints(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    run_chromium(tmp_path, page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", content)) <= 20


def faults(plot: dict[str, Any], width: int) -> list[str]:
    """What is wrong with a plot as it was seen."""
    left, top, wide, high = plot["box"]
    found = [] if wide > 200 and high > 40 and left >= 0 and left + wide <= width else [f"its box is {plot['box']}"]
    marks = [mark for mark in plot["marks"] if mark[2] > 0 and mark[3] > 0]
    if not marks or len(marks) != len(plot["marks"]):
        found.append(f"{len(plot['marks']) - len(marks)} of {len(plot['marks'])} marks have no size")
    texts = plot["texts"]
    out = [t[0] for t in texts if t[1] < left - 1 or t[1] + t[3] > left + wide + 1 or t[2] + t[4] > top + high + 1]
    if out:
        found.append(f"texts stick out: {out}")
    over = [
        (a[0], b[0])
        for i, a in enumerate(texts)
        for b in texts[:i]
        if min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) > 1 and min(a[2] + a[4], b[2] + b[4]) - max(a[2], b[2]) > 4
    ]
    if over:
        found.append(f"texts lie on each other: {over}")
    return found + ([] if plot["letters"] is None or plot["letters"] > 10.5 else [f"letters of {plot['letters']} px"])


def luminance(colour: str) -> float:
    """Relative luminance of rgb(...), as WCAG 2 has it."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)
