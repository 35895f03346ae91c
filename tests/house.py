"""The architecture as the imports show it: rooms, arrows between them, circles, and files and functions of great size.

    python -m tests.house

A room is a folder of ``reckg``, ``jobs`` or ``serving``, or a file that lies loose in one of these. Imports inside
functions and under ``TYPE_CHECKING`` count like others. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reckg", "jobs", "serving")
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
MANY_PARAMETERS, LOOSE = 5, 3

Arrows = Mapping[str, set[str]]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """An import statement. ``later`` marks one inside a function or for type checking only."""

    module: str
    line: int
    later: bool = False


@dataclass(frozen=True)
class Function:
    """A function with its length in lines and its number of parameters, ``self`` and ``cls`` not counted."""

    name: str
    lines: int
    parameters: int


@dataclass(frozen=True)
class Module:
    """A parsed source file."""

    name: str
    path: Path
    lines: int
    imports: tuple[Import, ...]
    functions: tuple[Function, ...]

    @property
    def room(self) -> str:
        return room_of(self.name, is_package=self.path.name == "__init__.py")


def imports_of(tree: ast.AST) -> list[Import]:
    """Lists every import of a syntax tree by the full name of the imported thing."""
    found: list[Import] = []

    def visit(node: ast.AST, later: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative imports are not used here"
            found.extend(Import(f"{node.module}.{alias.name}", node.lineno, later) for alias in node.names)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        inside = later or typing_only or isinstance(node, FunctionNode)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, False)
    return found


def functions_of(tree: ast.AST, module: str) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(f"{module}:{node.lineno} {node.name}", lines, len(parameters_of(node)))


def parameters_of(node: FunctionNode) -> list[str]:
    """The parameters' names, without ``self`` and ``cls``."""
    own = node.args
    listed = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
    return [each.arg for each in listed if each.arg not in ("self", "cls")]


def source_files(root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> list[Path]:
    """The packages' Python files without the generated ones."""
    files = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return [path for path in files if path.parent != root / "reckg" / "v1"]


def read_modules(root: Path = ROOT) -> dict[str, Module]:
    """Parses every source file. Keys are module names."""
    modules = {}
    for path in source_files(root):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        functions = tuple(functions_of(tree, name))
        modules[name] = Module(name, path, len(source.splitlines()), tuple(imports_of(tree)), functions)
    return modules


def room_of(module: str, *, is_package: bool) -> str:
    """The folder of a module as a dotted name; a file that lies loose in a package is a room by itself."""
    folder = module if is_package else module.rpartition(".")[0]
    return module if folder in PACKAGES else folder


def imported_module(name: str, modules: Mapping[str, object]) -> str | None:
    """The longest prefix of an imported name that is a module of the project. Generated modules are none."""
    if name.startswith("reckg.v1."):
        return None
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def file_arrows(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Modules, each with the other modules that it imports."""
    arrows = {}
    for name, module in modules.items():
        targets = {imported_module(each.module, modules) for each in module.imports}
        arrows[name] = {target for target in targets if target is not None} - {name}
    return arrows


def room_arrows(modules: Mapping[str, Module], arrows: Arrows) -> dict[str, set[str]]:
    """Rooms, each with the other rooms that its modules import."""
    rooms: dict[str, set[str]] = {module.room: set() for module in modules.values()}
    for name, targets in arrows.items():
        rooms[modules[name].room] |= {modules[target].room for target in targets}
    return {room: targets - {room} for room, targets in rooms.items()}


def arrows_back_up(rooms: Arrows, order: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (room, imported room) where the imported room does not stand before the importing one.

    Args:
        rooms: rooms, each with the rooms that it imports.
        order: all rooms, ground first.
    """
    rank = {room: place for place, room in enumerate(order)}
    missing = sorted(set(rooms) - set(rank))
    if missing:
        raise KeyError(f"rooms without a place in the order: {missing}")
    return [(room, target) for room in rooms for target in sorted(rooms[room]) if rank[target] > rank[room]]


def circles(arrows: Arrows) -> list[list[str]]:
    """The groups of nodes that reach each other along the arrows."""
    reached = {node: _reachable(arrows, node) for node in arrows}
    groups = {
        frozenset(other for other in reached[node] if node in reached[other])
        for node in arrows
        if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(arrows: Arrows, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(arrows.get(node, ()))
    return found


def loose_files(modules: Mapping[str, Module]) -> list[str]:
    """The files in ``reckg/`` beside its ``__init__.py``."""
    return [
        name
        for name, module in modules.items()
        if name.count(".") == 1 and module.path.name != "__init__.py" and name.startswith("reckg.")
    ]


def main() -> int:
    from tests.unit.test_import_rules import ROOMS

    modules = read_modules()
    files = file_arrows(modules)
    rooms = room_arrows(modules, files)
    order = [room.name for room in ROOMS]
    unplaced = sorted(set(rooms) - set(order))
    for room in sorted(rooms, key=lambda name: order.index(name) if name in order else len(order)):
        print(f"{room:28} -> {' '.join(sorted(rooms[room]))}")
    functions = [function for module in modules.values() for function in module.functions]
    long_files = [f"{each.name} {each.lines}" for each in modules.values() if each.lines > FILE_LINES]
    long_functions = [f"{each.name} {each.lines}" for each in functions if each.lines > FUNCTION_LINES]
    wide = [f"{each.name} {each.parameters}" for each in functions if each.parameters > PARAMETERS]
    found: dict[str, tuple[list[str], int]] = {
        "rooms without a place": (unplaced, 0),
        "arrows back up": ([f"{a} -> {b}" for a, b in arrows_back_up(rooms, [*order, *unplaced])], 0),
        "circles of files": ([" ".join(circle) for circle in circles(files)], 0),
        "circles of rooms": ([" ".join(circle) for circle in circles(rooms)], 0),
        "loose files in reckg": (loose_files(modules), LOOSE),
        f"files over {FILE_LINES} lines": (long_files, 0),
        f"functions over {FUNCTION_LINES} lines": (long_functions, 0),
        f"functions with over {PARAMETERS} parameters": (wide, MANY_PARAMETERS),
    }
    print(f"\nfiles {len(modules)}, rooms {len(rooms)}, arrows between rooms {sum(map(len, rooms.values()))}")
    for name, (entries, limit) in found.items():
        print(f"{name}: {len(entries)} (at most {limit})", *entries, sep="\n    ")
    return int(any(len(entries) > limit for entries, limit in found.values()))


if __name__ == "__main__":
    sys.exit(main())
