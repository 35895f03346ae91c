"""Evaluation from logs over a small bundle: the truth is found, and everything that weakens it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from jobs.commands.evaluate_log import Shown, evaluate_log, log_summary, system_items
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import parse_config
from reckg.errors import ConfigError, DataError
from reckg.recommend.golden import open_bundle, save_with_golden
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted
from tests.small_bundle import small_bundle

K, POOL = 3, 6  # places of a request; items that the logging policy draws from
LATER = 1_700_000_000  # after everything that the bundle knows
CONFIG = parse_config({"evaluate": {"bootstrap_samples": 200}}, "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with what evaluate_log reads of it."""
    folder = tmp_path_factory.mktemp("run")
    bundle = small_bundle()
    save_with_golden(bundle, folder / "bundle")
    write_prepared(folder, "utc")
    return folder


def write_prepared(folder: Path, time: str) -> None:
    (folder / "prepared").mkdir(exist_ok=True)
    for name in ("interactions", "users", "items"):
        pl.DataFrame({"user_idx": [0]}).write_parquet(folder / "prepared" / f"{name}.parquet")
    (folder / "prepared" / "prepared.json").write_text(json.dumps({"name": "small", "time": time}))


def chance(user: np.ndarray, rank: np.ndarray, position: np.ndarray, by_place: bool) -> np.ndarray:
    """How often an item is taken: by the user, its rank in the system's list and, where it counts, its place."""
    return (0.5 - 0.08 * rank + 0.1 * (user % 2)) / (np.sqrt(position) if by_place else 1.0)


def log_of(bundle: Bundle, requests: int, seed: int = 0, by_place: bool = True) -> pl.DataFrame:
    """K items a request, drawn evenly from the first POOL of the system's own list, in order by chance."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 39, requests)
    pool = recommend_batch(bundle, np.arange(39), Wanted(POOL)).item_idx
    rank = rng.permuted(np.tile(np.arange(POOL), (requests, 1)), axis=1)[:, :K]
    items, rank = np.take_along_axis(pool[users], rank, axis=1).ravel(), rank.ravel()
    user, position = np.repeat(users, K), np.tile(np.arange(1, K + 1), requests)
    return pl.DataFrame(
        {
            "request_id": [f"r{n:06d}" for n in np.repeat(np.arange(requests), K)],
            "user_id": bundle.user_ids.raw(user),
            "timestamp": LATER + np.repeat(np.arange(requests), K),
            "position": position,
            "item_id": bundle.item_ids.raw(items),
            "propensity": np.full(len(user), 1 / POOL if by_place else K / POOL),
            "reward": (rng.random(len(user)) < chance(user, rank, position, by_place)).astype(float),
        }
    )


def truth(by_place: bool) -> float:
    """What the system earns per shown item over the users that the log draws from evenly."""
    rank = np.arange(K)
    return float(np.mean([chance(np.full(K, user), rank, rank + 1, by_place) for user in range(39)]))


def evaluated(run: Path, frame: pl.DataFrame, folder: Path, **options: Any) -> dict[str, Any]:
    frame.write_parquet(folder / "log.parquet")
    return evaluate_log(CONFIG, run, folder / "log.parquet", **options)


@pytest.mark.parametrize("match", ["place", "list"])
def test_the_truth_is_found(run: Path, tmp_path: Path, match: Any) -> None:
    value = truth(match == "place")
    log = log_of(open_bundle(run / "bundle"), 6000, 1, match == "place")
    report = evaluated(run, log, tmp_path, match=match)
    found = report["counterfactual"]
    assert found["estimates"]["logged"]["high"] < value
    assert (
        found["estimates"]["dr_minus_logged"]["low"] > 0 and "would earn more than what was served" in report["verdict"]
    )
    for name in ("ips", "snips", "dr"):
        entry = found["estimates"][name]
        error = (entry["high"] - entry["low"]) / 3.92
        assert abs(entry["mean"] - value) < 3.5 * error and 0 < error < 0.03, name
    assert found["estimates"]["mean_weight"]["low"] < 1 < found["estimates"]["mean_weight"]["high"]
    matched = found["matched_rows"]
    assert found["effective_sample_size"] == pytest.approx(matched)  # all weights are 0 or the same
    assert matched / found["rows"] == pytest.approx(1 / POOL if match == "place" else K / POOL, abs=0.02)
    assert found["clusters"] == 39 and found["cluster"] == "user" and found["items_per_request"] == K
    assert report["warnings"] == []


def test_the_systems_list_is_as_long_as_the_requests(run: Path) -> None:
    """Request 0 shows the system's second item alone, request 1 its second and its first, request 2 an unknown item."""
    bundle = open_bundle(run / "bundle")
    best = recommend_batch(bundle, np.array([4]), Wanted(3)).item_idx[0]
    request = np.array([0, 1, 1, 2])
    item_idx, position, ones = np.array([best[1], best[1], best[0], -1]), np.array([2, 3, 4, 1]), np.ones(4)
    shown = Shown(np.full(4, 4), item_idx, position, request, request, ones, ones)
    wanted, target = system_items(shown, bundle, "list", 10)
    assert wanted.tolist() == best[[0, 0, 1, 0]].tolist() and target.tolist() == [0, 1, 1, 0]
    wanted, target = system_items(shown, bundle, "place", 10)
    assert wanted[[0, 1, 3]].tolist() == best[[1, 2, 0]].tolist() and target.tolist() == [1, 0, 0, 0]


def test_the_wrong_meaning_of_the_propensities_shows(run: Path, tmp_path: Path) -> None:
    log = log_of(open_bundle(run / "bundle"), 2000, 1, by_place=False)
    report = evaluated(run, log, tmp_path, match="place")
    assert any("The mean weight is 0.3" in warning for warning in report["warnings"])
    assert report["verdict"].startswith("No verdict: the mean weight is 0.3")


def test_a_log_of_the_system_itself_is_worth_what_it_earned(run: Path, tmp_path: Path) -> None:
    bundle = open_bundle(run / "bundle")
    users = np.repeat(np.arange(39), K)
    log = pl.DataFrame(
        {
            "request_id": [f"r{user}" for user in users],
            "user_id": bundle.user_ids.raw(users),
            "timestamp": LATER,
            "position": np.tile(np.arange(1, K + 1), 39),
            "item_id": bundle.item_ids.raw(recommend_batch(bundle, np.arange(39), Wanted(K)).item_idx.ravel()),
            "propensity": 1.0,
            "reward": np.random.default_rng(0).random(39 * K),
        }
    )
    report = evaluated(run, log, tmp_path)
    estimates = report["counterfactual"]["estimates"]
    for name in ("ips", "snips", "dr"):
        assert estimates[name] == pytest.approx(estimates["logged"])
    assert report["counterfactual"]["effective_sample_size"] == pytest.approx(117)
    assert report["verdict"] == "No verdict: the effective sample size is 117, below 200."
    assert [warning[:56] for warning in report["warnings"]] == [
        "The effective sample size is 117 of 117 shown items, bel"
    ]
    again = log.with_columns(request_id="again " + pl.col("request_id"))
    report = evaluated(run, pl.concat([log, again]), tmp_path)
    assert "shows no clear difference from what was served: 0.0000" in report["verdict"] and not report["warnings"]


def test_what_cannot_be_used_is_counted_and_said(run: Path, tmp_path: Path) -> None:
    bundle = open_bundle(run / "bundle")
    log = log_of(bundle, 600)
    request = pl.col("request_id")
    hashed, missing, zero, early = (log["request_id"].unique(maintain_order=True)[n] for n in range(4))
    first = pl.col("position") == 1
    log = log.with_columns(
        user_id=pl.when(request == hashed).then(pl.lit("9f86d0")).otherwise("user_id"),
        propensity=pl.when((request == missing) & first)
        .then(None)
        .when(request == zero)
        .then(0.0)
        .otherwise("propensity"),
        timestamp=pl.when(request == early).then(int(bundle.history.timestamp.max())).otherwise("timestamp"),
        item_id=pl.when((request == "r000010") & first).then(pl.lit("gone")).otherwise("item_id"),
    )
    report = evaluated(run, log, tmp_path)
    counts = report["counts"]
    assert {name: counts[name] for name in counts if "request" in name or "rows_" in name} == {
        "requests": 600,
        "requests_unknown_user": 1,
        "requests_too_early": 1,
        "requests_without_propensity": 2,
        "rows_without_propensity": 1,
        "rows_zero_propensity": 3,
        "requests_used": 596,
        "rows_used": 596 * K,
        "rows_unknown_item": 1,
    }
    assert report["counterfactual"]["rows"] == 596 * K
    said = " ".join(report["warnings"])
    assert "1 propensities are missing and 3 are 0, which no shown item can have: 2 requests were left out." in said
    assert "1 of 600 requests are not later than the newest interaction" in said
    assert "1 of 600 requests are of users that the bundle does not know" in said
    text = (run / "report" / "log.md").read_text(encoding="utf-8")
    assert all(warning in text for warning in report["warnings"]) and "| requests | 600 |" in text
    assert json.loads((run / "report" / "log.json").read_text(encoding="utf-8")) == report


def test_clipping_is_stated(run: Path, tmp_path: Path) -> None:
    log = log_of(open_bundle(run / "bundle"), 600)
    report = evaluated(run, log, tmp_path, clip=2.0)
    found = report["counterfactual"]
    assert found["largest_weight"] == found["clip"] == 2.0 and found["clipped_rows"] == found["matched_rows"]
    assert [warning[-55:] for warning in report["warnings"]] == [
        "weights above 2 were clipped to it: less variance, and a bias."[-55:]
    ]
    assert found["estimates"]["mean_weight"]["high"] > 1 and "But see the warnings" in report["verdict"]
    assert (
        found["estimates"]["ips"]["mean"]
        < 0.5 * evaluated(run, log, tmp_path)["counterfactual"]["estimates"]["ips"]["mean"]
    )
    with pytest.raises(ConfigError, match="--log-clip must be above 0, got -1"):
        evaluated(run, log, tmp_path, clip=-1.0)


def test_without_times_the_order_of_log_and_data_is_unknown(run: Path, tmp_path: Path) -> None:
    write_prepared(run, "order")
    log = log_of(open_bundle(run / "bundle"), 600).with_columns(timestamp=pl.lit(5))
    report = evaluated(run, log, tmp_path)
    write_prepared(run, "utc")
    assert report["counterfactual"]["rows"] == 600 * K
    assert any("could not be checked" in warning for warning in report["warnings"])


def test_without_propensities_variants_are_compared_all_the_same(run: Path, tmp_path: Path) -> None:
    log = log_of(open_bundle(run / "bundle"), 900).drop("propensity", "user_id")
    interleaved = log.with_columns(
        variant=pl.when(pl.col("position") == 2).then(pl.lit("new")).otherwise(pl.lit("old")),
        reward=(pl.col("position") == 2).cast(pl.Float64),
    )
    report = evaluated(run, interleaved, tmp_path)
    assert report["counterfactual"] is None and report["variants"] is None
    assert report["verdict"] == "No counterfactual estimate: no request is left."
    found = report["interleaving"]
    assert found["names"] == ["new", "old"] and found["wins"] == 900 and found["p"] < 1e-9
    assert "sign test over requests (900 for new, 0 for old): p = " in log_summary(run, report)
    assert "new is preferred" in (run / "report" / "log.md").read_text(encoding="utf-8")

    by_request = pl.col("request_id").str.slice(-1).is_in(["1", "2"])
    apart = log.with_columns(
        variant=pl.when(by_request).then(pl.lit("new")).otherwise(pl.lit("old")), reward=by_request
    )
    found = evaluated(run, apart, tmp_path)["variants"]
    assert found["requests"] == [180, 720]
    assert [found[name]["mean"] for name in ("first", "second", "difference")] == pytest.approx([K, 0, -K])

    three = log.with_columns(variant=pl.concat_str(pl.lit("v"), "position"))
    report = evaluated(run, three, tmp_path)
    assert report["interleaving"] is None
    assert report["notes"] == ["interleaving: the log has 3 variants (v1, v2, v3); two are compared alone."]


def test_places_beyond_the_catalogue_and_a_single_user(run: Path, tmp_path: Path) -> None:
    bundle = open_bundle(run / "bundle")
    log = log_of(bundle, 300).with_columns(position=pl.col("position") * 1_000_000_000)
    report = evaluated(run, log, tmp_path)
    assert report["counterfactual"]["estimates"]["ips"]["mean"] == 0.0
    assert report["counterfactual"]["estimates"]["dr"]["mean"] == 0.0  # where there is no item there is no reward
    assert report["counterfactual"]["estimates"]["snips"]["mean"] is None
    assert "| SNIPS | none (no weight) |" in log_summary(run, report)
    one = log_of(bundle, 300).with_columns(user_id=pl.lit("u003"))
    report = evaluated(run, one, tmp_path)
    assert report["verdict"] == "No counterfactual estimate: all requests are of one user."


def test_a_broken_log_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1_800 of 1_800 values of 'position'"):
        evaluated(run, log_of(open_bundle(run / "bundle"), 600).with_columns(position=pl.lit(0)), tmp_path)
