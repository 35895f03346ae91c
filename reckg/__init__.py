"""reckg: event logs and a catalogue into recommendations.

``import reckg`` loads nothing heavy; what ``load`` needs is imported when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reckg.version import __version__

if TYPE_CHECKING:
    from reckg.recommend.recommender import Recommender

__all__ = ["__version__", "load"]


def load(path: str | Path, verify: bool = True) -> Recommender:
    """Loads a bundle for use in Python.

        recommendations = reckg.load("run/bundle").recommend("some user", k=10)

    Args:
        path: the bundle's folder.
        verify: also check every file's hash and replay the golden requests.
    Raises:
        ArtifactError: the folder is no bundle, or is damaged; the message names what is wrong.
    """
    from reckg.recommend.golden import open_bundle
    from reckg.recommend.recommender import Recommender

    return Recommender(open_bundle(Path(path), verify=verify))
