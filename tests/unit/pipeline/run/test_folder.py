"""What is known in each state of a run."""

from __future__ import annotations

import polars as pl
import pytest

from reckg.config.run_config import Config, EvaluateConfig
from reckg.pipeline.run.folder import Prepared


def prepared(valid_before_test: bool) -> Prepared:
    rows = pl.DataFrame({"user_idx": [0, 0, 0], "item_idx": [0, 1, 2], "split": ["train", "valid", "test"]})
    ids = pl.DataFrame({"id": ["a", "b", "c"]})
    return Prepared(rows, ids[:1], ids, {"split": {"valid_before_test": valid_before_test}})


@pytest.mark.parametrize(
    ("setting", "in_order", "known"),
    [
        ("auto", True, ("train", "valid")),
        ("auto", False, ("train",)),
        ("train", True, ("train",)),
        ("train+valid", False, ("train", "valid")),
    ],
)
def test_test_time_follows_the_setting_and_the_order_of_the_parts(
    setting: str, in_order: bool, known: tuple[str, ...]
) -> None:
    config = Config(evaluate=EvaluateConfig.model_validate({"history": setting}))
    run = prepared(in_order)
    assert run.parts("test", config) == known
    assert run.history("test", config).items(0).tolist() == [["train", "valid"].index(part) for part in known]


def test_training_and_service_know_fixed_parts() -> None:
    for setting in ("train", "train+valid"):
        config = Config(evaluate=EvaluateConfig.model_validate({"history": setting}))
        assert prepared(True).known("train", config)["item_idx"].to_list() == [0]
        assert prepared(True).known("serving", config)["item_idx"].to_list() == [0, 1, 2]


def test_a_split_of_items_is_without_order() -> None:
    rows = pl.DataFrame({"user_idx": [0], "item_idx": [0], "split": ["train"]})
    ids = pl.DataFrame({"id": ["a"]})
    split = {"kind": "cold-items", "valid_before_test": False}
    run = Prepared(rows, ids, ids, {"split": split})
    assert run.cold_items and not run.in_order and run.parts("test", Config()) == ("train",)
    assert not prepared(True).cold_items
