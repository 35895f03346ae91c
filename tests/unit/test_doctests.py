"""The examples in docstrings run, and every function of the public interface has an example.

An example runs in a folder of its own with ``run/bundle`` (users u00 to u29, items i00 to i39) and ``data`` (the tables
of a small bookshop). It sees ``reckg``. Examples of the client also see ``client``: it is connected to a server of the
bundle store that holds the bundle as the versions world-1 and world-2.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import inspect
import io
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import reckg
import serving.client
from jobs.cli import build_parser
from reckg.bundle.store import publish
from reckg.data.bookshop.write import write_bookshop
from reckg.recommend.golden import open_bundle, save_with_golden
from serving.client import RecommenderClient
from tests import small_world
from tests.house import ROOT, source_files
from tests.serving_process import served
from tests.text import docstrings

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Documented:
    """The docstring of a module, class or function that holds examples."""

    path: Path
    name: str
    line: int
    text: str

    @property
    def title(self) -> str:
        return f"{self.path.relative_to(ROOT).with_suffix('')}:{self.name}".replace("/", ".")


def documented(path: Path, source: str) -> list[Documented]:
    """The docstrings of a source text that hold examples."""
    found = []
    for node, text in docstrings(ast.parse(source)):
        if ">>>" in text:
            name = getattr(node, "name", "module")
            found.append(Documented(path, name, getattr(node, "lineno", 1), text))
    return found


def run(example: Documented, names: dict[str, Any]) -> str:
    """Runs the examples of one docstring. Returns the report of the failed ones."""
    name, place = example.title, str(example.path)
    test = doctest.DocTestParser().get_doctest(example.text, dict(names), name, place, example.line)
    report = io.StringIO()
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=report.write)
    return report.getvalue()


EXAMPLES = [each for path in source_files() for each in documented(path, path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    world = small_world.world(folder / "world")
    (folder / "run").mkdir()
    save_with_golden(small_world.bundle(world), folder / "run" / "bundle")
    shutil.rmtree(folder / "world")
    write_bookshop(folder / "data", users=100, items=80)
    return folder


@pytest.fixture(scope="module")
def client(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecommenderClient]:
    folder = tmp_path_factory.mktemp("server")
    publish(prepared / "run" / "bundle", folder / "store")
    save_with_golden(replace(open_bundle(prepared / "run" / "bundle"), version="world-2"), folder / "newer")
    publish(folder / "newer", folder / "store")
    with served(folder / "store", folder / "log") as server, RecommenderClient(server.address, timeout_s=30) as client:
        yield client


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_example(
    example: Documented,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "examples")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__", "reckg": reckg}
    if example.path.is_relative_to(ROOT / "serving" / "client"):
        names["client"] = request.getfixturevalue("client")
    failed = run(example, names)
    assert not failed, failed


def test_a_wrong_example_fails() -> None:
    source = 'def add(a, b):\n    """Adds.\n\n    >>> 1 + 1\n    3\n    """\n\ndef other():\n    """No example."""\n'
    (example,) = documented(ROOT / "reckg" / "add.py", source)
    assert example.title == "reckg.add:add"
    assert "Expected:\n    3\nGot:\n    2" in run(example, {})
    assert run(Documented(example.path, "add", 1, ">>> 1 + 1\n2\n"), {}) == ""


def has_example(thing: Any) -> bool:
    return ">>>" in (inspect.getdoc(thing) or "")


def public_functions(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yields a function, or a class and its public methods, by name. Errors and constants have no examples."""
    if inspect.isfunction(thing):
        yield thing.__name__, thing
    elif inspect.isclass(thing) and not issubclass(thing, BaseException):
        yield thing.__name__, thing
        for name, member in vars(thing).items():
            if inspect.isfunction(member) and not name.startswith("_") and member.__module__ == thing.__module__:
                yield f"{thing.__name__}.{name}", member


@pytest.mark.parametrize("module", [reckg, serving.client], ids=lambda module: module.__name__)
def test_every_public_function_has_an_example(module: Any) -> None:
    public = [each for name in module.__all__ for each in public_functions(getattr(module, name))]
    assert len(public) > 1
    assert not [name for name, thing in public if not has_example(thing)]


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields every command of the command line, as its words, with the end of its help."""
    actions = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if words:
        yield words, parser.epilog or ""
    for action in actions:
        for name, below in action.choices.items():
            yield from commands(below, (*words, name))


def test_every_command_has_an_example() -> None:
    found = list(commands(build_parser()))
    lines = [line.strip() for _, epilog in found for line in epilog.splitlines() if line.startswith("  ")]
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "reckg", line
        assert build_parser().parse_args(words).command is not None, line
    missing = [words for words, _ in found if not any(line.startswith(" ".join(("reckg", *words))) for line in lines)]
    assert len(found) > 10
    assert not missing
