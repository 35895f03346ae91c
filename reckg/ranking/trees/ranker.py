"""The served ranker: a blend of source scores plus LightGBM trees, and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np

from reckg.errors import ArtifactError
from reckg.files.file_hash import file_sha256
from reckg.ranking.features.extract import ALL_FEATURES, FEATURES
from reckg.ranking.sources.candidates import SOURCES, CandidateCounts
from reckg.ranking.trees.blend import BLENDED, Blend
from reckg.ranking.trees.compiled_forest import CompiledForest, compile_forest
from reckg.retrieval.scored_items import ScoredItems

if TYPE_CHECKING:
    from reckg.ranking.trees.ranker_info import RankerInfo

FORMAT_VERSION = 2
SHORT = 9  # most interactions of a short history


class Ranker:
    """A trained ranker, safe to call from several threads."""

    def __init__(self, model: str, blend: Blend, depths: CandidateCounts, info: RankerInfo) -> None:
        self.depths = depths  # number of candidates by source in training
        self.ranks_cold = bool(info.get("cold_users", {}).get("served", False))  # users without a history too
        self._model = model
        self._booster = lgb.Booster(model_str=model)
        self._compiled: CompiledForest | None = None
        self.blend = blend
        self.info = info
        self.features = ALL_FEATURES[: self._booster.num_feature()]

    def order_of(self, length: np.ndarray) -> np.ndarray:
        """Names the order of users' lists, which the guard chose by the length of their history.

        Args:
            length: (n,) interactions.
        Returns:
            (n,) of "ranker", "retrieval" or "popular".
        """
        groups = self.info.get("groups", {})
        short, long = (groups[name]["order"] if name in groups else "ranker" for name in ("short", "long"))
        return np.where((length > 0) & (length <= SHORT), short, np.where(length > SHORT, long, "ranker"))

    def compile(self) -> bool:
        """Makes machine code of the trees, which gives the same bits in less time.

        Returns:
            Whether it worked. If not, the log gives the reason, and LightGBM evaluates the trees as before.
        """
        if self._compiled is None and self._booster.num_trees():
            self._compiled = compile_forest(self._model, self._tree_sums)
        return self._compiled is not None

    def _tree_sums(self, features: np.ndarray, threads: int = 1) -> np.ndarray:
        """Sums the trees' values: (r,) float64."""
        if self._compiled is not None:
            return self._compiled.sums(features, threads)
        return np.asarray(self._booster.predict(features, raw_score=True, num_threads=threads))

    def rerank(self, candidates: ScoredItems, features: np.ndarray, threads: int = 1) -> ScoredItems:
        """Orders the candidates anew. Equal scores stay in retrieval order.

        Args:
            candidates: (n, c), in retrieval order.
            features: (n * c, F) float32, of the same candidates.
            threads: of the trees; 1 is fastest for a single request.
        Returns:
            (n, c): the same items; score is the blend plus the trees' sum, comparable within a list only.
        Raises:
            ValueError: the features do not fit the candidates.
        """
        shape = candidates.item_idx.shape
        if features.shape != (shape[0] * shape[1], len(self.features)):
            raise ValueError(f"features have the shape {features.shape}, candidates {shape}: expected n * c rows")
        if not len(features):
            return candidates
        score = (self.blend.scores(features) + self._tree_sums(features, threads)).astype(np.float32).reshape(shape)
        score[candidates.item_idx < 0] = -np.inf
        order = np.argsort(-score, axis=1, kind="stable")
        return ScoredItems(
            item_idx=np.take_along_axis(candidates.item_idx, order, axis=1),
            score=np.take_along_axis(score, order, axis=1),
        )

    def save(self, folder: Path) -> None:
        """Writes ``ranker.txt`` (LightGBM's text model) and ``ranker.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ranker.txt").write_text(self._model, encoding="utf-8")
        write_description(
            folder,
            served=True,
            features=list(self.features),
            blend=self.blend.weights,
            depths=dict(self.depths),
            sha256=file_sha256(folder / "ranker.txt"),
            info=self.info,
        )


def load_ranker(folder: Path, *, checked: bool = False) -> Ranker | None:
    """Reads a ranker that ``save`` wrote.

    The hash is checked before LightGBM reads the text: a damaged model can end the process.

    Args:
        checked: the caller has checked the hashes of the folder's files; otherwise the model's is checked here.
    Returns:
        None if the ranker was refused in training.
    Raises:
        ArtifactError: a file is missing, was changed, or is of another version.
    """
    again = "Run 'reckg rank' again."
    path = folder / "ranker.txt"
    try:
        description = json.loads((folder / "ranker.json").read_text(encoding="utf-8"))
        if description["format_version"] != FORMAT_VERSION:
            raise ArtifactError(
                f"{folder} holds a ranker of format {description['format_version']!r}, this version of reckg reads "
                f"{FORMAT_VERSION}. {again}"
            )
        if not description["served"]:
            return None
        if description["features"] not in (list(FEATURES), list(ALL_FEATURES)):
            raise ArtifactError(
                f"{folder}: the ranker was trained on other features than this version computes. {again}"
            )
        if not checked and (found := file_sha256(path)) != description["sha256"]:
            raise ArtifactError(f"{path} is damaged: its sha256 is {found[:12]}, ranker.json says otherwise. {again}")
        blend = Blend({str(name): float(weight) for name, weight in description["blend"].items()})
        if not set(blend.weights) <= set(BLENDED):
            raise ArtifactError(f"{folder}: the blend names unknown scores {sorted(blend.weights)}. {again}")
        depths = {str(name): int(depth) for name, depth in description["depths"].items()}
        if not set(depths) <= set(SOURCES) or depths.get("vectors", 0) < 1:
            raise ArtifactError(f"{folder}: the candidates come from unknown sources {sorted(depths)}. {again}")
        return Ranker(path.read_text(encoding="utf-8"), blend, depths, description["info"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, lgb.basic.LightGBMError) as error:
        raise ArtifactError(
            f"the ranker in {folder} cannot be read ({type(error).__name__}: {error}). {again}"
        ) from error


def write_description(folder: Path, **content: Any) -> None:
    """Writes ``ranker.json`` into ``folder``."""
    text = json.dumps({"format_version": FORMAT_VERSION, **content}, indent=2)
    (folder / "ranker.json").write_text(text + "\n", encoding="utf-8")
