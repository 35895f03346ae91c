"""Tests of ``--beside``: two commits of a tiny repository, each with its own copy of a benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import measure

BENCHMARK = """
import argparse, json, os, sys
from pathlib import Path
from {module} import SPEED

options = argparse.ArgumentParser()
options.add_argument("--out", type=Path)
options.add_argument("--size", type=int, default=1)
given = options.parse_args()
log = Path(os.environ["TURNS"])
log.write_text((log.read_text() if log.exists() else "") + "{module} " + os.environ["PYTHONPATH"] + chr(10))
turn = log.read_text().count("{module}")
figures = {{"speed": SPEED * given.size, "noisy": SPEED * turn, "{module}_only": 1.0, "none": 0.0}}
assert (Path.cwd().parent / "shared" / "data").is_dir()
result = {{"benchmark": "tiny", "figures": figures, "settings": {{"size": given.size}}, "machine": {{}},
          "versions": {{}}, "seed": 0, "commit": "{module}"}}
given.out.write_text(json.dumps(result))
sys.exit({status})
"""


def commit(root: Path, module: str, speed: float, status: int = 0) -> str:
    """Commits a benchmark that imports its figure from a module of its own."""

    def git(*words: str) -> str:
        name = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        return subprocess.run(
            ["git", "-C", str(root), *name, *words], check=True, capture_output=True, text=True
        ).stdout

    root.mkdir(exist_ok=True)
    if not (root / ".git").is_dir():
        (root.parent / "shared" / "data").mkdir(parents=True)
        git("init", "--quiet")
    folder = root / "tests" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for package in (root / "tests", folder):
        (package / "__init__.py").touch()
    for path in root.glob("*.py"):
        path.unlink()
    (root / f"{module}.py").write_text(f"SPEED = {speed}\n")
    (folder / "tiny.py").write_text(BENCHMARK.format(module=module, status=status))
    (root / "constraints.txt").touch()
    git("add", "--all")
    git("commit", "--quiet", "--message", module)
    return git("rev-parse", "HEAD").strip()


def compare(root: Path, *words: str) -> measure.Result:
    options = measure.parser("tiny").parse_known_args(words)[0]
    return measure.beside("tiny", options, words, root=root)


@pytest.fixture(autouse=True)
def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TURNS", str(tmp_path / "turns"))
    return tmp_path / "turns"


def test_each_commit_runs_its_own_copy_in_alternating_turns(tmp_path: Path, turns: Path) -> None:
    root = tmp_path / "repository"
    base = commit(root, "old_place", 2.0)
    commit(root, "new_place", 3.0)
    out = tmp_path / "out.json"
    result = compare(root, "--beside", base, "--turns", "3", "--size", "10", "--out", str(out))
    lines = [line.split() for line in turns.read_text().splitlines()]
    assert [module for module, _ in lines] == [
        "new_place",
        "old_place",
        "old_place",
        "new_place",
        "new_place",
        "old_place",
    ]
    assert len({folder for _, folder in lines}) == 2
    assert str(root) not in {folder for _, folder in lines}
    figures = result["figures"]
    assert (figures["speed"], figures["speed_beside"], figures["speed_ratio"]) == (30.0, 20.0, 1.5)
    assert not [name for name in figures if name.startswith(("none", "new_place", "old_place"))]
    assert result["settings"] == {"size": 10, "beside": "old_place", "turns": 3, "environments": 1}
    assert result["commit"] == "new_place"
    assert json.loads(out.read_text()) == result
    listed = subprocess.run(["git", "-C", str(root), "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_ratios_are_paired_within_turns() -> None:
    found = measure.ratios([({"a": 2.0}, {"a": 1.0}), ({"a": 30.0}, {"a": 10.0}), ({"a": 8.0}, {"a": 2.0})])
    assert found == {"a": 8.0, "a_beside": 2.0, "a_ratio": 3.0, "a_ratio_low": 2.0, "a_ratio_high": 4.0}
    assert measure.ratios([({"a": 2.0, "b": 1.0}, {"a": 0.0})]) == {}


def test_uncommitted_changes_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    base = commit(root, "place", 2.0)
    (root / "place.py").write_text("SPEED = 5\n")
    with pytest.raises(RuntimeError, match="commit them"):
        compare(root, "--beside", base)


def test_a_failing_benchmark_ends_the_comparison_and_leaves_no_worktree(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    base = commit(root, "broken", 2.0, status=7)
    commit(root, "place", 2.0)
    with pytest.raises(RuntimeError, match=r"tiny of .*there ended with 7"):
        compare(root, "--beside", base, "--turns", "1")
    listed = subprocess.run(["git", "-C", str(root), "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_other_pins_get_an_environment_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "constraints.txt").write_text("numpy==2.4.0\n")
    assert measure.interpreter(there, here, tmp_path / "environment") == Path(sys.executable)
    (there / "constraints.txt").write_text("numpy==2.3.0\n")
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command))
    assert measure.interpreter(there, here, tmp_path / "environment") == tmp_path / "environment" / "bin" / "python"
    assert ran[0] == [sys.executable, "-m", "venv", str(tmp_path / "environment")]
    assert str(there / "constraints.txt") in ran[1]


def test_every_benchmark_with_the_common_options_compares() -> None:
    sources = {path.stem: path.read_text() for path in (measure.ROOT / "tests" / "benchmarks").glob("*.py")}
    common = {name for name, text in sources.items() if "parser(" in text.replace("ArgumentParser(", "")}
    assert len(common - {"measure"}) > 8
    assert not [name for name in sorted(common - {"measure"}) if f'beside("{name}", ' not in sources[name]]
