"""A small bookshop through every stage by the command line, then served, asked, killed and resumed."""

from __future__ import annotations

import json
import math
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from jobs.cli import main
from jobs.commands.demo import running_server, some_user
from reckg.config.run_config import read_config
from reckg.data.bookshop.write import write_bookshop
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.run.stage_table import STAGES
from reckg.pipeline.run.state import RunState
from reckg.pipeline.stages import folds as label_folds
from reckg.pipeline.stages.embed import embed_train
from reckg.pipeline.stages.train import train
from tests.unit.test_docs import ROOT, blocks

CONFIG = """
[graph]
min_entity_degree = 2

[text]
max_tokens = 32

[model]
embedding_dim = 16

[train]
epochs = 6
patience = 6
batch_size = 256
learning_rate = 0.02

[rank]
trees = 20
candidates = 50
label_folds = 1

[evaluate]
tuning_settings = 3
bootstrap_samples = 100
"""
SYSTEMS = {"reckg", "model", "retrieval", "popularity", "popularity_recent", "item_knn", "ease", "als"}


@dataclass(frozen=True)
class Shop:
    """A work folder laid out like the repository after the demonstration, with a finished run."""

    folder: Path
    out: str  # what the command printed

    @property
    def dataset(self) -> Path:
        return self.folder / "build/demo/dataset"

    @property
    def config(self) -> Path:
        return self.folder / "jobs/configs/bookshop.toml"

    @property
    def run(self) -> Path:
        return self.folder / "build/demo/run"

    def arguments(self, out: Path) -> list[str]:
        return [str(self.config), "--data", str(self.dataset), "--out", str(out)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"), "")
    write_bookshop(shop.dataset, users=300, items=200, seed=3)
    shop.config.parent.mkdir(parents=True)
    shop.config.write_text(CONFIG)
    command = [sys.executable, "-m", "jobs.cli", "run", *shop.arguments(shop.run)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return Shop(shop.folder, done.stdout)


def test_the_run_is_whole(shop: Shop) -> None:
    state = RunState.read(shop.run)
    assert [record.status for record in state.stages.values()] == ["done"] * len(STAGES)
    report = json.loads((shop.run / "report/report.json").read_text())
    depths = json.loads((shop.run / "ranker/ranker.json").read_text())["info"]["depths"]
    assert len(depths) > 1 and "vectors" in depths
    assert set(report["systems"]) == SYSTEMS | {f"source_{name}" for name in depths if name != "vectors"}
    for system in report["systems"].values():
        for metric in ("recall@10", "ndcg@10", "recall@20", "ndcg@20"):
            interval = system["test"][metric]
            assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
    page = (shop.run / "report/report.html").read_text(encoding="utf-8")
    assert "EASE" in page and 'src="http' not in page


def test_the_summary_is_printed(shop: Shop) -> None:
    lines = shop.out.splitlines()
    for label in ("EASE", "item-kNN", "popularity", "reckg"):
        assert any(line.startswith(label) and line.count("[") == 2 for line in lines), label
    for start in ("verdict: ", f"report: {shop.run}", f"bundle: {shop.run}", "seconds: build-graph "):
        assert any(line.startswith(start) for line in lines), start


def test_the_model_learned_something(shop: Shop) -> None:
    systems = json.loads((shop.run / "report/report.json").read_text())["systems"]
    assert systems["model"]["test"]["recall@20"]["mean"] > 1.5 * 20 / 200  # a random order finds a tenth


def test_the_manifest_says_which_index_and_what_it_finds(shop: Shop) -> None:
    said = json.loads((shop.run / "bundle/manifest.json").read_text())["index"]
    assert (said["kind"], said["compression"]) == ("flat", "none")
    assert (said["recall"]["recall"], said["recall"]["k"], said["recall"]["target"]) == (1.0, 50, 0.95)
    assert said["recall"]["queries"] > 0


def test_a_fold_gives_labels_from_the_training_part(shop: Shop) -> None:
    whole, fold = read_prepared(shop.run), read_prepared(shop.run / "folds/0")
    held = (fold.interactions["split"] == "held").to_numpy()
    assert held.any() and set(whole.interactions.filter(pl.Series(held))["split"]) == {"train"}
    assert fold.interactions.drop("split").equals(whole.interactions.drop("split"))
    assert json.loads((shop.run / "folds/folds.json").read_text()) == {"folds": 1}
    assert json.loads((shop.run / "ranker/ranker.json").read_text())["info"]["label_sets"] == 2
    assert not (shop.run / "folds/0/model").exists()


@pytest.mark.slow
def test_the_model_of_a_fold_never_saw_its_labels(shop: Shop, tmp_path: Path) -> None:
    """Trained again with other labels it has the same vectors, bit by bit."""
    fold, config = read_prepared(shop.run / "folds/0"), read_config(shop.config)
    label = pl.col("split") == "held"
    n_items = len(fold.items)
    other = fold.interactions.with_columns(
        item_idx=pl.when(label).then(n_items - 1 - pl.col("item_idx")).otherwise("item_idx")
    )
    assert not other.equals(fold.interactions)
    parts = fold.interactions["split"].to_numpy()
    label_folds._write_data(shop.run, tmp_path / "other", parts, replace(fold, interactions=other))
    train(label_folds._as_trained(config, shop.run), shop.dataset, tmp_path / "other")
    embed_train(config, tmp_path / "other")
    for name in ("train", "text"):
        path = f"embeddings/{name}.safetensors"
        assert (tmp_path / "other" / path).read_bytes() == (shop.run / "folds/0" / path).read_bytes()
    assert (shop.run / "folds/0/embeddings/train.safetensors").read_bytes() != (
        shop.run / "embeddings/train.safetensors"
    ).read_bytes()


def test_a_second_run_computes_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in shop.run.rglob("*") if path.is_file()}
    assert main(["run", *shop.arguments(shop.run)]) == 0
    assert capsys.readouterr().out.count("up to date, skipped") == len(STAGES)
    changed = [p.name for p, at in before.items() if p.stat().st_mtime_ns != at]
    assert set(changed) <= {"state.json", "config.toml", ".lock"}


def test_other_settings_do_not_replace_it(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.toml").write_text(CONFIG.replace("trees = 20", "trees = 21"))
    code = main(["run", str(tmp_path / "other.toml"), "--data", str(shop.dataset), "--out", str(shop.run)])
    assert code == 2
    error = capsys.readouterr().err
    assert "rank (rank.trees was 20, is 21)" in error and "--overwrite" in error
    assert "train" not in error


def test_served_answers_equal_the_offline_ones(shop: Shop) -> None:
    import reckg
    from serving.client import RecommenderClient

    recommender = reckg.load(shop.run / "bundle")
    user_id, titles = some_user(shop.run / "bundle")
    assert titles and all(titles)
    with running_server(shop.run / "bundle") as address, RecommenderClient(address, timeout_s=20) as client:
        for asked in (user_id, *recommender.bundle.user_ids.ids[:20].to_list()):
            served, offline = client.recommend(asked, k=15), recommender.recommend(asked, k=15)
            assert [item.item_id for item in served.items] == [item.item_id for item in offline.items]
            np.testing.assert_allclose([i.score for i in served.items], [i.score for i in offline.items], rtol=1e-5)
            assert len(served.items) == 15
            seen = set(recommender.bundle.history.items(recommender.bundle.user_ids.idx(asked)).tolist())
            assert not seen & set(recommender.bundle.item_ids.indices([i.item_id for i in served.items]).tolist())
        unknown = client.recommend("nobody we know", k=5)
        assert len(unknown.items) == 5 and unknown.fallback
        similar = client.similar_items(unknown.items[0].item_id, k=5)
        assert len(similar.items) == 5
        assert unknown.items[0].item_id not in {item.item_id for item in similar.items}


def test_batch_answers_equal_the_single_ones(shop: Shop, tmp_path: Path) -> None:
    import reckg

    assert main(["recommend", str(shop.run / "bundle"), "--out", str(tmp_path / "recs.parquet"), "--k", "5"]) == 0
    rows = pl.read_parquet(tmp_path / "recs.parquet")
    recommender = reckg.load(shop.run / "bundle")
    assert rows["user_id"].n_unique() == len(recommender.bundle.user_ids)
    for user_id in recommender.bundle.user_ids.ids[:10]:
        single = [item.item_id for item in recommender.recommend(user_id, k=5).items]
        assert rows.filter(pl.col("user_id") == user_id).sort("rank")["item_id"].to_list() == single


def test_what_is_folded_in_is_what_is_stored(shop: Shop) -> None:
    import reckg

    bundle = reckg.load(shop.run / "bundle").bundle
    for user in range(0, len(bundle.user_ids), 7):
        _, rows = bundle.history.rows(np.array([user]))
        weights = bundle.history.weight[rows]
        vector, _ = bundle.embedder.embed_user(bundle.history.items(user), user_idx=user, weights=weights)
        np.testing.assert_allclose(vector, bundle.user_vectors[user], atol=1e-5)
    names = bundle.embedder.entities
    columns = ("genres", "language", "price", "publisher", "year")
    rows = bundle.items.select("item_id", *(name for name in columns if name in bundle.items.columns))
    for item, row in enumerate(rows.drop("item_id").to_dicts()):  # the bins of numbers are those of training
        found = {names[tail] for tail in bundle.embedder.vocabulary.edges(row)[0].tail}
        stored = {names[entity] for entity in bundle.features.entities[item].indices}
        assert found == {name for name in stored if name.split(":")[0] in row}
        assert "price" not in row or any(name.startswith("price:") for name in found)


def trained(run: Path) -> dict[str, Any]:
    """What training and its validation left, without times: bytes of weights and vectors, and the log's rows."""
    files = [run / "model/model.safetensors", *sorted((run / "embeddings").glob("*.safetensors"))]
    rows = [json.loads(line) for line in (run / "model/log.jsonl").read_text(encoding="utf-8").splitlines()]
    untimed = [{k: v for k, v in row.items() if k not in ("train_seconds", "examples_per_second")} for row in rows]
    return {path.name: path.read_bytes() for path in files} | {"log": untimed}


@pytest.mark.slow
def test_two_runs_are_the_same_to_the_bit(shop: Shop, tmp_path: Path) -> None:
    for stage in ("build-graph", "train", "embed"):
        assert main([stage, *shop.arguments(tmp_path / "run")]) == 0
    first, second = trained(shop.run), trained(tmp_path / "run")
    assert len(first) == 6 and len(first["log"]) == 6
    assert [name for name in first | second if first.get(name) != second.get(name)] == []


KILLED_AT_STEP = """
import os, signal, sys
from jobs.cli import main
from reckg.model.training import train

step, left = train.train_step, int(sys.argv.pop(1))

def killed_in_time(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)

train.train_step = killed_in_time
main()
"""


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_ends_like_one_that_was_not(shop: Shop, tmp_path: Path) -> None:
    out, words = tmp_path / "run", shop.arguments(tmp_path / "run")
    examples = json.loads((shop.run / "model/train.json").read_text())["examples"]
    steps = math.ceil(examples / 256)
    assert steps > 3
    middle_of_the_fourth = 3 * steps + steps // 2
    command = [sys.executable, "-c", KILLED_AT_STEP, str(middle_of_the_fourth), "run", *words]
    killed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    assert RunState.read(out).stages["train"].status == "started"
    assert [row["epoch"] for row in trained(out)["log"]] == [1, 2, 3]

    command = [sys.executable, "-m", "jobs.cli", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "build-graph: up to date" in done.stdout
    assert "goes on after an interruption" in done.stdout
    whole, resumed = trained(shop.run), trained(out)
    assert [name for name in whole | resumed if whole.get(name) != resumed.get(name)] == []
    assert metrics(out) == metrics(shop.run)


def metrics(run: Path) -> dict[str, Any]:
    """Every metric of every system in the report, with its interval."""
    systems = json.loads((run / "report/report.json").read_text(encoding="utf-8"))["systems"]
    return {name: system["test"] for name, system in systems.items()}


@pytest.mark.slow
def test_the_tutorial_works(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(shop.folder)
    settings = [block.text for block in blocks(ROOT / "docs/tutorial.md") if block.language == "toml"]
    (shop.folder / "build/wide.toml").write_text("[text]\nmax_tokens = 32\n[train]\nepochs = 2\n" + settings[0])
    ran = 0
    for block in blocks(ROOT / "docs/tutorial.md"):
        if block.tested:
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                assert words[0] == "reckg"
                assert main(words[1:]) == 0, capsys.readouterr().err
                ran += 1
    assert ran >= 6
    printed = capsys.readouterr().out
    assert "interactions: " in printed and "verdict: " in printed


@pytest.mark.slow
def test_the_page_on_logs_works(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's log is written by its code and evaluated by its command; the clicks prefer what the bundle does."""
    monkeypatch.chdir(shop.folder)
    page = blocks(ROOT / "docs/evaluation-from-logs.md")
    (code,) = [block.text for block in page if block.language == "python"]
    exec(compile(code, "evaluation-from-logs.md", "exec"), {})
    (command,) = [block.text for block in page if block.tested]
    assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "evaluate: up to date, skipped" in printed and "| doubly robust |" in printed
    assert "verdict: The system would earn more than what was served: 0." in printed
    report = json.loads((shop.run / "report/log.json").read_text(encoding="utf-8"))
    assert report["counts"]["requests_used"] == 1500 and report["warnings"] == []
    truth = np.mean([(0.5 - 0.04 * rank) / (rank + 1) ** 0.5 for rank in range(5)])
    found = report["counterfactual"]["estimates"]["dr"]
    assert abs(found["mean"] - truth) < 3.5 * (found["high"] - found["low"]) / 3.92
