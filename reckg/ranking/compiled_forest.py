"""The ranker's trees as machine code, made on this machine from the verified text by the library lleaves.

The sums are LightGBM's to the last bit: the same trees, added in the same order. What was compiled is kept in a folder
that is the user's alone, and taken from there only where its name, the hashes of the text, of what compiled it and of
itself, says that it is still the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reckg.folder_lock import locked

Predict = Callable[[np.ndarray], np.ndarray]

CHECKED_ROWS = 512  # random rows on which the compiled trees must equal LightGBM's
MISSING = 0.1  # share of their values that are NaN
WITHOUT = "the ranker's trees are evaluated by LightGBM, not compiled: %s"

logger = logging.getLogger(__name__)


class CompiledForest:
    """Trees as a function; safe to call from several threads."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def sums(self, features: np.ndarray, threads: int = 1) -> np.ndarray:
        """(r,) float64: the sum of the trees' values for (r, F) features."""
        return self._model.predict(np.ascontiguousarray(features, dtype=np.float64), n_jobs=threads)


def compiled_forest(text: str, reference: Predict, cache: Path | None = None) -> CompiledForest | None:
    """The trees of a LightGBM text model as machine code; None, and one line in the log that says why, where they are
    not to be had: the extra 'compiled' is not installed, or something failed.

    Args:
        text: LightGBM's text model, from a file whose hash was checked.
        reference: LightGBM's own sums for (r, F) float32 features.
        cache: where compiled trees are kept; None: RECKG_CACHE_DIR, or reckg in the user's cache directory.
    """
    began = time.perf_counter()
    try:
        import lleaves
    except ImportError as error:
        logger.info(WITHOUT, f"{error}; pip install 'reckg[compiled]' makes them several times faster")
        return None
    try:
        folder = private_folder(default_cache() / "forests" if cache is None else cache)
        with locked(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".compiling-") as beside:
            source = Path(beside) / "ranker.txt"
            source.write_text(text, encoding="utf-8")
            model = lleaves.Model(str(source))
            cached = _compile(model, text, folder, Path(beside) / "forest.o")
        forest = CompiledForest(model)
        _check(forest, reference, model.num_feature())
    except Exception as error:  # whatever fails there, LightGBM answers as well
        logger.warning(WITHOUT, f"{type(error).__name__}: {error}")
        return None
    how = "loaded from" if cached else "compiled into"
    logger.info(
        "the ranker's %d trees were %s %s in %.1f s", model.num_trees(), how, folder, time.perf_counter() - began
    )
    return forest


def default_cache() -> Path:
    """RECKG_CACHE_DIR, or reckg in the user's cache directory."""
    given = os.environ.get("RECKG_CACHE_DIR")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reckg"


def private_folder(path: Path) -> Path:
    """The folder, made where there is none. Raises PermissionError where anybody else may write into it or read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of this user alone (mode 0700); machine code is not kept there")
    return path


def _compile(model: Any, text: str, folder: Path, beside: Path) -> bool:
    """Makes the model ready; True where it was in the folder. ``beside``: where nobody looks while it is written."""
    key = _hash(text.encode(), *_made_by())
    for path in folder.glob(f"{key}-*.o"):
        if path.stem == f"{key}-{_hash(path.read_bytes())}":
            model.compile(cache=path, raw_score=True)
            return True
        path.unlink()  # damaged
    # one block of all trees: LightGBM's order of addition. Not inlined: that takes ten times as long to compile
    model.compile(cache=beside, raw_score=True, fblocksize=max(1, model.num_trees()), finline=False)
    os.replace(beside, folder / f"{key}-{_hash(beside.read_bytes())}.o")
    return False


def _made_by() -> list[bytes]:
    """What else the machine code depends on."""
    import llvmlite.binding as llvm

    versions = [importlib.metadata.version(name) for name in ("lleaves", "llvmlite")]
    parts = [*versions, llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    return [part.encode() for part in parts]


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _check(forest: CompiledForest, reference: Predict, n_features: int) -> None:
    """Raises ArithmeticError where the sums are not LightGBM's for random rows, some of their values missing."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((CHECKED_ROWS, n_features), dtype=np.float32) * rng.choice([0.1, 1, 10], n_features)
    rows = np.where(rng.random(rows.shape) < MISSING, np.nan, rows).astype(np.float32)
    found, expected = forest.sums(rows), reference(rows)
    if not np.array_equal(found, expected):
        raise ArithmeticError(f"the compiled sums differ from LightGBM's, by up to {np.abs(found - expected).max()}")
