from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.arrays.ragged_rows import rows_of_pairs, take_rows
from reckg.errors import DataError
from reckg.evaluation.leakage import checks_from_preparation, leakage_checks
from reckg.evaluation.protocol import (
    HeldOut,
    ItemGroups,
    SystemResult,
    evaluate_system,
    held_out,
    valid_precedes_test,
)
from reckg.retrieval.scored_items import ScoredItems
from tests import reference

# user 0: train 0 1, valid 2, test 3 4      user 1: train 2, test 0 (twice) and 2, which is already his
# user 2: train 4, test 4                   user 3: only train
WORLD = pl.DataFrame(
    [
        (0, 0, "train", 1),
        (0, 1, "train", 2),
        (0, 2, "valid", 3),
        (0, 3, "test", 4),
        (0, 4, "test", 5),
        (1, 2, "train", 1),
        (1, 0, "test", 3),
        (1, 0, "test", 4),
        (1, 2, "test", 5),
        (2, 4, "train", 1),
        (2, 4, "test", 2),
        (3, 1, "train", 1),
    ],
    schema=["user_idx", "item_idx", "split", "timestamp"],
    orient="row",
)


def lists_of(lists: dict[int, list[int]]) -> object:
    """A system that answers with fixed lists."""

    def recommend(user_idx: np.ndarray) -> ScoredItems:
        item_idx = np.array([lists[int(user)] for user in user_idx], dtype=np.int64)
        return ScoredItems(item_idx, np.zeros(item_idx.shape, dtype=np.float32))

    return recommend


def test_held_out_keeps_what_can_be_recommended_and_counts_the_rest() -> None:
    held = held_out(WORLD, "test", ("train", "valid"), 4)
    assert held.users.tolist() == [0, 1]
    assert [part.tolist() for part in held.relevant] == [[0, 2, 3], [3, 4, 0]]
    assert [part.tolist() for part in held.excluded] == [[0, 3, 4], [0, 1, 2, 2]]
    assert held.counts == {
        "interactions": 6,
        "repeated": 1,
        "already_seen": 2,
        "targets": 3,
        "users": 2,
        "users_without_target": 1,
    }


def test_validation_excludes_training_items_only() -> None:
    held = held_out(WORLD, "valid", ("train",), 4)
    assert held.users.tolist() == [0]
    assert held.excluded[1].tolist() == [0, 1]


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(DataError, match="the test part has 0 interactions"):
        held_out(WORLD.filter(pl.col("split") != "test"), "test", ("train",), 4)


def test_a_sample_of_users_keeps_their_rows() -> None:
    users = np.arange(0, 40, 2)
    rows = rows_of_pairs(np.repeat(np.arange(20), 2), np.arange(40), 20)
    held = HeldOut(users, rows, rows, {})
    assert held.sample(20, 0) is held
    part = held.sample(5, seed=1)
    assert len(part.users) == 5
    for place, user in enumerate(part.users):
        assert take_rows(part.relevant, np.array([place]))[1].tolist() == [user, user + 1]
    assert part.users.tolist() == held.sample(5, seed=1).users.tolist() != held.sample(5, seed=2).users.tolist()


def test_whether_validation_comes_before_test() -> None:
    assert valid_precedes_test(WORLD)
    late = WORLD.with_columns(timestamp=pl.when(pl.col("split") == "valid").then(9).otherwise(pl.col("timestamp")))
    assert not valid_precedes_test(late)
    level = WORLD.with_columns(timestamp=pl.when(pl.col("split") == "valid").then(4).otherwise(pl.col("timestamp")))
    assert valid_precedes_test(level)
    assert not valid_precedes_test(WORLD.drop("timestamp"))


def test_a_system_is_measured_the_same_whatever_the_block() -> None:
    rng = np.random.default_rng(0)
    n_users, n_items = 23, 30
    lists = {user: rng.permutation(n_items)[:8].tolist() for user in range(n_users)}
    relevant = rows_of_pairs(np.repeat(np.arange(n_users), 3), rng.integers(0, n_items, 3 * n_users), n_users)
    groups = ItemGroups(("even", "odd"), np.arange(n_items) % 2)
    done: list[int] = []
    results = [
        evaluate_system(
            lists_of(lists),  # type: ignore[arg-type]
            np.arange(n_users),
            relevant,
            (2, 8),
            n_items=n_items,
            groups=groups,
            group_k=8,
            block_users=block,
            progress=done.append,
        )
        for block in (1, 5, 100)
    ]
    assert sum(done) == 3 * n_users
    for other in results[1:]:
        for name, values in results[0].per_user.items():
            np.testing.assert_array_equal(values, other.per_user[name])
        for group, found in results[0].per_group.items():
            for name, values in found.items():
                np.testing.assert_array_equal(values, other.per_group[group][name])
        assert results[0].coverage == other.coverage
    expected = reference.slow_coverage(list(lists.values()), n_items, 2)
    assert results[0].coverage["coverage@2"]["mean"] == expected


def test_the_coverage_interval_leaves_out_one_user_at_a_time() -> None:
    lists = {0: [0, 1], 1: [0, 2], 2: [0, 1], 3: [3, 4]}
    found = evaluate_system(
        lists_of(lists),  # type: ignore[arg-type]
        np.arange(4),
        (np.arange(5), np.zeros(4, dtype=np.int64)),
        (2,),
        n_items=10,
        block_users=3,
    ).coverage["coverage@2"]
    without = np.array([5, 4, 5, 3]) / 10  # distinct items without user 0, 1, 2, 3
    error = np.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    assert found["mean"] == 0.5
    assert found["high"] == pytest.approx(0.5 + 1.96 * error)


def test_groups_count_their_own_held_out_items_only() -> None:
    relevant = (np.array([0, 2, 3]), np.array([0, 3, 2]))
    groups = ItemGroups(("low", "high", "none"), np.array([0, 0, 1, 1]))
    result = evaluate_system(
        lists_of({0: [3, 1], 1: [1, 2]}),  # type: ignore[arg-type]
        np.array([0, 1]),
        relevant,
        (2,),
        n_items=4,
        groups=groups,
        group_k=2,
    )
    np.testing.assert_array_equal(result.per_group["low"]["recall@2"], [0.0, np.nan])
    np.testing.assert_array_equal(result.per_group["high"]["recall@2"], [1.0, 1.0])
    np.testing.assert_allclose(result.per_group["high"]["ndcg@2"], [1.0, 1 / np.log2(3)])
    assert "none" not in result.per_group
    np.testing.assert_array_equal(result.per_user["recall@2"], [0.5, 1.0])


def test_excluded_items_and_short_lists_are_counted() -> None:
    result = evaluate_system(
        lists_of({0: [0, 3, -1], 1: [0, 1, 3]}),  # type: ignore[arg-type]
        np.array([0, 1]),
        (np.array([0, 1, 2]), np.array([3, 0])),
        (3,),
        n_items=5,
        excluded=(np.array([0, 2, 3]), np.array([0, 1, 2])),
    )
    assert result.excluded_items == 1
    assert result.short_lists == 1


@pytest.mark.parametrize("lists", [{0: [5]}, {0: [99]}])
def test_items_that_do_not_exist_are_refused(lists: dict[int, list[int]]) -> None:
    with pytest.raises(DataError, match="there are 5 items"):
        evaluate_system(
            lists_of(lists),  # type: ignore[arg-type]
            np.array([0]),
            (np.array([0, 1]), np.array([3])),
            (1,),
            n_items=5,
        )


def test_a_wrong_number_of_lists_is_refused() -> None:
    with pytest.raises(DataError, match="asked for 1 lists"):
        evaluate_system(
            lambda _: ScoredItems(np.zeros((2, 1), dtype=np.int64), np.zeros((2, 1), dtype=np.float32)),
            np.array([0]),
            (np.array([0, 1]), np.array([3])),
            (1,),
            n_items=5,
        )


def result_with(excluded_items: int = 0) -> SystemResult:
    return SystemResult({}, {}, 0.0, excluded_items=excluded_items)


def passed(checks: list[dict[str, object]]) -> dict[str, object]:
    return {str(check["name"]): check["passed"] for check in checks}


def test_leakage_checks_pass_on_a_clean_run() -> None:
    held = held_out(WORLD, "test", ("train", "valid"), 4)
    triples = pl.DataFrame({"head": [4, 5, 0], "tail": [9, 10, 11]})
    checks = leakage_checks(WORLD, triples, held, ("train", "valid"), {"reckg": result_with()}, 4, 5)
    assert list(passed(checks).values()) == [True] * 5


def test_each_leak_is_found() -> None:
    held = held_out(WORLD, "test", ("train", "valid"), 4)
    # Triples that join user 0 (node 0) and item 3 (node 4 + 3), either way round.
    for head, tail in ((0, 7), (7, 0)):
        triples = pl.DataFrame({"head": [head], "tail": [tail]})
        found = passed(leakage_checks(WORLD, triples, held, ("train",), {}, 4, 5))
        assert found["No test target is among the knowledge graph's triples"] is False
    leaky = pl.concat([WORLD, WORLD.filter(pl.col("split") == "test").with_columns(split=pl.lit("train"))])
    found = passed(leakage_checks(leaky, None, held, ("train",), {}, 4, 5))
    assert found["No test target is among the training graph's interactions"] is False
    found = passed(leakage_checks(WORLD, None, held, ("train",), {"reckg": result_with(2)}, 4, 5))
    assert found["No list holds an item of the user's training or validation part"] is False
    late = WORLD.with_columns(timestamp=pl.when(pl.col("split") == "valid").then(9).otherwise(pl.col("timestamp")))
    found = passed(leakage_checks(late, None, held, ("train", "valid"), {}, 4, 5))
    assert found["Validation comes before test"] is False
    assert found["Histories are older than the test"] is None


def test_checks_of_the_preparation_are_taken_over() -> None:
    checks = {"in_order": {"passed": False, "bad": 3, "of": 1200, "says": "rows are late"}}
    assert checks_from_preparation(checks) == [
        {"name": "Preparation: in order", "passed": False, "detail": "3 of 1,200 rows are late"}
    ]
    assert checks_from_preparation(None) == []


def test_any_asks_for_what_comes_again_too() -> None:
    held = held_out(WORLD, "test", ("train", "valid"), 4, target="any")
    assert held.users.tolist() == [0, 1, 2]
    assert [part.tolist() for part in held.relevant] == [[0, 2, 4, 5], [3, 4, 0, 2, 4]]
    assert held.excluded[1].tolist() == [] and held.only is None and held.excluded_parts == ()
    assert held.counts["already_seen"] == 2 and held.counts["targets"] == 5


def test_repeat_asks_for_what_comes_again_alone() -> None:
    held = held_out(WORLD, "test", ("train", "valid"), 4, target="repeat")
    assert held.users.tolist() == [1, 2]
    assert [part.tolist() for part in held.relevant] == [[0, 1, 2], [2, 4]]
    assert held.only is not None and held.only[1].tolist() == [2, 4], "lists hold nothing else"
    found = held.nearest_items(np.ones((2, 1), np.float32), np.arange(5, dtype=np.float32)[:, None], 2)
    assert found.item_idx.tolist() == [[2, -1], [4, -1]]


def test_only_the_target_event_is_asked_for_and_excludes() -> None:
    """User 0 looked at 0 and took 1; in the test part the user takes 0 and looks at 3."""
    taken = pl.Series("taken", [False, True, True, False, True, *[True] * 7])
    world = WORLD.with_columns(taken, item_idx=pl.when(pl.col("timestamp") == 5).then(0).otherwise("item_idx"))
    held = held_out(world.filter(pl.col("user_idx") == 0), "test", ("train", "valid"), 4)
    assert held.relevant[1].tolist() == [0], "what was looked at may be taken"
    assert held.excluded[1].tolist() == [1, 2]


@pytest.mark.parametrize("target", ["new", "any", "repeat"])
def test_disliked_items_are_neither_listed_nor_asked_for(target: str) -> None:
    disliked = pl.DataFrame([(0, 3, "train", 1)], schema=WORLD.schema, orient="row")
    world = pl.concat([WORLD.with_columns(disliked=False), disliked.with_columns(disliked=True)])
    world = world.with_columns(taken=~pl.col("disliked"))
    again = pl.DataFrame([(0, 0, "test", 9, False, True)], schema=world.schema, orient="row")
    held = held_out(pl.concat([world, again]), "test", ("train", "valid"), 4, target=target)  # type: ignore[arg-type]
    row = held.users.tolist().index(0)
    own = slice(*held.relevant[0][row : row + 2])
    assert 3 not in held.relevant[1][own]
    excluded = slice(*held.excluded[0][row : row + 2])
    assert target == "repeat" or 3 in held.excluded[1][excluded]
    assert held.only is None or 3 not in held.only[1]
