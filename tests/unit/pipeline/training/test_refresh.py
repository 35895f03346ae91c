"""Training on: the model of a later state knows what is new there, and nothing of what comes after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reckg.config.run_config import Config, parse_config
from reckg.pipeline.run.folder import read_embeddings, read_prepared, write_json
from reckg.pipeline.stages.build_graph import build_graph
from reckg.pipeline.stages.embed import embed
from reckg.pipeline.stages.train import train
from reckg.pipeline.training.model_inputs import load_graph
from reckg.pipeline.training.refresh import refresh_epochs, refresh_model
from reckg.pipeline.training.trained_model import load_trained_model

USERS, ITEMS = 40, 30


def config(**training: object) -> Config:
    settings = {"epochs": 2, "warmup_steps": 1, **training}
    values = {"text": {"encoder": "none"}, "model": {"embedding_dim": 8, "linear_rank": 4}, "train": settings}
    return parse_config(values | {"split": {"kind": "leave-last-out"}}, "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is trained; item 29 is first taken in the validation part, by user 0."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("refresh")
    (folder / "data").mkdir()
    rows = [
        (user, int(item), place) for user in range(USERS) for place, item in enumerate(rng.permutation(ITEMS - 1)[:8])
    ]
    rows = [(u, ITEMS - 1 if (u, t) == (0, 6) else i, t) for u, i, t in rows]
    frame = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")
    columns = [pl.format("u{}", "user").alias("user_id"), pl.format("i{}", "item").alias("item_id"), "timestamp"]
    frame.select(columns).write_parquet(folder / "data" / "interactions.parquet")
    items = [f"i{item}" for item in range(ITEMS)]
    pl.DataFrame({"item_id": items, "kind": [f"k{item % 4}" for item in range(ITEMS)]}).write_parquet(
        folder / "data" / "items.parquet"
    )
    build_graph(config(), folder / "data", folder / "run")
    train(config(), folder / "data", folder / "run")
    return folder / "run"


def embedded(trained: Path, to: Path, **training: object) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    shutil.copytree(trained, to)
    embed(config(**training), to, to)
    return {state: read_embeddings(to, state) for state in ("train", "test", "serving")}


def test_a_later_state_has_weights_of_its_own_and_training_keeps_its(trained: Path, tmp_path: Path) -> None:
    frozen = embedded(trained, tmp_path / "frozen", refresh_epochs=0)
    newer = embedded(trained, tmp_path / "newer", refresh_epochs=2)
    assert np.array_equal(frozen["train"][1], newer["train"][1])
    for state in ("test", "serving"):
        assert np.abs(frozen[state][1] - newer[state][1]).max() > 0.05, state
    again = embedded(trained, tmp_path / "again", refresh_epochs=2)
    assert all(np.array_equal(newer[state][0], again[state][0]) for state in newer)  # by the seed


def test_an_item_that_is_first_taken_later_gets_an_id_that_trains(trained: Path) -> None:
    prepared = read_prepared(trained)
    item = prepared.items["item_id"].to_list().index(f"i{ITEMS - 1}")
    assert prepared.interactions.filter(pl.col("item_idx") == item)["split"].to_list() == ["valid"]
    first = load_trained_model(config(), trained, prepared, load_graph(trained, prepared, config(), "train"))
    newer = refresh_model(config(refresh_epochs=2), trained, prepared, first, "test").model
    model = first.model
    node = len(prepared.users) + item
    assert not model.known[node] and newer.known[node] and not model.known[node]
    moved = (newer.embedding - model.embedding).abs().amax(dim=1)
    assert moved[item] > 0.01  # users have no ID here, so that items come first
    same = refresh_model(config(refresh_epochs=0), trained, prepared, first, "test")
    assert same is first and refresh_model(config(), trained, prepared, first, "train") is first


def test_the_test_state_does_not_know_the_test_part(trained: Path, tmp_path: Path) -> None:
    """Other test interactions change the serving state, and no byte of the test state."""
    changed = tmp_path / "changed"
    shutil.copytree(trained, changed)
    path = changed / "prepared" / "interactions.parquet"
    other = pl.when(pl.col("split") == "test").then((pl.col("item_idx") + 7) % ITEMS).otherwise("item_idx")
    pl.read_parquet(path).with_columns(other.alias("item_idx")).write_parquet(path)
    first = embedded(trained, tmp_path / "first", refresh_epochs=1)
    second = embedded(changed, tmp_path / "second", refresh_epochs=1)
    assert np.array_equal(first["test"][0], second["test"][0]) and np.array_equal(first["test"][1], second["test"][1])
    assert not np.array_equal(first["serving"][1], second["serving"][1])


@pytest.mark.parametrize(("best", "expected"), [(1, 1), (8, 1), (12, 2), (50, 8)])
def test_epochs_follow_from_the_best_epoch(best: int, expected: int, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "train.json", {"best_epoch": best})
    assert refresh_epochs(config(), tmp_path) == expected
    assert refresh_epochs(config(refresh_epochs=0), tmp_path) == 0
