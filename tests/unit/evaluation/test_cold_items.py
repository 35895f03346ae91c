"""Rankings among new items, their exposure, the baselines that can place them, and the report's section on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from jobs.commands.describe import new_items_table
from reckg.config.run_config import Config, EvaluateConfig, SplitConfig
from reckg.data.history import History
from reckg.evaluation.cold_items import (
    RandomOrder,
    evaluate_among,
    fit_text_knn,
    order_as_scores,
    rank_among,
)
from reckg.evaluation.protocol import HeldOut, evaluate_system
from reckg.pipeline.stages.evaluate import evaluate, read_run, stage_counts
from reckg.pipeline.stages.rank import rank
from reckg.retrieval.scored_items import ScoredItems
from tests.reference import slow_hit, slow_ndcg, slow_recall
from tests.small_report import read_page, small_run

CONFIG = Config(
    split=SplitConfig(kind="cold-items"), evaluate=EvaluateConfig(k=(5, 10), bootstrap_samples=100, block_users=7)
)
NEW, OTHER_NEW = range(0, 60, 5), range(2, 60, 5)  # the new items of test and of validation
BLIND = ("popularity", "popularity_recent", "item_knn", "ease", "als")  # they know an item by its users alone


def test_candidates_alone_are_ranked_by_score_then_by_chance() -> None:
    scores = np.tile(np.array([9, 1, 3, 3, 3, 8], dtype=np.float32), (200, 1))
    chance = RandomOrder(6, seed=1)
    recommend = rank_among(lambda users: scores[users], np.array([1, 2, 3, 4]), 3, chance)
    lists = recommend(np.arange(200)).item_idx
    assert lists.shape == (200, 3) and (np.sort(lists, axis=1) == [2, 3, 4]).all()  # 1 is last, 0 and 5 are none
    assert {tuple(row) for row in lists.tolist()} == {(a, b, 9 - a - b) for a in (2, 3, 4) for b in (2, 3, 4) if a != b}
    np.testing.assert_array_equal(recommend(np.array([7, 150])).item_idx, lists[[7, 150]])  # whoever else is asked
    other = rank_among(lambda users: scores[users], np.array([1, 2, 3, 4]), 3, RandomOrder(6, seed=2))
    assert (other(np.arange(200)).item_idx != lists).any()


def test_an_order_becomes_scores_and_what_is_not_listed_stays_out() -> None:
    lists = np.array([[4, 0, 2, -1], [1, 2, 0, 4]])
    scores = order_as_scores(lambda users: ScoredItems(lists[users], lists[users].astype(np.float32)), 5)
    np.testing.assert_array_equal(scores(np.array([0])), [[-1, -np.inf, -2, -np.inf, 0]])
    among = rank_among(scores, np.array([0, 1, 2]), 3, RandomOrder(5, 0))
    assert among(np.arange(2)).item_idx.tolist() == [[0, 2, -1], [1, 2, 0]]


def test_systems_that_know_nothing_get_the_random_lists() -> None:
    chance = RandomOrder(30, seed=3)
    held = HeldOut(np.arange(12), (np.arange(13), np.arange(12) + 10), (np.zeros(13, int), np.array([], int)), {})
    candidates = np.arange(10, 30)
    constant = evaluate_among(lambda u: np.ones((len(u), 30), np.float32), candidates, held, (5,), chance)
    random = evaluate_among(lambda u: chance.scores(None, u), candidates, held, (5,), chance)
    np.testing.assert_array_equal(constant.per_user["ndcg@5"], random.per_user["ndcg@5"])
    assert 0 < constant.per_user["hit@5"].mean() < 0.8  # a quarter by chance


def test_text_knn_is_the_cosine_with_the_mean_of_the_users_texts() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 4)).astype(np.float32) * 3
    vectors[5] = 0
    rows = pl.DataFrame({"user_idx": [0, 0, 0, 1], "item_idx": [1, 2, 2, 3]})
    model = fit_text_knn(vectors)
    assert model.settings["items_without_text"] == 1
    found = model.scores(History.from_interactions(rows, 3), np.arange(3))
    unit = vectors[:5] / np.linalg.norm(vectors[:5], axis=1, keepdims=True)
    for user, mine in enumerate([[1, 2], [3]]):
        mean = unit[mine].mean(axis=0)
        cosine = unit @ mean / np.linalg.norm(mean)
        np.testing.assert_allclose(
            found[user, :5] / np.linalg.norm(found[user, :5]), cosine / np.linalg.norm(cosine), 1e-5
        )
    assert (found[:, 5] == 0).all() and (found[2] == 0).all()


def test_exposure_is_the_share_of_the_places() -> None:
    lists = np.array([[0, 1, 2, 3], [4, 5, -1, -1], [0, 4, 1, 5]])
    relevant = np.arange(4), np.array([0, 4, 5])
    result = evaluate_system(
        lambda users: ScoredItems(lists[users], lists[users].astype(np.float32)),
        np.arange(3),
        relevant,
        (2, 4),
        n_items=6,
        watched=np.array([4, 5]),
        block_users=2,
    )
    assert result.exposure["exposure@2"].tolist() == [0, 1, 0.5] and result.exposure["exposure@4"].tolist() == [
        0,
        0.5,
        0.5,
    ]


def cold_run(run: Path, texts: bool = True) -> None:
    """A run's folder as after the stages before evaluate, with the items split."""
    small_run(run)
    path = run / "prepared" / "interactions.parquet"
    frame = pl.read_parquet(path)
    item = pl.col("item_idx")
    part = pl.when(item.is_in(list(NEW))).then(pl.lit("test")).when(item.is_in(list(OTHER_NEW))).then(pl.lit("valid"))
    frame.with_columns(split=part.otherwise(pl.lit("train"))).write_parquet(path)
    info = json.loads((run / "prepared" / "prepared.json").read_text())
    info["split"] = {"kind": "cold-items", "valid_before_test": False}
    (run / "prepared" / "prepared.json").write_text(json.dumps(info))
    if texts:
        vectors = np.random.default_rng(5).normal(size=(60, 8)).astype(np.float32)
        save_file({"items": vectors}, run / "embeddings" / "text.safetensors")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp("cold")
    cold_run(run)
    evaluate(CONFIG, run, run)
    return run, json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))


def test_the_report_has_a_section_on_new_items(reported: tuple[Path, dict[str, Any]]) -> None:
    run, report = reported
    part = report["cold_items"]
    test = read_run(CONFIG, run)
    assert test.new_items is not None and set(test.new_items.tolist()) <= set(NEW)
    assert part["new_items"] == len(test.new_items) and part["items"] == 60 and part["users"] == len(test.held.users)
    assert part["share_of_catalogue"] == len(test.new_items) / 60
    assert list(part["systems"]) == ["reckg", "model", *BLIND, "random", "text_knn"]
    assert [check["passed"] for check in report["leakage_checks"]].count(False) == 0
    assert report["protocol"]["excluded"] == report["protocol"]["history"] == "train"
    for name in BLIND:  # they cannot tell new items apart
        assert part["systems"][name]["test"] == part["systems"]["random"]["test"]
        assert "tried" not in part["systems"][name]["settings"]
    assert part["systems"]["reckg"]["test"] == part["systems"]["model"]["test"]
    assert part["comparisons"]["text_knn"].keys() == part["systems"]["reckg"]["test"].keys()
    assert report["verdict"].endswith(f"paired over {part['users']} users, among {part['new_items']} new items).")
    assert stage_counts(report)["text_knn ndcg@10"] == round(part["systems"]["text_knn"]["test"]["ndcg@10"]["mean"], 4)


def test_figures_among_new_items_equal_the_slow_ones(reported: tuple[Path, dict[str, Any]]) -> None:
    run, report = reported
    frame = pl.read_parquet(run / "prepared" / "interactions.parquet")
    text = load_file(run / "embeddings" / "text.safetensors")["items"]
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    vectors = load_file(run / "embeddings" / "test.safetensors")
    new = sorted(frame.filter(pl.col("split") == "test")["item_idx"].unique().to_list())
    found: dict[str, list[float]] = {name: [] for name in ("model", "text_knn", "recall", "hit", "exposure")}
    for (user,), rows in frame.group_by("user_idx"):
        train = set(rows.filter(pl.col("split") == "train")["item_idx"].to_list())
        wanted = set(rows.filter(pl.col("split") == "test")["item_idx"].to_list())
        if not train or not wanted:
            continue
        score = {
            "model": vectors["items"] @ vectors["users"][user],
            "text_knn": text @ text[sorted(train)].mean(axis=0),
        }
        for name, values in score.items():
            found[name].append(slow_ndcg(sorted(new, key=lambda item: -values[item]), wanted, 10))
        order = sorted((item for item in range(60) if item not in train), key=lambda item: -score["model"][item])
        found["exposure"].append(len(set(order[:10]) & set(new)) / 10)
        found["recall"].append(slow_recall(order, wanted, 10))
        found["hit"].append(slow_hit(sorted(new, key=lambda item: -score["model"][item]), wanted, 5))
    systems = report["cold_items"]["systems"]
    for name in ("model", "text_knn"):
        assert systems[name]["test"]["ndcg@10"]["mean"] == pytest.approx(np.mean(found[name]))
    assert systems["model"]["test"]["hit@5"]["mean"] == pytest.approx(np.mean(found["hit"]))
    assert systems["model"]["all"]["recall@10"]["mean"] == pytest.approx(np.mean(found["recall"]))
    assert systems["model"]["all"]["exposure@10"]["mean"] == pytest.approx(np.mean(found["exposure"]))
    assert 0 < np.mean(found["exposure"]) < 1


def test_the_page_and_the_terminal_show_it(reported: tuple[Path, dict[str, Any]]) -> None:
    run, report = reported
    html = (run / "report" / "report.html").read_text(encoding="utf-8")
    said = " ".join(read_page(html).text)
    assert "New items" in said and "Exposure@10" in said and "text kNN" in said and "Hit@10" in said
    systems = report["cold_items"]["systems"]
    assert f"{systems['text_knn']['test']['ndcg@10']['mean']:.4f}" in said
    lines = new_items_table(report)
    assert lines[0].startswith(f"among {report['cold_items']['new_items']} new items")
    assert f"text kNN {systems['text_knn']['all']['exposure@10']['mean']:.1%}" in lines[-2]
    assert new_items_table({"systems": {}}) == []


def test_without_texts_there_is_no_text_knn(tmp_path: Path) -> None:
    cold_run(tmp_path, texts=False)
    evaluate(CONFIG, tmp_path, tmp_path)
    systems = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["cold_items"]["systems"]
    assert "text_knn" not in systems and "random" in systems


def test_the_ranker_is_not_trained_on_new_items(tmp_path: Path) -> None:
    cold_run(tmp_path)
    info = rank(CONFIG, tmp_path, tmp_path)
    assert info["served"] is False and "the labels of a cold-items split are new items alone" in info["why"]
