"""Measures of the language in docstrings and comments.

    python -m tests.text [PATH...]

Prints, for every room and in all: words, "what" and "of which" (of whom, those, what, one, it, them) per 1,000 words,
and the share of the docstrings of functions with parameters that have an ``Args`` section. The exit status is 1 if the
total misses a limit. PATH: files or folders; default: the three packages.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import io
import itertools
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from tests.house import PACKAGES, ROOT, FunctionNode, parameters_of, source_files

WHAT_LIMIT, OF_LIMIT, ARGS_LIMIT = 1.0, 1.0, 0.35
WORD = re.compile(r"[a-z]+(?:['\u2019][a-z]+)?", re.IGNORECASE)
OF = ("which", "whom", "those", "what", "one", "it", "them")
ARGS = re.compile(r"^\s*Args:\s*$", re.MULTILINE)
DIRECTIVE = re.compile(r"noqa(?::[ A-Z0-9,]+)?|type: ?ignore(?:\[[\w, -]+\])?|fmt: ?(?:on|off|skip)|pragma: ?[\w ]+")
DOCUMENTED = (ast.Module, ast.ClassDef, *FunctionNode.__args__)


@dataclass(frozen=True)
class Counts:
    """Counts over the texts of some source files.

    ``parametrized``: docstrings of functions with parameters beside ``self`` and ``cls``; ``args``: those of them with
    an Args section.
    """

    words: int = 0
    what: int = 0
    of: int = 0
    parametrized: int = 0
    args: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def per_thousand(self, count: int) -> float:
        return 1000 * count / max(1, self.words)

    @property
    def args_share(self) -> float:
        return self.args / self.parametrized if self.parametrized else 1.0

    @property
    def within_limits(self) -> bool:
        """Whether both rates and the share of docstrings with Args meet their limits."""
        rates = self.per_thousand(self.what) <= WHAT_LIMIT and self.per_thousand(self.of) <= OF_LIMIT
        return rates and self.args_share >= ARGS_LIMIT


def docstrings(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yields every documented node with its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node, text


def prose(docstring: str) -> str:
    """A docstring without its doctest examples."""
    parts = doctest.DocTestParser().parse(docstring)
    return " ".join(part for part in parts if isinstance(part, str))


def comments(source: str) -> str:
    """All comments of a source text, joined in order, without directives to tools."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = (token.string.lstrip("#: ") for token in tokens if token.type == tokenize.COMMENT)
    return "\n".join(DIRECTIVE.sub("", text) for text in texts)


def count_words(text: str) -> Counts:
    words = [word.lower().replace("\u2019", "'") for word in WORD.findall(text)]
    pairs = itertools.pairwise(words)
    return Counts(
        words=len(words),
        what=sum(word.split("'")[0] == "what" for word in words),
        of=sum(first == "of" and second.split("'")[0] in OF for first, second in pairs),
    )


def count_source(source: str) -> Counts:
    """Counts the docstrings and comments of one source text."""
    total = count_words(comments(source))
    for node, text in docstrings(ast.parse(source)):
        total += count_words(prose(text))
        if isinstance(node, FunctionNode) and parameters_of(node):
            total += Counts(parametrized=1, args=int(ARGS.search(text) is not None))
    return total


def count_rooms(paths: Iterable[Path]) -> dict[str, Counts]:
    """Counts by folder, relative to the repository where the folder lies in it."""
    rooms: dict[str, Counts] = {}
    for path in paths:
        folder = path.resolve().parent
        name = str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder)
        rooms[name] = rooms.get(name, Counts()) + count_source(path.read_text(encoding="utf-8"))
    return rooms


def main(arguments: list[str] | None = None) -> int:
    out = argparse.ArgumentParser(description="Measures the language in docstrings and comments.")
    out.add_argument("paths", nargs="*", type=Path, metavar="PATH", help=f"default: {' '.join(PACKAGES)}")
    given: list[Path] = out.parse_args(arguments).paths
    listed = [sorted(path.rglob("*.py")) if path.is_dir() else [path] for path in given]
    rooms = count_rooms([file for files in listed for file in files] if given else source_files())
    total = sum(rooms.values(), start=Counts())
    print(f"{'room':28} {'words':>7} {'what':>6} {'of ..':>6} {'Args':>6}")
    for name, each in [*sorted(rooms.items()), ("in all", total)]:
        rates = f"{each.per_thousand(each.what):6.2f} {each.per_thousand(each.of):6.2f}"
        print(f"{name:28} {each.words:7} {rates} {each.args_share:6.0%}" + ("" if each.within_limits else "  over"))
    print(f"limits: what {WHAT_LIMIT:g} and of which {OF_LIMIT:g} in 1,000 words, Args {ARGS_LIMIT:.0%} at least")
    return int(not total.within_limits)


if __name__ == "__main__":
    sys.exit(main())
