"""Child processes of the server: started by exec, with the same code and one native thread each."""

from __future__ import annotations

import os
import sys

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def child_command(module: str, *arguments: str) -> list[str]:
    """Returns the command line that runs a module of this installation.

    The working directory is no part of the child's module path.

    Args:
        module: full name of the module.
        arguments: of its command line.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """Returns this process's environment with its module path, and one thread for the native libraries."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return os.environ | {"PYTHONPATH": path} | dict.fromkeys(ONE_THREAD, "1")


def do_without_pandas() -> None:
    """Keeps LightGBM from importing pandas. A worker never uses pandas, and the import takes a quarter of its start."""
    sys.modules["pandas"] = None  # type: ignore[assignment]  # None makes an import fail
