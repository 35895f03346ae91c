"""The documentation builds as a site: every link leads somewhere, and no page asks another machine for a file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import PACKAGES, ROOT


def build(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(out)]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT, out)
    assert built.returncode == 0, built.stderr
    return out


def test_the_site_has_the_reference(site: Path) -> None:
    page = (site / "api" / "reckg.html").read_text(encoding="utf-8")
    assert (
        'id="reckg.load"' in page and 'id="reckg.pipeline.fit.fit"' in page and "The recommender of the bundle" in page
    )


def test_no_page_loads_a_file_of_another_machine(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", text)
        loaded += re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+href=\"(https?:[^\"]+)", text)
        loaded += re.findall(r"<link[^>]+href=\"(https?:[^\"]+)\"[^>]+rel=\"(?:stylesheet|preconnect)", text)
        assert not loaded, page.name


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for package in PACKAGES:
        (folder / package).symlink_to(ROOT / package)
    with (folder / "docs" / "python.md").open("a", encoding="utf-8") as page:
        page.write("\n[page](missing.md) [heading](design.md#missing)\n")
    built = build(folder, tmp_path / "site")
    assert built.returncode != 0
    assert "'missing.md'" in built.stderr and "'design.md#missing'" in built.stderr
