"""What the parts of a run ask, and what training validates on, where items are split and where they are not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.config.run_config import Config
from reckg.model.embeddings import Embeddings
from reckg.pipeline.run.folder import Prepared
from reckg.pipeline.run.held_out import held_out_part, new_items
from reckg.pipeline.training.validation import validation_score

# items: 0 1 2 3 4 are known, 5 6 new in validation, 7 8 new in test. User 2 has new items alone.
ROWS = [
    (0, 0, "train"), (0, 1, "train"), (0, 5, "valid"), (0, 7, "test"),
    (1, 2, "train"), (1, 6, "valid"), (1, 7, "test"), (1, 8, "test"),
    (2, 5, "valid"), (2, 8, "test"),
    (3, 3, "train"), (3, 4, "train"),
]  # fmt: skip


def prepared(kind: str) -> Prepared:
    rows = pl.DataFrame(ROWS, schema={"user_idx": pl.Int64, "item_idx": pl.Int64, "split": pl.String}, orient="row")
    users, items = pl.DataFrame({"user_id": list("abcd")}), pl.DataFrame({"item_id": list("abcdefghi")})
    return Prepared(rows, users, items, {"split": {"kind": kind, "valid_before_test": False}})


def test_new_items_are_asked_of_users_with_a_history() -> None:
    run = prepared("cold-items")
    assert new_items(run, "valid").tolist() == [5, 6] and new_items(run, "test").tolist() == [7, 8]
    test = held_out_part(run, "test")
    assert test.users.tolist() == [0, 1] and test.relevant[1].tolist() == [7, 7, 8]
    assert test.excluded[1].tolist() == [0, 1, 2] and test.excluded_parts == ("train",)
    assert test.counts == {
        "interactions": 3, "repeated": 0, "already_seen": 0, "targets": 3, "users": 2, "users_without_target": 0,
        "users_without_history": 1, "interactions_without_history": 1,
    }  # fmt: skip


def test_other_splits_ask_everyone_and_spare_the_validation_items() -> None:
    run = prepared("per-user-ratio")
    test = held_out_part(run, "test")
    assert test.users.tolist() == [0, 1, 2] and test.excluded[1].tolist() == [0, 1, 5, 2, 6, 5]
    assert test.excluded_parts == ("train", "valid") and "users_without_history" not in test.counts
    assert held_out_part(run, "valid").excluded[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("kind", "score"), [("cold-items", (1 + 1 / np.log2(3)) / 2), ("per-user-ratio", None)])
def test_training_validates_among_the_new_items_of_validation(kind: str, score: float | None) -> None:
    """User 0 puts item 5 first of 5 and 6, user 1 puts 6 second; items 7, 8 and the known ones are closer to both."""
    place = np.array([0, 0, 0, 0, 0, 0.6, 0.9, 0.1, 0.2])  # angles of the items; users at 0
    items = np.stack([np.cos(place), np.sin(place)], axis=1).astype(np.float32)
    users = np.tile(np.array([[1, 0]], dtype=np.float32), (4, 1))
    found = validation_score(prepared(kind), Config())(Embeddings(users, items, items[:0])).mean()
    if score is not None:
        assert found == pytest.approx(score)
    else:
        # Among all but the training items: 5 and 6 come after 7, 8 and the known items that a user does not have.
        ranks = [6, 8, 8]  # user 0: 2 3 4 7 8 5; user 1: 0 1 3 4 7 8 5 6; user 2: 0..4 7 8 5
        assert found == pytest.approx(np.mean([1 / np.log2(rank + 1) for rank in ranks]))
