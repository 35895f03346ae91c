"""Folds of labels: which interactions are asked for and which are known, and that nothing else reaches the tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from reckg.config.run_config import Config, parse_config
from reckg.data.history import History
from reckg.pipeline.ranking import label_folds
from reckg.pipeline.ranking.label_folds import HELD, LATER, fold_held_out, fold_parts, n_folds
from reckg.pipeline.ranking.table_inputs import feature_tables
from reckg.pipeline.run.folder import Prepared

N_USERS, N_ITEMS = 25, 30


def prepared(kind: str, seed: int = 0, n: int = 600, valid: float = 0.1) -> Prepared:
    """Random interactions in order of user and time, the last of them (by user, or by time) valid and test."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "user_idx": rng.integers(0, N_USERS, n),
            "item_idx": rng.integers(0, N_ITEMS, n),
            "timestamp": rng.integers(0, 10**6, n),
        }
    ).sort("user_idx", "timestamp", "item_idx")
    if kind == "leave-last-out":
        from_end = frame.select(pl.int_range(pl.len()).reverse().over("user_idx")).to_series().to_numpy()
        part = np.where(from_end == 0, "test", np.where(from_end == 1, "valid", "train"))
    elif kind == "global-time":
        place = frame["timestamp"].rank("ordinal").to_numpy() / n
        part = np.where(place > 1 - valid, "test", np.where(place > 1 - 2 * valid, "valid", "train"))
    else:
        part = rng.choice(["train", "valid", "test"], n, p=[1 - 2 * valid, valid, valid])
    info = {
        "split": {"kind": kind, "valid_before_test": kind in ("leave-last-out", "global-time")},
        "time": "none" if kind == "random" else "utc",
        "item_columns": {"number": ["price"]},
    }
    items = pl.DataFrame({"item_id": [str(i) for i in range(N_ITEMS)], "price": rng.random(N_ITEMS)})
    users = pl.DataFrame({"user_id": [str(u) for u in range(N_USERS)]})
    return Prepared(frame.with_columns(split=pl.Series(part)), users, items, info)


def times(data: Prepared, where: np.ndarray) -> pl.DataFrame:
    return data.interactions.filter(pl.Series(where)).select("user_idx", "timestamp")


@pytest.mark.parametrize("kind", ["random", "per-user-random"])
def test_folds_without_an_order_are_drawn_from_training_and_share_nothing(kind: str) -> None:
    data = prepared(kind)
    own = data.interactions["split"].to_numpy()
    parts = [fold_parts(data, fold, 5, 0) for fold in range(5)]
    held = np.array([part == HELD for part in parts])
    assert held.sum(axis=0).max() == 1
    assert (held.sum(axis=1) == min((own == "valid").sum(), (own == "train").sum() // 10)).all()
    for part in parts:
        assert (own[part == HELD] == "train").all() and not (part == LATER).any()
        assert (part == own)[part != HELD].all()
    assert not np.array_equal(fold_parts(data, 0, 5, 0), fold_parts(data, 0, 5, 1))
    assert np.array_equal(fold_parts(data, 0, 5, 0), parts[0])


def test_every_interaction_is_a_label_once_where_there_are_ten_folds() -> None:
    data = prepared("random", n=500, valid=0.3)
    own = data.interactions["split"].to_numpy()
    count = np.sum([fold_parts(data, fold, 10, 0) == HELD for fold in range(10)], axis=0)
    assert count[own != "train"].sum() == 0 and count.max() == 1
    assert (own == "train").sum() - count.sum() < 10  # what a tenth leaves over


def test_labels_of_a_fold_come_after_all_that_is_known_of_their_user() -> None:
    data = prepared("leave-last-out")
    own = data.interactions["split"].to_numpy()
    earlier = np.zeros(len(own), dtype=bool)
    for fold in range(3):
        part = fold_parts(data, fold, 3, 0)
        assert np.array_equal(part == LATER, earlier)  # the labels of the folds before
        assert ((part == own) | (own == "train")).all()
        labels, known = times(data, part == HELD), times(data, part == "train")
        latest = dict(known.group_by("user_idx").agg(pl.col("timestamp").max()).iter_rows())
        assert all(latest.get(user, 0) <= time for user, time in labels.iter_rows())
        later = times(data, part == LATER)
        first = dict(later.group_by("user_idx").agg(pl.col("timestamp").min()).iter_rows())
        assert all(first.get(user, 10**9) >= time for user, time in labels.iter_rows())
        assert labels["user_idx"].n_unique() == len(labels) == N_USERS  # as many as the validation part has
        earlier |= part == HELD


def test_labels_of_a_fold_come_after_all_that_is_known_where_the_split_is_by_time() -> None:
    data = prepared("global-time")
    own = data.interactions["split"].to_numpy()
    earlier = np.zeros(len(own), dtype=bool)
    for fold in range(3):
        part = fold_parts(data, fold, 3, 0)
        assert np.array_equal(part == LATER, earlier)
        assert (part == HELD).sum() == min((own == "valid").sum(), (own == "train").sum() // 6)
        labels, known = times(data, part == HELD)["timestamp"], times(data, part == "train")["timestamp"]
        assert known.max() <= labels.min() and (part == "train").any()  # type: ignore[operator]
        assert labels.max() <= times(data, (own == "valid") | (part == LATER))["timestamp"].min()  # type: ignore[operator]
        earlier |= part == HELD


@pytest.mark.parametrize("kind", ["leave-last-out", "global-time", "random"])
def test_lists_of_a_fold_leave_out_all_that_their_user_took_but_for_the_labels_and_the_test_part(kind: str) -> None:
    data = prepared(kind, n=300)
    part = fold_parts(data, 1, 2, 0)
    rows = zip(data.interactions["user_idx"].to_list(), data.interactions["item_idx"].to_list(), part, strict=True)
    taken: dict[tuple[int, int], set[str]] = {}
    for user, item, of in rows:
        taken.setdefault((user, item), set()).add(of)
    asked = fold_held_out(replace(data, interactions=data.interactions.with_columns(split=pl.Series(part.tolist()))))
    elsewhere = {"train", LATER, "valid"}
    users = asked.users.tolist()

    def pairs(rows: tuple[np.ndarray, np.ndarray]) -> set[tuple[int, int]]:
        return {(user, item) for n, user in enumerate(users) for item in rows[1][rows[0][n] : rows[0][n + 1]].tolist()}

    assert pairs(asked.relevant) == {pair for pair, of in taken.items() if HELD in of and not of & elsewhere}
    assert pairs(asked.excluded) == {pair for pair, of in taken.items() if of & elsewhere and pair[0] in users}
    assert any(of & {"valid", LATER} and "train" not in of for pair, of in taken.items() if pair[0] in users)


def config(**rank: Any) -> Config:
    return parse_config({"rank": rank}, "test")


def test_there_are_as_many_folds_as_bring_enough_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared("leave-last-out")  # 25 labels
    for enough, expected in ((25, 0), (26, 1), (50, 1), (51, 2), (10_000, 2)):
        monkeypatch.setattr(label_folds, "ENOUGH", enough)
        assert n_folds(Config(), data) == expected
    assert n_folds(Config(), prepared("random")) == 5  # without an order, folds do not grow older
    assert n_folds(config(label_folds=3), data) == 3
    assert n_folds(config(label_folds=0), data) == 0
    assert n_folds(config(enabled=False, label_folds=3), data) == 0
    assert n_folds(config(label_folds=3), prepared("cold-items")) == 0


@pytest.mark.parametrize("kind", ["leave-last-out", "global-time", "random"])
def test_tables_of_a_state_know_nothing_of_the_other_parts(kind: str, tmp_path: Path) -> None:
    """Labels that are moved, retimed or taken away change no byte of what candidates and features are made of."""
    (tmp_path / "graph").mkdir()
    pl.DataFrame({"head": [N_USERS], "tail": [N_USERS + N_ITEMS]}).write_parquet(tmp_path / "graph" / "triples.parquet")
    data = prepared(kind)
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS, 4)).astype(np.float32)
    label = pl.col("split") != "train"
    moved = data.interactions.with_columns(
        item_idx=pl.when(label).then(N_ITEMS - 1 - pl.col("item_idx")).otherwise("item_idx"),
        timestamp=pl.when(label).then(pl.col("timestamp") + 10**6).otherwise("timestamp"),
    )
    written = []
    for number, frame in enumerate((data.interactions, moved, data.interactions.filter(~label))):
        other = Prepared(frame, data.users, data.items, data.info)
        feature_tables(Config(), tmp_path, other, "train", vectors).save(tmp_path / str(number))
        written.append((tmp_path / str(number) / "features.safetensors").read_bytes())
        history: History = other.history("train", Config())
        assert len(history.item_idx) == (data.interactions["split"] == "train").sum()
    assert written[0] == written[1] == written[2]
    changed = Prepared(moved, data.users, data.items, data.info)
    feature_tables(Config(), tmp_path, changed, "serving", vectors).save(tmp_path / "serving")
    assert (tmp_path / "serving" / "features.safetensors").read_bytes() != written[0]
