"""A recommender that was trained in this process, with the report on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from reckg.bundle.manifest import MANIFEST
from reckg.files.atomic_folder import written_folder
from reckg.recommend.golden import open_bundle
from reckg.recommend.recommender import Recommender


class Evaluation(dict[str, Any]):
    """The figures of report.json. Shows itself as a table of the systems, best first."""

    def to_polars(self) -> pl.DataFrame:
        """Returns the test accuracy of every system.

        Returns:
            A row for each system, best first: ``system``, its ``label``, and the mean of every metric over the test
            users.
        """
        rows = [
            {"system": name, "label": system["label"]} | {key: value["mean"] for key, value in system["test"].items()}
            for name, system in self["systems"].items()
        ]
        return pl.DataFrame(rows).sort(self["protocol"]["primary_metric"], descending=True)

    def _shown(self) -> pl.DataFrame:
        metric = self["protocol"]["primary_metric"]
        return self.to_polars().select("label", metric, f"recall@{metric.split('@')[1]}")

    def __repr__(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
            return str(self._shown())

    def _repr_html_(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
            return self._shown()._repr_html_()


class FittedRecommender(Recommender):
    """A recommender that ``reckg.fit`` has trained.

    ``folder`` holds the tables in ``dataset`` and the run in ``run``. A temporary folder lives as long as the
    recommender.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(open_bundle(folder / "run" / "bundle"))
        self.folder = folder

    def evaluate(self) -> Evaluation:
        """Returns the report's figures: reckg, its parts and the baselines on the test part of the interactions.

        The vectors of the report know the training and validation parts alone. The served ones know all interactions.
        """
        path = self.folder / "run" / "report" / "report.json"
        return Evaluation(json.loads(path.read_text(encoding="utf-8")))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes the bundle, a folder that ``reckg.load`` and ``reckg serve`` open.

        Args:
            path: folder to write.
            overwrite: replace the bundle at ``path``.
        Raises:
            ArtifactError: ``path`` exists and may not be replaced, or the disk refuses.
        """
        with written_folder(Path(path), overwrite=overwrite, marker=MANIFEST) as beside:
            shutil.copytree(self.folder / "run" / "bundle", beside, dirs_exist_ok=True)
