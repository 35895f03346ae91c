"""The command `reckg`, which starts here so that a foreign package called `jobs` or `serving` is found out."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("jobs", "serving")


def main() -> int:
    """Runs the command line. Returns the exit code; 2 if Python would take another package for a part of reckg.

    >>> from reckg.__main__ import main
    >>> import sys
    >>> sys.argv = ["reckg", "--help"]
    >>> main()
    Traceback (most recent call last):
    SystemExit: 0
    """
    for problem in filter(None, map(foreign_package, PACKAGES)):
        print(f"reckg: error: {problem}", file=sys.stderr)
        return 2
    from jobs.cli import main as run

    return run()


def foreign_package(name: str) -> str | None:
    """Finds out whether Python imports ``name`` from elsewhere than beside reckg.

    Args:
        name: a top-level package that is installed together with reckg.
    Returns:
        the error message, or None if the right package is found.
    """
    own = Path(__file__).resolve().parents[1] / name
    spec = find_spec(name)
    if spec is None:
        return f"the package {name!r}, a part of reckg, is not at {own}. Install reckg again."
    places = [Path(place).resolve() for place in spec.submodule_search_locations or [spec.origin or "unknown"]]
    if own in places:
        return None
    return (
        f"another package called {name!r} at {places[0]} hides reckg's own at {own}. Take {places[0].parent} off "
        "Python's path (PYTHONPATH, or the folder that the command starts in), or install reckg in a virtual "
        "environment of its own."
    )


if __name__ == "__main__":
    sys.exit(main())
