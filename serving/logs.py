"""The log of the server's processes; what it says holds no user ids."""

from __future__ import annotations

import logging


def log_to_stderr(level: str = "info") -> None:
    """Lines on standard error from this level on."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s", force=True
    )
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it reports every way of loading that it tries
