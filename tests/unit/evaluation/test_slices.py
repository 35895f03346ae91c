from __future__ import annotations

import numpy as np
import polars as pl

from reckg.evaluation.protocol import SystemResult
from reckg.evaluation.slices import (
    by_days,
    by_history,
    by_value,
    item_slices,
    popularity_groups,
    user_slices,
    value_metrics,
    worst_slices,
)
from tests.small_report import N, sample_report


def members(groups: list[tuple[str, np.ndarray]]) -> dict[str, list[int]]:
    return {name: np.flatnonzero(inside).tolist() for name, inside in groups}


def test_slices_hold_the_users_they_name() -> None:
    report = sample_report()
    rows = report["slices"]["history_length"]["rows"]
    assert [(row["name"], row["users"]) for row in rows] == [("0", 5), ("1 to 4", 20), ("5 to 9", 25), ("10 to 19", 10)]
    rows = report["slices"]["item_popularity"]["rows"]
    assert [(row["name"], row["users"]) for row in rows] == [("head (2 items)", N), ("cold (1 items)", 5)]
    assert rows[1]["systems"]["ease"]["ndcg@10"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def result(ndcg: list[float]) -> SystemResult:
    return SystemResult({"ndcg@10": np.array(ndcg), "recall@10": np.array(ndcg) / 2}, {}, 0.0)


def test_a_row_has_every_system_and_the_difference_to_the_best_baseline() -> None:
    results = {"reckg": result([0.9, 0.1, 0.5]), "ease": result([0.5, 0.5, 0.1])}
    groups = [("both", np.array([True, True, False])), ("nobody", np.zeros(3, bool)), ("all", np.ones(3, bool))]
    part = user_slices(results, "ease", groups, ("ndcg@10", "recall@10"), 200, 0, "title", "why")
    assert [row["name"] for row in part["rows"]] == ["both", "all"]
    first = part["rows"][0]
    assert first["users"] == 2 and first["systems"]["ease"]["recall@10"]["mean"] == 0.25
    assert abs(first["difference"]["mean"]) < 1e-12
    assert -0.4 <= first["difference"]["low"] < 0 < first["difference"]["high"] <= 0.4 + 1e-12


def test_item_slices_count_users_with_such_a_held_out_item() -> None:
    lists = np.array([[0, 1], [2, 3]], dtype=np.int32)
    relevant = np.array([0, 2, 3]), np.array([1, 3, 2])
    groups = [("odd", np.array([False, True, False, True])), ("high", np.array([False, False, True, True]))]
    found = value_metrics(lists, relevant, groups, ["ndcg@2", "recall@2"], 2)
    np.testing.assert_allclose(found["odd"]["recall@2"], [0.5, np.nan])
    np.testing.assert_allclose(found["odd"]["ndcg@2"], [1 / np.log2(3) / (1 + 1 / np.log2(3)), np.nan])
    np.testing.assert_allclose(found["high"]["recall@2"], [0, 1])
    part = item_slices(
        {"reckg": found, "ease": found}, {"odd": "odd ones", "none": "x"}, "ease", ["ndcg@2"], 100, 0, "t", "e"
    )
    assert [(row["name"], row["users"]) for row in part["rows"]] == [("odd ones", 1)]


def test_the_worst_come_by_the_lower_end_and_small_ones_do_not_count() -> None:
    def row(name: str, users: int, low: float) -> dict[str, object]:
        systems = {"reckg": {"ndcg@10": {"mean": 0.2}}, "ease": {"ndcg@10": {"mean": 0.3}}}
        return {"name": name, "users": users, "systems": systems, "difference": {"mean": -0.1, "low": low, "high": 0.1}}

    rows = [row("fine", 40, -0.01), row("bad", 40, -0.3), row("small", 29, -0.9)]
    worst = worst_slices({"a": {"title": "A", "rows": rows}}, "ndcg@10", "ease", 0.25)
    assert [entry["name"] for entry in worst] == ["bad", "fine"]
    assert worst[0]["slice"] == "A" and abs(worst[0]["against_average"] + 0.05) < 1e-12


def test_groups_by_history_and_days() -> None:
    found = members(by_history(np.array([0, 1, 4, 5, 100, 99])))
    assert found["0"] == [0] and found["1 to 4"] == [1, 2] and found["100 and more"] == [4] and found["50 to 99"] == [5]
    days = members(by_days(np.array([0.0, 0.9, 1.0, np.nan, 400.0])))
    assert days["same day"] == [0, 1] and days["1 to 6 days"] == [2] and days["a year or more"] == [4]
    assert sum(len(rows) for rows in days.values()) == 4  # who has no history is in none


def test_groups_by_a_columns_values() -> None:
    texts = pl.Series("city", ["Rome", "Oslo", "Rome", None])
    assert members(by_value(texts)) == {"Rome": [0, 2], "Oslo": [1], "unknown": [3]}
    lists = pl.Series("genres", [["a", "b"], ["b", "b"], [], None])
    assert members(by_value(lists)) == {"b": [0, 1], "a": [0], "unknown": [2, 3]}
    many = pl.Series("x", [str(n % 20) for n in range(100)])
    assert len(by_value(many)) == 8
    numbers = pl.Series("price", [1.0, 2.0, 3.0, 4.0, 5.0, None])
    assert members(by_value(numbers)) == {
        "up to 2": [0, 1],
        "2 to 3": [2],
        "3 to 4": [3],
        "above 4": [4],
        "unknown": [5],
    }
    assert members(by_value(pl.Series("p", [7, 7, 7]))) == {"up to 7": [0, 1, 2]}


def test_popularity_groups_cut_the_interactions_not_the_items() -> None:
    groups = popularity_groups(np.array([0.0, 10.0, 50.0, 30.0, 5.0, 5.0]))
    # By popularity: 50 | 30 | 10, 5, 5 | none: shares before them 0, .5, .8, .9, .95.
    assert [groups.names[place] for place in groups.group] == ["cold", "tail", "head", "middle", "tail", "tail"]
