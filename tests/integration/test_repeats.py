"""A shop with a funnel, repeats and dislikes, from the log to the answers: every part has the same question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import reckg
from jobs.cli import main
from reckg.config.run_config import Config
from reckg.data.bookshop.write import generate_bookshop
from reckg.evaluation.protocol import HeldOut
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.run.held_out import held_out_part
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted

DISLIKED = 5  # users with a dislike
CONFIG: dict[str, Any] = {
    "text": {"encoder": "none"},
    "model": {"embedding_dim": 16},
    "train": {"epochs": 4},
    "rank": {"trees": 40, "candidates": 60},
    "evaluate": {"bootstrap_samples": 100, "tuning_settings": 3},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    data = generate_bookshop(users=250, items=150, seed=4, interactions_per_user=14, repeats=True)
    events = data.interactions.collect()
    first = events.group_by("user_id").agg(pl.col("item_id").first(), pl.col("timestamp").min()).sort("user_id")
    dislikes = first.head(DISLIKED).with_columns(pl.col("timestamp") + 1, event=pl.lit("dislike"))
    folder = tmp_path_factory.mktemp("shop")
    reckg.fit(
        pl.concat([events, dislikes.select(events.columns)]), data.items.collect(), config=CONFIG, folder=folder / "fit"
    )
    return folder / "fit"


@pytest.fixture(scope="module")
def report(shop: Path) -> dict[str, Any]:
    return json.loads(next(shop.rglob("report.json")).read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def run(shop: Path) -> Path:
    return next(shop.rglob("prepared.json")).parent.parent


def test_the_question_is_derived_and_said_first(run: Path, report: dict[str, Any]) -> None:
    assert (report["protocol"]["target"], report["protocol"]["target_event"]) == ("any", "purchase")
    words = "Question: which items does a user take next, new ones and others (target: any; event: purchase)?"
    assert report["protocol"]["words"][0] == words
    assert words in next(run.rglob("report.md")).read_text().splitlines()[2]
    notes = " ".join(json.loads((run / "prepared/prepared.json").read_text())["notes"])
    assert "Target event: purchase (derived" in notes and "Taken as dislikes: dislike" in notes


def test_the_report_says_what_other_weights_would_give(report: dict[str, Any]) -> None:
    told = [sentence for sentence in report["protocol"]["words"] if "ALS, which is not tuned" in sentence]
    assert len(told) == 1
    figures = [float(word) for word in told[0].replace(",", "").split() if word.startswith("0.")]
    assert len(figures) == 3 and len(set(figures)) == 3 and max(figures) < 1
    assert any(
        sentence.startswith("Events: purchase is predicted (derived") for sentence in report["protocol"]["words"]
    )


def test_repeats_are_targets_and_the_strongest_simple_rival_is_there(report: dict[str, Any]) -> None:
    systems = {name: system["test"]["ndcg@10"]["mean"] for name, system in report["systems"].items()}
    assert systems["personal_frequency"] > 3 * systems["popularity"], "what comes again is a large part of the targets"
    assert systems["reckg"] > 0.9 * systems["personal_frequency"]
    assert report["protocol"]["test"]["already_seen"] > 0.2 * report["protocol"]["test"]["targets"]
    checks = {check["name"]: check["passed"] for check in report["leakage_checks"]}
    assert checks["Items that come again"] is None and False not in checks.values()


def test_views_are_no_targets(run: Path) -> None:
    prepared = read_prepared(run)
    held: HeldOut = held_out_part(prepared, "test")
    rows = prepared.interactions.filter(pl.col("split") == "test")
    pairs = set(rows.filter("taken").select("user_idx", "item_idx").unique().rows())
    asked = np.repeat(held.users, np.diff(held.relevant[0])).tolist()
    assert set(zip(asked, held.relevant[1].tolist(), strict=True)) <= pairs
    assert rows.filter(~pl.col("taken")).height > 0


def test_service_and_batch_bring_items_again_and_no_disliked_one(run: Path, tmp_path: Path) -> None:
    prepared, recommender = read_prepared(run), reckg.load(run / "bundle")
    bundle = recommender.bundle
    lists = recommend_batch(bundle, np.arange(len(bundle.user_ids)), Wanted(10)).item_idx
    again = [len(set(lists[user]) & set(bundle.history.items(user))) for user in range(len(lists))]
    assert np.mean(again) > 0.5
    disliked = prepared.disliked("serving", Config())
    for user in np.flatnonzero(np.diff(disliked[0])).tolist():
        assert not set(lists[user]) & set(disliked[1][disliked[0][user] : disliked[0][user + 1]].tolist())
    assert len(disliked[1]) == DISLIKED
    users, out = tmp_path / "users.csv", tmp_path / "lists.parquet"
    ids = bundle.user_ids.ids.head(40)
    pl.DataFrame({"user_id": ids}).write_csv(users)
    assert main(["recommend", str(run / "bundle"), "--users", str(users), "--out", str(out), "--k", "10"]) == 0
    batch = pl.read_parquet(out)
    for place, user in enumerate(ids.to_list()):
        names = batch.filter(pl.col("user_id") == user).sort("rank")["item_id"].to_list()
        assert names == bundle.item_ids.raw(lists[place][lists[place] >= 0])
        assert names == [item.item_id for item in recommender.recommend(user, k=10).items]


def test_a_request_says_which_event_it_was(run: Path) -> None:
    recommender = reckg.load(run / "bundle")
    items = recommender.bundle.item_ids.raw(np.arange(3))

    def listed(*types: str) -> set[str]:
        answer = recommender.recommend(k=150, recent_items=items, recent_types=types, exclude_seen=True)
        return {item.item_id for item in answer.items}

    assert not listed() & set(items)
    assert listed("view", "purchase", "view") & set(items) == {items[0], items[2]}
    assert recommender.recommend(k=150, recent_items=items, recent_types=["dislike"]).items
    assert items[0] not in {
        item.item_id for item in recommender.recommend(k=150, recent_items=items, recent_types=["dislike"]).items
    }
    with pytest.raises(ValueError, match="4 recent_types for 3 recent_items"):
        recommender.recommend(recent_items=items, recent_types=["view"] * 4)
