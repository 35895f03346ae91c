"""The statistics and the words of an ablation, on lists that are written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reckg.evaluation.ablation import METRIC, Slice, difference, judge, sentences, slices, system_figures
from reckg.evaluation.protocol import HeldOut
from reckg.evaluation.report.ablation import ablation_markdown, cautions, verdicts
from reckg.metrics.significance import holm

N_ITEMS = 30
TRAIN_USERS = np.array([50, 30, *[1] * 20, *[0] * 8])  # items 0, 1 hold 80 of 100 interactions; 22 to 29 are cold


def held(rows: list[list[int]]) -> HeldOut:
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    nothing = np.zeros(len(rows) + 1, dtype=np.int64), np.array([], dtype=np.int64)
    return HeldOut(np.arange(len(rows)), (indptr, np.array([i for row in rows for i in row])), nothing, {})


def lists(firsts: list[int]) -> np.ndarray:
    """Lists of 20 with one item first and others that no test holds out behind it."""
    return np.array([[first, *[i for i in range(3, 22) if i != first][:19]] for first in firsts])[:, :20]


def whole(n: int) -> Slice:
    return slices(held([[0]] * n), np.ones(n), TRAIN_USERS)[0]


def test_slices_hold_the_users_and_items_that_they_name() -> None:
    parts = {p.name: p for p in slices(held([[0, 5], [1], [25, 5], [22]]), np.array([9, 2, 2, 7]), TRAIN_USERS)}
    rows = {name: part.rows.tolist() for name, part in parts.items()}
    assert rows == {
        "all users": [0, 1, 2, 3],
        "sparse users": [1, 2],
        "long-tail items": [0, 2, 3],
        "cold items": [2, 3],
    }
    relevant = {name: np.split(p.relevant[1], p.relevant[0][1:-1]) for name, p in parts.items()}
    assert [row.tolist() for row in relevant["sparse users"]] == [[1], [25, 5]]
    assert [row.tolist() for row in relevant["long-tail items"]] == [[5], [25, 5], [22]]
    assert [row.tolist() for row in relevant["cold items"]] == [[25], [22]]
    assert "at most 2 training interactions" in parts["sparse users"].does


def test_a_slice_without_users_is_cautions() -> None:
    assert [p.name for p in slices(held([[0], [1]]), np.array([3, 3]), TRAIN_USERS)] == ["all users", "sparse users"]


def test_only_the_items_of_a_slice_count() -> None:
    part = next(p for p in slices(held([[0, 25]]), np.array([3]), TRAIN_USERS) if p.name == "cold items")
    assert part.metrics(lists([25]))[METRIC].tolist() == [1.0]
    assert part.metrics(lists([0]))[METRIC].tolist() == [0.0]


def test_figures_and_differences_are_means_over_seeds_paired_by_user() -> None:
    part, hit, miss = whole(4), lists([0] * 4), lists([2] * 4)
    half = np.concatenate([hit[:2], miss[:2]])
    figures = system_figures(part, [hit, half], 200, 0)[METRIC]
    assert figures["mean"] == pytest.approx(0.75)
    assert figures["by_seed"] == [1.0, 0.5]
    found = difference(part, [hit, hit], [hit, half], 200, 0)[METRIC]
    assert found["by_seed"] == [0.0, 0.5]
    assert found["mean"] == pytest.approx(0.25)
    assert found["lift"] == pytest.approx(0.25 / 0.75)
    assert difference(part, [hit], [miss], 200, 0)[METRIC]["lift"] is None


def test_holm_against_its_definition() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def comparison(mean: float, p: float, by_seed: list[float], **more: Any) -> dict[str, Any]:
    return {METRIC: {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "p": p, "by_seed": by_seed}, **more}


@pytest.mark.parametrize(
    ("mean", "p", "by_seed", "expected"),
    [
        (0.1, 0.01, [0.1, 0.1], "better"),
        (-0.1, 0.01, [-0.1, -0.1], "worse"),
        (0.1, 0.2, [0.1, 0.1], "no clear difference"),
        (0.1, 0.01, [0.3, -0.1], "no clear difference"),  # one seed says the opposite
    ],
)
def test_a_difference_is_judged_by_p_and_by_every_seed(
    mean: float, p: float, by_seed: list[float], expected: str
) -> None:
    one = comparison(mean, p, by_seed)
    judge([one])
    assert one["judgement"] == expected and one["p_holm"] == p


def test_many_comparisons_make_a_judgement_harder() -> None:
    many = [comparison(0.1, 0.02, [0.1]), *(comparison(0.1, 0.5, [0.1]) for _ in range(3))]
    judge(many)
    assert many[0]["p_holm"] == pytest.approx(0.08)
    assert many[0]["judgement"] == "no clear difference"


def report(**more: Any) -> dict[str, Any]:
    """A report on four users: the true graph finds what it should, the shuffled one does not."""
    parts = slices(held([[0, 5], [0], [25, 5], [0]] * 10), np.array([9, 2, 2, 7] * 10), TRAIN_USERS)
    true, shuffled = [lists([0, 0, 25, 0] * 10)] * 2, [lists([2, 2, 25, 2] * 10)] * 2
    graph = {"name": "graph", "subject": "the true graph", "other": "a shuffled one"}
    made = [graph | {"slice": p.name} | difference(p, true, shuffled, 1000, 0) for p in parts]
    judge(made)
    training = [{"seed": 0, "epochs": 3, "best_epoch": 2, "valid_ndcg@10": 0.5, "seconds": 1.0}]
    out: dict[str, Any] = {
        "name": "toy",
        "seeds": [0, 1],
        "bootstrap_samples": 1000,
        "users": 40,
        "items": N_ITEMS,
        "triples": 7,
        "slices": {p.name: {"does": p.does, "users": len(p.rows), "targets": 1} for p in parts},
        "variants": {
            name: {
                "does": name,
                "test": {p.name: system_figures(p, found, 1000, 0) for p in parts},
                "training": training,
            }
            for name, found in (("true", true), ("graph-shuffled", shuffled))
        },
        "comparisons": made,
        "shuffle": {"genres": {"triples": 7, "unchanged": 2, "repeated": 0, "loops": 0}},
        "skipped": {"text-off": "the items have no text", "text-shuffled": "the items have no text"},
        "items_without_vector": {"true": 0, "graph-shuffled": 3},
    } | more
    out["verdict"] = verdicts(out)
    return out


def test_the_verdict_says_where_the_graph_helps_and_where_not() -> None:
    better, same = report()["verdict"]
    assert better.startswith("The true graph is better than a shuffled one for all users (+0.6")
    assert same.startswith("The true graph is no better than a shuffled one for long-tail items (+0.0000")
    assert "cold items" in same and "cold items" not in better
    worse = comparison(-0.2, 0.001, [-0.2], slice="sparse users")
    judge([worse])
    assert sentences("the true graph", "none", [worse]) == [
        "The true graph is worse than none for sparse users (-0.2000 [-0.2100, -0.1900])."
    ]


def test_relations_are_named_by_what_they_are_worth() -> None:
    relations = [
        comparison(0.1, 0.001, [0.1], relation="genres"),
        comparison(-0.1, 0.001, [-0.1], relation="price"),
        comparison(0.0, 0.9, [0.0], relation="language"),
    ]
    judge(relations)
    words = verdicts({"comparisons": [], "relations": relations})
    assert words == [
        "Relations whose triples make the ranking better for all users: genres (+0.1000 [+0.0900, +0.1100]).",
        "Relations whose triples make no clear difference for all users: language.",
        "Relations whose triples make the ranking worse for all users: price (-0.1000 [-0.1100, -0.0900]).",
    ]


def test_the_page_has_every_table_and_every_caution() -> None:
    page = ablation_markdown(report())
    for needed in (
        "# What the graph is worth: toy",
        "- Left out: text-off, text-shuffled: the items have no text.",
        "| `true`: true | ",
        "| the true graph over a shuffled one | cold items | +0.0000 [+0.0000, +0.0000] |",
        "| `genres` | 7 | 2 | 0 | 0 |",
        "neither interaction nor triple nor text: graph-shuffled 3.",
        "by the weights of training: what a run adds over what is known by then (train.refresh_epochs) is left out",
    ):
        assert needed in page, needed
    assert "raise evaluate.bootstrap_samples" not in page
    assert "raise evaluate.bootstrap_samples" in ablation_markdown(report(bootstrap_samples=100))
    for lines in page.split("\n\n"):  # every row of a table has the cells of its head
        if lines.startswith("|"):
            assert len({line.count("|") for line in lines.splitlines()}) == 1
    quiet = report(skipped={}, items_without_vector={"true": 0})
    assert cautions(quiet) == []
