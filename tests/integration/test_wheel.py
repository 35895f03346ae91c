"""The wheel, installed in an environment outside the clone over the packages at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from reckg.recommend.golden import save_with_golden
from tests.house import ROOT
from tests.small_bundle import small_bundle

pytestmark = pytest.mark.slow

SOURCES = ("jobs", "proto", "reckg", "serving", "LICENSE", "README.md", "pyproject.toml", "setup.py")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that the clone stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder)]
    subprocess.run(build, check=True, env=os.environ | {"PYTHONPATH": ""})
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. Other packages come from the running environment."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    subprocess.run([*PIP, "--python", str(folder / "bin" / "python"), "install", "--no-deps", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "at_hand.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment: Path, folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a program of the environment in a folder, with ``path`` as PYTHONPATH."""
    command = [str(environment / "bin" / words[0]), *words[1:]]
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)


def foreign(folder: Path, name: str) -> str:
    """Writes another package of this name. Returns the folder for the path."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return str(folder)


def test_the_package_imports_and_answers_beside_a_foreign_package(environment: Path, tmp_path: Path) -> None:
    save_with_golden(small_bundle(), tmp_path / "bundle")
    code = "import jobs, reckg; answer = reckg.load('bundle').recommend('u001', 7)\n"
    code += "print(jobs.__file__, reckg.__file__, len(answer.items))"
    done = run(environment, tmp_path, "python", "-c", code, path=foreign(tmp_path / "other", "jobs"))
    assert done.returncode == 0, done.stderr
    jobs_file, reckg_file, count = done.stdout.split()
    assert Path(jobs_file).is_relative_to(tmp_path / "other")
    assert Path(reckg_file).is_relative_to(environment)
    assert count == "7"


IMPORT_ALL = """
import importlib, pkgutil, sys
roots = ("reckg", "jobs", "serving")
for root in roots:
    for each in pkgutil.walk_packages(importlib.import_module(root).__path__, root + "."):
        if not each.name.endswith(("__main__", ".redis")):
            importlib.import_module(each.name)
print(*{sys.modules[root].__file__.split("site-packages")[0] for root in roots})
"""


def test_every_module_imports(environment: Path, tmp_path: Path) -> None:
    done = run(environment, tmp_path, "python", "-W", "ignore", "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1 and done.stdout.startswith(str(environment))


def test_the_command_starts(environment: Path, tmp_path: Path) -> None:
    assert run(environment, tmp_path, "reckg", "--version").stdout == "reckg 0.1.0\n"
    assert run(environment, tmp_path, "python", "-m", "reckg", "--version").stdout == "reckg 0.1.0\n"


@pytest.mark.parametrize("name", ["jobs", "serving"])
def test_the_command_names_a_foreign_package(environment: Path, tmp_path: Path, name: str) -> None:
    done = run(environment, tmp_path, "reckg", "--version", path=foreign(tmp_path / "other", name))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"reckg: error: another package called {name!r} at {tmp_path / 'other' / name} hides")
    assert "PYTHONPATH" in done.stderr and "virtual environment" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_names_a_missing_package(environment: Path, tmp_path: Path) -> None:
    other = shutil.copytree(environment, tmp_path / "venv", symlinks=True)
    (package,) = other.glob("lib/python*/site-packages/serving")
    shutil.rmtree(package)
    done = run(other, tmp_path, "python", "-m", "reckg", "--version")
    assert done.returncode == 2
    assert done.stderr.startswith("reckg: error: the package 'serving', a part of reckg, is not at ")


def test_the_wheel_ships_types_and_the_contract(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"reckg/py.typed", "reckg/v1/recommender_pb2.pyi", "jobs/configs/bookshop.toml"} <= set(names)
    assert [name for name in names if name.endswith("share/reckg/proto/reckg/v1/recommender.proto")]
    assert not [name for name in names if name.startswith("tests/")]


def test_the_description_shows_no_dead_link(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload()
    assert isinstance(description, str) and "# " in description and len(description) > 1000
    links = re.findall(r"\]\(([^)]*)\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]*)\"", description, re.MULTILINE)
    assert not [link for groups in links for link in groups if link and not link.startswith("https://")]
