"""reckg: recommendations from event logs, a catalogue and a knowledge graph.

``import reckg`` loads nothing heavy. Every public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from reckg.errors import (
    ArtifactError,
    CannotEmbedError,
    ConfigError,
    DataError,
    DeadlineError,
    FilterError,
    ReckgError,
    UnknownIdError,
)
from reckg.version import __version__

if TYPE_CHECKING:
    from reckg.pipeline.fit import fit
    from reckg.ranking.diversity import Diversity
    from reckg.recommend.answers import RankedItems, Recommendations, RecommendedItem
    from reckg.recommend.fold_in import UserRequest
    from reckg.recommend.recommender import Recommender
    from reckg.retrieval.filters import Filters

__all__ = [
    "ArtifactError",
    "CannotEmbedError",
    "ConfigError",
    "DataError",
    "DeadlineError",
    "Diversity",
    "FilterError",
    "Filters",
    "RankedItems",
    "ReckgError",
    "Recommendations",
    "RecommendedItem",
    "Recommender",
    "UnknownIdError",
    "UserRequest",
    "__version__",
    "fit",
    "load",
]

_MODULES = {
    "Diversity": "reckg.ranking.diversity",
    "Filters": "reckg.retrieval.filters",
    "RankedItems": "reckg.recommend.answers",
    "RecommendedItem": "reckg.recommend.answers",
    "Recommendations": "reckg.recommend.answers",
    "Recommender": "reckg.recommend.recommender",
    "UserRequest": "reckg.recommend.fold_in",
    "fit": "reckg.pipeline.fit",
}


def load(path: str | Path, verify: bool = True) -> Recommender:
    """Loads a bundle for use in Python.

    Args:
        path: the bundle's folder.
        verify: also check every file's hash and replay the golden requests.
    Returns:
        The recommender of the bundle.
    Raises:
        ArtifactError: the folder is no bundle, or is damaged. The message names the file and the damage.

    >>> import reckg
    >>> recommender = reckg.load("run/bundle")
    >>> len(recommender.recommend("u03", k=5).items)
    5
    """
    from reckg.recommend.golden import open_bundle
    from reckg.recommend.recommender import Recommender

    return Recommender(open_bundle(Path(path), verify=verify))


if not TYPE_CHECKING:  # a type checker reads the imports above and finds misspelled names

    def __getattr__(name: str) -> object:
        """Imports a public name when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module 'reckg' has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted({*globals(), *__all__})
