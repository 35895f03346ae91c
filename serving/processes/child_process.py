"""How the server starts processes of its own: by exec, with the same code, one native thread each."""

from __future__ import annotations

import os
import sys

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def child_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this installation, whatever the working directory holds."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """This process's environment, its module path, and one thread a process for the native libraries."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return os.environ | {"PYTHONPATH": path} | dict.fromkeys(ONE_THREAD, "1")


def do_without_pandas() -> None:
    """Keeps LightGBM from importing pandas, which takes a quarter of a worker's start and is never used in one."""
    sys.modules["pandas"] = None  # type: ignore[assignment]
