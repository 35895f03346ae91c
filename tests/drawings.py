"""The three drawings of docs/design.md, made from the code: the house, a run, a request.

    python -m tests.drawings

Writes ``docs/drawings/{house,run,request}.svg``. The house comes from the import statements, the run from the stage
table, the request from the modules of REQUEST and their docstrings.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from reckg.pipeline.run.stage_table import DATASET, ENCODER, STAGES
from tests.house import Module, file_arrows, read_modules, room_arrows
from tests.unit.test_import_rules import ORDER

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "drawings"
WIDTH = 390  # narrow enough for a phone, where the page shows it without shrinking the letters much
GROUND = ("errors", "version", "v1")  # imported by nearly every room, so that their arrows would hide the others
STYLE = """
svg { background: #fff; font-family: system-ui, sans-serif; font-size: 13px; }
text { fill: #1c2430; } .small { font-size: 12px; fill: #55606e; } .name { font-weight: 600; }
.box { fill: #eef3fb; stroke: #4c74b8; } .top { fill: #fdf1e3; stroke: #b9772a; }
.line { fill: none; stroke: #7c8896; stroke-width: 1.2; } .head { fill: #7c8896; }
.over { paint-order: stroke; stroke: #fff; stroke-width: 4px; }
.write { fill: #b9772a; } .read { fill: #fff; stroke: #4c74b8; stroke-width: 2; } .row { stroke: #dfe4ea; }
@media (prefers-color-scheme: dark) {
svg { background: #1e2129; } text { fill: #e4e8ee; } .small { fill: #aab4c0; }
.box { fill: #26344d; stroke: #7fa3e0; } .top { fill: #46351f; stroke: #e0a35c; }
.line { stroke: #8b96a5; } .head { fill: #8b96a5; }
.over { stroke: #1e2129; }
.write { fill: #e0a35c; } .read { fill: #1e2129; stroke: #7fa3e0; } .row { stroke: #363c47; }
}"""
HEAD = '<path class="head" d="M0 0L8 4L0 8z"/>'

# The modules that a call of Recommend passes, in order. Their docstrings stand in the drawing.
REQUEST = (
    "serving.calls.interceptor",
    "serving.calls.handler",
    "serving.services.recommender",
    "serving.catalog.snapshot",
    "reckg.recommend.recommender",
    "reckg.recommend.fold_in",
    "reckg.recommend.two_stage",
    "reckg.ranking.sources.candidates",
    "reckg.retrieval.index",
    "reckg.ranking.features.extract",
    "reckg.ranking.trees.ranker",
    "reckg.ranking.diversity",
    "reckg.recommend.answers",
)


def svg(height: float, title: str, parts: Iterable[str]) -> str:
    """Frames the parts of a drawing of WIDTH units."""
    marker = '<marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">' + HEAD + "</marker>"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}\n</style>",
            f"<defs>{marker}</defs>",
            *parts,
            "</svg>\n",
        ]
    )


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start", turn: int = 0) -> str:
    rotation = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{rotation}>{escape(text)}</text>'


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" class="{kind}"/>'


# The house


@dataclass
class Place:
    """A room on its floor, or a point that an arrow passes on a floor between its ends.

    ``below``: the places on the floor below that its arrows reach.
    """

    name: str
    width: float
    below: list[Place] = field(default_factory=list)
    above: list[Place] = field(default_factory=list)
    x: float = 0.0  # the middle

    @property
    def is_room(self) -> bool:
        return bool(self.name)


def room_groups(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """The first-level rooms in the order of the import rules, each with the rooms before it that it imports."""
    arrows = room_arrows(modules, file_arrows(modules))
    order = list(dict.fromkeys(filter(None, map(group_of, ORDER))))
    groups: dict[str, set[str]] = {name: set() for name in order}
    for room, targets in arrows.items():
        if (own := group_of(room)) is not None:
            groups[own] |= {target for each in targets if (target := group_of(each)) is not None}
    groups["jobs"].discard("serving")  # the command line alone starts a server
    return {name: {target for target in groups[name] if order.index(target) < order.index(name)} for name in order}


def group_of(room: str) -> str | None:
    """The first-level room: ``model`` for ``reckg.model.text``, ``serving`` for ``serving.calls``."""
    package, _, rest = room.partition(".")
    name = rest.split(".")[0] if package == "reckg" else package
    return None if name in ("", "__main__", *GROUND) else name


def reduced(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that a longer way replaces. Keys must be in order, ground first."""
    reached: dict[str, set[str]] = {}
    for name, targets in arrows.items():
        reached[name] = targets.union(*(reached[target] for target in targets))
    return {
        name: {target for target in targets if not any(target in reached[other] for other in targets - {target})}
        for name, targets in arrows.items()
    }


def floors_of(arrows: Mapping[str, set[str]]) -> list[list[Place]]:
    """The floors from the ground up, with a point for each arrow on every floor that it passes."""
    level: dict[str, int] = {}
    for name, targets in arrows.items():
        level[name] = 1 + max((level[target] for target in targets), default=-1)
    top = max(level.values())
    level |= {name: top for name in ("serving", "jobs") if name in level}
    floors: list[list[Place]] = [[] for _ in range(top + 1)]
    rooms = {name: Place(name, 182 if name in ("serving", "jobs") else 24 + 8 * len(name)) for name in arrows}
    for name, place in rooms.items():
        floors[level[name]].append(place)
    for name, targets in arrows.items():
        for target in sorted(targets):
            above = rooms[name]
            for floor in range(level[name] - 1, level[target], -1):
                point = Place("", 8)
                floors[floor].append(point)
                above.below.append(point)
                point.above.append(above)
                above = point
            above.below.append(rooms[target])
            rooms[target].above.append(above)
    return floors


def arrange(floors: list[list[Place]]) -> None:
    """Orders each floor by the middle of its neighbours, then moves its places towards them."""

    def spread(floor: list[Place]) -> None:
        gap = (WIDTH - 12 - sum(place.width for place in floor)) / (len(floor) + 1)
        x = 6 + gap
        for place in floor:
            place.x = x + place.width / 2
            x += place.width + gap

    def middle(places: list[Place], otherwise: float) -> float:
        return sum(place.x for place in places) / len(places) if places else otherwise

    for floor in floors:
        spread(floor)
    for turn in range(24):
        for floor in floors if turn % 2 else reversed(floors):
            beside = {id(place): (place.below if turn % 2 else place.above) for place in floor}
            floor.sort(key=lambda place: middle(beside[id(place)], place.x))
            spread(floor)
    for _ in range(40):
        for floor in floors[:-1]:
            for place in floor:
                place.x = middle(place.below + place.above, place.x)
            _separate(floor)


def _separate(floor: list[Place]) -> None:
    """Moves the places of a floor apart, to the right and then back into the drawing."""
    edge = 6.0
    for place in floor:
        place.x = max(place.x, edge + place.width / 2)
        edge = place.x + place.width / 2 + 12
    edge = WIDTH - 6.0
    for place in reversed(floor):
        place.x = min(place.x, edge - place.width / 2)
        edge = place.x - place.width / 2 - 12


def house(modules: Mapping[str, Module]) -> str:
    arrows = room_groups(modules)
    floors = floors_of(reduced(arrows))
    arrange(floors)
    inside = {
        name: sorted({each.room.split(".")[1] for each in modules.values() if each.room.startswith(name + ".")})
        for name in ("serving", "jobs")
    }
    lines = {name: textwrap.wrap(", ".join(rooms), 27) for name, rooms in inside.items()}
    tall = 32 + 15 * max(map(len, lines.values()))
    boxes, curves = [], []
    step, box = 58, 26
    y = {len(floors) - 1: 10.0}
    for floor in range(len(floors) - 2, -1, -1):
        y[floor] = 10 + tall + 32 + (len(floors) - 2 - floor) * step
    for number, floor in enumerate(floors):
        for place in floor:
            height = tall if place.name in inside else box
            for other in place.below:
                start = y[number] + height
                end = y[number - 1]
                middle = (start + end) / 2
                head = ' marker-end="url(#head)"' if other.is_room else ""
                curves.append(
                    f'<path class="line" d="M{place.x:.1f} {start:.1f}C{place.x:.1f} {middle:.1f} {other.x:.1f} '
                    f'{middle:.1f} {other.x:.1f} {end:.1f}"{head}/>'
                )
            if not place.is_room:
                curves.append(f'<path class="line" d="M{place.x:.1f} {y[number]:.1f}v{box}"/>')
                continue
            kind = "top" if place.name in inside else "box"
            boxes.append(rectangle(place.x - place.width / 2, y[number], place.width, height, kind))
            boxes.append(words(place.x, y[number] + 17.5, place.name, "name", "middle"))
            for row, line in enumerate(lines.get(place.name, ())):
                boxes.append(words(place.x, y[number] + 35 + 15 * row, line, "small", "middle"))
    bottom = y[0] + box
    note = words(
        WIDTH / 2, bottom + 22, "Arrows: imports, without those that a longer way replaces.", "small", "middle"
    )
    return svg(bottom + 34, "The rooms of the code and their imports", [*curves, *boxes, note])


# A run


def run() -> str:
    """A row for each stage and a line for each folder, from its writer to its last reader."""
    folders = [DATASET, *dict.fromkeys(name for stage in STAGES for name in stage.outputs)]
    left, top, row = 92, 104, 46
    column = {name: left + 14 + (WIDTH - left - 40) * place / (len(folders) - 1) for place, name in enumerate(folders)}
    parts = []
    for name, x in column.items():
        used = [number for number, stage in enumerate(STAGES) if name in (*stage.inputs, *stage.outputs)]
        parts.append(words(x, top - 24, name, "small", turn=-50))
        start = top - 18 if name == DATASET else top + row * used[0] - 8
        parts.append(f'<path class="line" d="M{x:.1f} {start}V{top + row * used[-1] - 8}"/>')
    for number, stage in enumerate(STAGES):
        y = top + row * number
        parts.append(f'<path class="row" d="M0 {y + 22}H{WIDTH}"/>')
        parts.append(words(6, y - 3, stage.command, "name"))
        parts.append(words(6, y + 14, stage.does, "small over"))
    for number, stage in enumerate(STAGES):
        y = top + row * number - 8
        for name in (each for each in stage.inputs if each != ENCODER):
            parts.append(f'<circle class="read" cx="{column[name]:.1f}" cy="{y}" r="4"/>')
        for name in stage.outputs:
            parts.append(f'<circle class="write" cx="{column[name]:.1f}" cy="{y}" r="5.5"/>')
    y = top + row * len(STAGES) + 2
    parts.append(f'<circle class="write" cx="12" cy="{y - 4}" r="5.5"/>' + words(24, y, "writes the folder", "small"))
    parts.append(f'<circle class="read" cx="142" cy="{y - 4}" r="4"/>' + words(154, y, "reads the folder", "small"))
    return svg(y + 14, "The stages of a run and the folders that they read and write", parts)


# A request


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".") + "."


def request(modules: Mapping[str, Module]) -> str:
    parts, y = [], 10.0
    for number, name in enumerate(REQUEST):
        lines = textwrap.wrap(first_sentence(modules[name].path), 56)
        height = 28 + 15 * len(lines)
        if number:
            parts.append(f'<path class="line" d="M{WIDTH / 2} {y}v18" marker-end="url(#head)"/>')
            y += 18
        parts.append(rectangle(6, y, WIDTH - 12, height, "top" if name.startswith("serving") else "box"))
        parts.append(words(16, y + 18, name.replace(".", "/") + ".py", "name"))
        parts += [words(16, y + 35 + 15 * row, line, "small") for row, line in enumerate(lines)]
        y += height
    return svg(y + 10, "The modules that a request for recommendations passes", parts)


def drawings() -> dict[str, str]:
    """The drawings by the names of their files."""
    modules = read_modules()
    return {"house.svg": house(modules), "run.svg": run(), "request.svg": request(modules)}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in drawings().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
