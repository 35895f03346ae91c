"""What the documentation shows must be so: commands parse, settings are known, links lead somewhere, code compiles."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import reckg
from jobs.cli import build_parser
from reckg.config.run_config import Config, parse_config
from reckg.version import __version__

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)?( tested)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    tested: bool
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(page.name, language, bool(tested), text) for language, tested, text in found]


def commands(page: Path) -> list[list[str]]:
    """The command lines of a page's sh blocks, as words, without comments."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(page):
        program = Path(words[0]).name
        if program == "reckg":
            assert build_parser().parse_args(words[1:]).command is not None
        elif program == "make":
            assert words[1] in targets, words
        elif words[1:3] == ["-m", "pytest"]:
            assert all((ROOT / each).exists() for each in words[3:] if not each.startswith("-")), words
        elif program in ("python", "python3") and words[1] == "-m" and words[2] != "venv":
            module = ROOT / words[2].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), words
        else:
            assert program in ("source", "pip", "touch", "python3", "pre-commit"), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_that_are_shown_are_known(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            values = tomllib.loads(block.text)
            if values.keys() & Config.model_fields.keys():
                parse_config(values, page.name)
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", page.read_text(encoding="utf-8")):
        if section in Config.model_fields:
            known = Config.model_fields[section].annotation
            assert known is not None and key in known.model_fields, f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_that_is_shown_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_reckg_that_are_shown_are_public(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "reckg":
                    assert node.attr in reckg.__all__, node.attr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_of_the_code_that_are_shown_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:reckg|serving|jobs|tests|proto|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_is_left_to_fill(page: Path) -> None:
    assert not re.search(r"TODO|FIXME|XXX", page.read_text(encoding="utf-8"))


def test_the_first_screen_of_the_readme() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:45]
    for needed in ("make demo", "make test", "reckg import tables", "reckg run", "reckg serve"):
        assert any(needed in line for line in screen), needed


def test_the_citation_fits_its_schema_and_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    subprocess.run([*command, str(ROOT / "CITATION.cff")], check=True, capture_output=True)
    assert citation["version"] == __version__
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def test_hooks_before_a_commit_call_installed_tools() -> None:
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for repository in configuration["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert (Path(sys.executable).parent / hook["entry"].split()[0]).exists(), hook


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for needed in (
        "Apache License",
        "Version 2.0, January 2004",
        "9. Accepting Warranty",
        "END OF TERMS AND CONDITIONS",
    ):
        assert needed in text


def test_pins_fit_the_declared_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    declared = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, declared):
        name = canonicalize_name(requirement.name)
        if name not in ("reckg", "faiss-gpu"):
            assert requirement.specifier.contains(pins[name]), requirement
            assert any(part.operator in ("==", "<") for part in requirement.specifier) or name == "packaging"
    assert not [version for version in pins.values() if "+" in version]
