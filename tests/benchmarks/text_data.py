"""The data sets of the benchmarks of the text encoder, as dataset folders, and the settings of their runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from jobs.commands.import_data import import_data
from reckg.data.bookshop.write import write_bookshop
from tests.benchmarks.measure import ROOT

CONFIGS = ROOT / "jobs" / "configs"
SHARED = ROOT.parent / "shared" / "data"


def datasets(folder: Path, small: bool = False) -> dict[str, Path]:
    """The bookshop and, where the shared data are there, ml-100k-split, written below a folder once."""
    found = {"bookshop": folder / "bookshop"}
    if not found["bookshop"].exists():
        size = {"users": 200, "items": 150} if small else {}
        write_bookshop(found["bookshop"], **size)
    if (SHARED / "ml-100k-split").is_dir() and not small:
        found["ml-100k"] = folder / "ml-100k"
        if not found["ml-100k"].exists():
            import_data("recbole", SHARED / "ml-100k-split", found["ml-100k"], name="ml-100k")
    elif not small:
        print(f"ml-100k is left out: {SHARED} is not there")
    return found


def settings(name: str) -> dict[str, dict[str, Any]]:
    """The sections of a data set's configuration; with the offline encoder."""
    values = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))
    values.setdefault("text", {})["encoder"] = "offline"
    return values
