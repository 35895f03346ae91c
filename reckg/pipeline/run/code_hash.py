"""The hash of a stage's code, which tells whether its result is up to date."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("reckg", "jobs")
ROOT = Path(__file__).resolve().parents[3]

# Modules whose values are a part of the key on their own, or that change no result.
_NO_RESULT = (
    "reckg",
    "reckg.config.run_config",
    "reckg.errors",
    "reckg.pipeline.fit",
    "reckg.pipeline.run.code_hash",
    "reckg.pipeline.run.pipeline",
    "reckg.pipeline.run.stage_table",
    "reckg.pipeline.run.state",
    "reckg.version",
    "jobs.cli",
)


def code_sha256(module: str) -> str:
    """Hashes the code of a module and of every module of reckg and jobs that it imports, directly or not.

    Comments, docstrings and the layout of lines change no result and do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(_find_imported_files(module)):
        digest.update(f"{path.relative_to(ROOT)} {source_sha256(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


@cache
def source_sha256(source: str) -> str:
    """Hashes the syntax tree of a source text, without line numbers and without texts that stand alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                block[:] = [statement for statement in block if not _is_text(statement)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a docstring, or another text without effect."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _find_imported_files(module: str) -> set[Path]:
    waiting, seen, files = [module], set(_NO_RESULT), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _source_file(name)
        if path is not None:
            files.add(path)
            waiting += find_imported_modules(path.read_text(encoding="utf-8"))
    return files


@cache
def find_imported_modules(source: str) -> tuple[str, ...]:
    """Names the modules of reckg and jobs that a source text imports, at the top or inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] in PACKAGES)


def _source_file(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None
