"""The price of diversity over a small bundle: every row by another way, and what it says where columns are missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from reckg.arrays.ragged_rows import Rows
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import parse_config
from reckg.evaluation.protocol import HeldOut
from reckg.metrics.significance import paired_difference
from reckg.pipeline.report import diversity_price as module
from reckg.pipeline.report.diversity_price import diversity_price
from reckg.ranking.diversity import Diversity
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted
from tests.reference import slow_ndcg
from tests.small_bundle import small_bundle

USERS = np.arange(0, 39, 2)


def config(**diversity: Any) -> Any:
    return parse_config({"evaluate": {"bootstrap_samples": 100}, "diversity": diversity}, "test")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    made = small_bundle()
    items = made.items.with_columns(
        genres=pl.Series([["a", "b", "c"][item % 3 :] for item in range(60)]),
        seller=pl.Series([f"s{item % 7}" for item in range(60)]),
    )
    kinds = {"text": ["title"], "categorical": ["seller"], "number": [], "list": ["genres"]}
    return replace(made, items=items, manifest=made.manifest | {"item_columns": kinds})


@pytest.fixture(scope="module")
def held(bundle: Bundle) -> HeldOut:
    """Of each user, three items from the first places of the ranking; the history and the second place are excluded."""
    lists = recommend_batch(bundle, USERS, Wanted(20)).item_idx
    relevant, second = np.sort(lists[:, [0, 4, 12]], axis=1).ravel(), lists[:, 1]
    indptr, positions = bundle.history.rows(USERS)
    items = bundle.history.item_idx[positions]
    seen = [np.union1d(items[indptr[row] : indptr[row + 1]], second[row]) for row in range(len(USERS))]
    excluded: Rows = np.cumsum([0, *map(len, seen)]), np.concatenate(seen)
    return HeldOut(USERS, (np.arange(len(USERS) + 1) * 3, relevant), excluded, {})


def test_every_row_by_another_way(bundle: Bundle, held: HeldOut) -> None:
    report = diversity_price(bundle, held, config())
    rows = report["rows"]
    kinds = [(row["strategy"], *row["settings"].values()) for row in rows]
    assert kinds == [
        ("none",),
        *[("mmr", weight) for weight in (0.1, 0.3, 0.5, 0.7)],
        *[("calibrated", weight, "genres") for weight in (0.1, 0.3, 0.5, 0.7)],
        *[("provider", "seller", limit) for limit in (1, 2, 3)],
        ("provider share", rows[-1]["settings"]["max_share"], "seller"),
    ]
    relevant = held.relevant[1].reshape(-1, 3)
    scores = {}
    for row in rows[:-1]:
        how = Diversity(row["strategy"], **row["settings"])
        lists = recommend_batch(
            bundle, USERS, Wanted(10, exclude_seen=False, left_out=held.excluded, diversity=how)
        ).item_idx
        ndcg = [slow_ndcg(items.tolist(), set(mine.tolist()), 10) for items, mine in zip(lists, relevant, strict=True)]
        scores[kinds[rows.index(row)]] = np.array(ndcg)
        assert row["ndcg"]["mean"] == pytest.approx(np.mean(ndcg))
        assert row["price"] == pytest.approx(paired_difference(np.array(ndcg), scores[("none",)], 100))
        assert row["diversity"]["mean"] == pytest.approx(slow_diversity(lists, bundle.item_vectors))
        assert row["exposure"]["mean"] == pytest.approx(slow_gini([int((lists % 7 == s).sum()) for s in range(7)]))
        assert 0 <= row["miscalibration"]["low"] <= row["miscalibration"]["mean"] <= row["miscalibration"]["high"]
        assert row["served"] == (row["strategy"] == "none")
    assert rows[0]["price"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def slow_diversity(lists: np.ndarray, vectors: np.ndarray) -> float:
    pairs = [(items[i], items[j]) for items in lists for i in range(10) for j in range(i)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(np.mean([1 - unit[a] @ unit[b] for a, b in pairs]))


def slow_gini(places: list[int]) -> float:
    return sum(abs(a - b) for a in places for b in places) / (2 * len(places) * sum(places))


def test_what_is_bought_grows_with_the_strength(bundle: Bundle, held: HeldOut) -> None:
    rows = diversity_price(bundle, held, config())["rows"]
    none, mmr, calibrated = rows[0], rows[1:5], rows[5:9]
    diversity = [none["diversity"]["mean"], *(row["diversity"]["mean"] for row in mmr)]
    assert diversity == sorted(diversity) and diversity[-1] > diversity[0] + 0.03
    divergence = [none["miscalibration"]["mean"], *(row["miscalibration"]["mean"] for row in calibrated)]
    assert divergence[-1] < 0.7 * divergence[0] and divergence[2] < divergence[0]
    assert rows[9]["exposure"]["mean"] < none["exposure"]["mean"]
    candidates = recommend_batch(
        bundle, USERS, Wanted(20, exclude_seen=False, left_out=held.excluded, diversity=Diversity())
    ).item_idx
    sold = np.array([np.bincount(items % 7, minlength=7) for items in candidates])  # by seven sellers
    over = [int(np.maximum(10 - np.minimum(sold, limit).sum(axis=1), 0).sum()) for limit in (1, 2, 3)]
    assert [row["places_over_limit"] for row in rows[9:12]] == over and over[0] > over[1]
    assert rows[12]["exposure"]["mean"] < none["exposure"]["mean"]


def test_what_is_served_is_marked(bundle: Bundle, held: HeldOut) -> None:
    report = diversity_price(bundle, held, config(strategy="mmr", weight=0.3))
    rows = report["rows"]
    assert "Served: mmr (weight 0.3)." in report["words"][0]
    assert [row["settings"] for row in rows if row["served"]] == [{"weight": 0.3}] and len(rows) == 13
    rows = diversity_price(bundle, held, config(strategy="calibrated", weight=0.25, column="seller"))["rows"]
    (served,) = [row for row in rows if row["served"]]
    assert served["settings"] == {"weight": 0.25, "column": "seller"} and len(rows) == 14
    assert rows[5]["settings"]["column"] == "seller"


def test_without_columns_there_is_mmr_alone(held: HeldOut) -> None:
    report = diversity_price(small_bundle(), held, config())
    assert [row["strategy"] for row in report["rows"]] == ["none", *["mmr"] * 4]
    assert all(row["miscalibration"] is row["exposure"] is None for row in report["rows"])
    assert len(report["words"]) == 3 and "20 users, as of test time. Served: none." in report["words"][0]


def test_many_users_are_sampled_and_that_is_said(
    bundle: Bundle, held: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_USERS", 7)
    report = diversity_price(bundle, held, config())
    assert "7 of the 20 users, drawn at random, as of test time. Served: none." in report["words"][0]
