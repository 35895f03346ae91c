"""reckg.fit on the bookshop's tables gives what `reckg run` gives on the same dataset folder."""

from __future__ import annotations

import gc
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import reckg
from jobs.cli import main
from reckg.config.run_config import parse_config
from reckg.data.bookshop.write import write_bookshop
from reckg.data.schema import TABLES
from reckg.errors import ArtifactError, ConfigError
from reckg.pipeline.fitted import FittedRecommender
from reckg.pipeline.run.stage_table import STAGES

CONFIG = """
[graph]
min_entity_degree = 2

[text]
encoder = "none"

[model]
embedding_dim = 16

[train]
epochs = 2

[rank]
trees = 10
candidates = 50
label_folds = 1

[evaluate]
tuning_settings = 1
bootstrap_samples = 100
"""
TIMES = ("seconds", "latency", "_ms", "per_second", "timing", "created", "fit_seconds")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``dataset``, ``config.toml`` and a finished run of the command line."""
    folder = tmp_path_factory.mktemp("shop")
    write_bookshop(folder / "dataset", users=120, items=80, seed=3)
    (folder / "config.toml").write_text(CONFIG)
    data, out = str(folder / "dataset"), str(folder / "run")
    assert main(["run", str(folder / "config.toml"), "--data", data, "--out", out]) == 0
    return folder


def given(shop: Path, kind: str) -> dict[str, Any]:
    """The shop's tables by their argument's name."""
    paths = {name: shop / "dataset" / f"{name}.parquet" for name in TABLES}
    if kind == "paths":
        return paths
    frames = {name: pl.read_parquet(path) for name, path in paths.items()}
    return frames if kind == "polars" else {name: pd.DataFrame(frame.to_dicts()) for name, frame in frames.items()}


def settings(shop: Path) -> dict[str, Any]:
    return tomllib.loads((shop / "dataset" / "dataset.toml").read_text())


def figures(value: Any) -> Any:
    """A report without times, which differ from run to run."""
    if isinstance(value, dict):
        return {key: figures(each) for key, each in value.items() if not any(word in key for word in TIMES)}
    return [figures(each) for each in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_fit_equals_run(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configs: dict[str, Any] = {
        "paths": shop / "config.toml",
        "polars": tomllib.loads(CONFIG),
        "pandas": parse_config(tomllib.loads(CONFIG), "test"),
    }
    expected = json.loads((shop / "run" / "report" / "report.json").read_text())
    golden = (shop / "run" / "bundle" / "golden.jsonl").read_bytes()
    for kind, config in configs.items():
        fitted = reckg.fit(**given(shop, kind), config=config, folder=tmp_path / "out", settings=settings(shop))
        # The keys of the stages hash the tables: frames that differed from the files would be refused.
        assert capsys.readouterr().out.count("up to date, skipped") == (0 if kind == "paths" else len(STAGES)), kind
        assert figures(fitted.evaluate()) == figures(expected)
        assert (tmp_path / "out" / "run" / "bundle" / "golden.jsonl").read_bytes() == golden
        assert fitted.bundle.version == reckg.load(shop / "run" / "bundle").bundle.version
    fewer = pl.read_parquet(shop / "dataset" / "interactions.parquet")[:-1]
    with pytest.raises(ConfigError, match="finished results"):
        reckg.fit(fewer, config=shop / "config.toml", folder=tmp_path / "out", settings={"name": "fewer"})


@pytest.fixture(scope="module")
def fitted(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> FittedRecommender:
    """A recommender whose folder is a copy of the finished run."""
    folder = tmp_path_factory.mktemp("fitted")
    shutil.copytree(shop / "run", folder / "run")
    return FittedRecommender(folder)


def test_the_saved_bundle_opens_and_answers_alike(fitted: FittedRecommender, tmp_path: Path) -> None:
    fitted.save(tmp_path / "bundle")
    user = fitted.bundle.user_ids.ids[0]
    assert reckg.load(tmp_path / "bundle").recommend(user, k=5).items == fitted.recommend(user, k=5).items
    with pytest.raises(ArtifactError, match="exists"):
        fitted.save(tmp_path / "bundle")
    fitted.save(tmp_path / "bundle", overwrite=True)


def test_the_evaluation_shows_itself(fitted: FittedRecommender) -> None:
    evaluation = fitted.evaluate()
    table = evaluation.to_polars()
    assert table["ndcg@10"].is_sorted(descending=True)
    assert table["ndcg@10"][0] == max(system["test"]["ndcg@10"]["mean"] for system in evaluation["systems"].values())
    assert "recall@10" in repr(evaluation) and "EASE" in repr(evaluation)
    assert "<table" in evaluation._repr_html_() and "EASE" in evaluation._repr_html_()


def test_a_temporary_folder_lives_as_long_as_the_recommender(
    monkeypatch: pytest.MonkeyPatch, shop: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("reckg.pipeline.fit.run_pipeline", lambda config, data, run: shutil.copytree(shop / "run", run))
    fitted = reckg.fit(**given(shop, "paths"), config=tomllib.loads(CONFIG))
    assert fitted.folder.parent == tmp_path and fitted.recommend(fitted.bundle.user_ids.ids[0]).items
    del fitted
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_fit_leaves_no_temporary_folder(monkeypatch: pytest.MonkeyPatch, shop: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match="config"):
        reckg.fit(**given(shop, "paths"), config={"train": {"epoch": 2}})
    with pytest.raises(reckg.DataError, match=r"^items"):
        reckg.fit(shop / "dataset" / "interactions.parquet", shop / "config.toml")
    assert list(tmp_path.iterdir()) == []
