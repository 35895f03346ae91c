"""The names of reckg itself: lazily imported, listed, and the same for a type checker and at run time."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import reckg
from reckg.errors import FilterError
from reckg.retrieval.filters import Filters


def test_every_public_name_is_there_and_listed() -> None:
    assert reckg.__all__ == sorted(reckg.__all__)
    assert all(getattr(reckg, name) is not None for name in reckg.__all__)
    assert {*reckg.__all__} <= {*dir(reckg)}
    assert reckg.Filters is Filters and reckg.FilterError is FilterError
    with pytest.raises(AttributeError, match="module 'reckg' has no attribute 'Recomender'"):
        reckg.Recomender  # noqa: B018


def test_a_type_checker_sees_the_names_that_are_imported_lazily() -> None:
    tree = ast.parse(Path(str(reckg.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared == reckg._MODULES
    assert {*declared} < {*reckg.__all__}


def test_the_import_loads_nothing_heavy() -> None:
    code = "import json, sys, reckg; dir(reckg); print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = {name for name in json.loads(out) if name.partition(".")[0] in {"reckg", "numpy", "polars", "torch"}}
    assert loaded == {"reckg", "reckg.errors", "reckg.version"}
