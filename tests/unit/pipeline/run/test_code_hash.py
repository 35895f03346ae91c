"""The hash of a stage's code: comments and docstrings leave it as it is, code does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reckg.pipeline.run import code_hash
from reckg.pipeline.run.code_hash import ROOT, code_sha256, find_imported_modules, source_sha256
from reckg.pipeline.run.stage_table import STAGES

SOURCE = '"""Some ids."""\n\nLIMIT = 3\n\n\ndef first(ids):\n    """Returns the first."""\n    return ids[:LIMIT]\n'


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the library, whose code is hashed in place of the original."""
    shutil.copytree(ROOT / "reckg", tmp_path / "reckg", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_hash, "ROOT", tmp_path)
    return tmp_path / "reckg"


def hashes() -> dict[str, str]:
    return {stage.name: code_sha256(stage.module) for stage in STAGES}


@pytest.mark.parametrize("name", ["data/ids.py", "model/training/train.py"])
def test_a_comment_or_a_docstring_leaves_every_stage_up_to_date(library: Path, name: str) -> None:
    before, text = hashes(), (library / name).read_text(encoding="utf-8")
    changed = text.replace('"""', '"""Corrected. ', 1) + "\n# A comment at the end.\n"
    (library / name).write_text(changed, encoding="utf-8")
    assert hashes() == before


@pytest.mark.parametrize(("name", "stages"), [("data/ids.py", {"build_graph"}), ("model/training/train.py", {"train"})])
def test_a_changed_constant_makes_its_stages_run_again(library: Path, name: str, stages: set[str]) -> None:
    before, text = hashes(), (library / name).read_text(encoding="utf-8")
    (library / name).write_text(text + "\nLIMIT = 3\n", encoding="utf-8")
    one = hashes()
    (library / name).write_text(text + "\nLIMIT = 4\n", encoding="utf-8")
    other = hashes()
    differs = {stage for stage in before if len({before[stage], one[stage], other[stage]}) == 3}
    assert stages <= differs and "index" not in differs


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Some ids."""', '"""A few ids."""'),
        ('"""Returns the first."""', '"""Returns the first ids."""\n    # at most LIMIT'),
        ('    """Returns the first."""\n', ""),
        ("\n\n\n", "\n"),
        ("ids[:LIMIT]", "ids[: LIMIT]"),
    ],
)
def test_text_and_layout_do_not_count(old: str, new: str) -> None:
    assert old in SOURCE
    assert source_sha256(SOURCE.replace(old, new)) == source_sha256(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("ids[:LIMIT]", "ids[LIMIT:]"),
        ("return ids[:LIMIT]", 'return """Returns the first."""'),
        ("(ids)", "(ids, key=None)"),
    ],
)
def test_code_counts(old: str, new: str) -> None:
    assert old in SOURCE
    assert source_sha256(SOURCE.replace(old, new)) != source_sha256(SOURCE)


def test_a_function_of_a_docstring_alone_is_hashed() -> None:
    assert source_sha256('def f():\n    """One."""\n') == source_sha256('def f():\n    """Two."""\n')


def test_imports_are_followed_inside_functions_too() -> None:
    source = "import reckg.errors\nimport numpy\n\n\ndef f():\n    from reckg.data import ids\n"
    assert set(find_imported_modules(source)) == {"reckg.errors", "reckg.data", "reckg.data.ids"}


def test_modules_differ() -> None:
    assert code_sha256("reckg.data.ids") != code_sha256("reckg.data.schema")
