"""A repeated row and a weight of two mean the same; later rows change nothing that was known before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reckg.config.run_config import Config, parse_config
from reckg.data.history import History
from reckg.evaluation.baselines import fit_item_knn, fit_popularity
from reckg.evaluation.personal_frequency import fit_personal_frequency
from reckg.evaluation.protocol import held_out
from reckg.model.training.losses import bpr_loss, sampled_softmax_loss, softmax_loss
from reckg.pipeline.run.folder import Prepared, read_prepared
from reckg.pipeline.stages.build_graph import build_graph
from reckg.ranking.sources.own_items import Entries, own_items
from tests.small_model import toy_graph

QUICK = settings(max_examples=25, deadline=None)
START, DAY = 1_600_000_000, 86_400
N_USERS, N_ITEMS = 4, 6
Rows = list[tuple[int, int, int]]  # user, item, day


def rows_of(least: int = 1) -> st.SearchStrategy[Rows]:
    row = st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(0, 40))
    return st.lists(row, min_size=least, max_size=30, unique=True)


def frame_of(rows: Rows) -> pl.DataFrame:
    columns = ["user_idx", "item_idx", "timestamp"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(pl.col("timestamp") * DAY + START)


def history_of(rows: Rows) -> History:
    return History.from_interactions(frame_of(rows), N_USERS)


@given(rows_of(), st.integers(0, 10_000))
@QUICK
def test_a_repeated_pair_is_an_edge_of_twice_the_weight(rows: Rows, seed: int) -> None:
    user, item, _ = np.array(rows).T
    recency = np.random.default_rng(seed).uniform(0.1, 1, len(rows))
    world: dict[str, Any] = {"n_users": N_USERS, "n_items": N_ITEMS, "n_entities": 0, "relations": ()}
    world["triples"] = (np.empty(0, np.int64),) * 3
    twice = toy_graph(
        **world, user_idx=np.append(user, user), item_idx=np.append(item, item), recency=np.append(recency, recency)
    )
    heavy = toy_graph(**world, user_idx=user, item_idx=item, recency=recency, weight=np.full(len(rows), 2.0))
    np.testing.assert_array_equal(twice.tail, heavy.tail)
    np.testing.assert_allclose(twice.prior, heavy.prior, rtol=1e-6)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))
@QUICK
def test_a_repeated_target_is_one_of_twice_the_weight_in_the_losses(m: int, each: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    users, items = (torch.randn(n, 3, generator=rng) for n in (m, N_ITEMS))
    target = torch.randint(N_ITEMS, (m * each,), generator=rng)
    first = torch.arange(m) * each
    row = torch.repeat_interleave(torch.arange(m), each)
    once = torch.randint(1, 3, (m * each,), generator=rng)
    again = torch.repeat_interleave(torch.arange(m * each), once)
    starts = (once.cumsum(0) - once)[first]
    weight = once.float()
    whole = softmax_loss(users, items, target[again], starts)
    torch.testing.assert_close(softmax_loss(users, items, target, first, weight), whole)
    scores = users @ items.T
    positive, negative = scores[row, target], torch.randn(m * each, generator=rng)
    torch.testing.assert_close(bpr_loss(positive, negative, weight), bpr_loss(positive[again], negative[again]))
    one = scores[row, target][:, None]
    masked = torch.zeros(m * each, 2, dtype=torch.bool)
    drawn = torch.randn(m * each, 2, generator=rng)
    found = sampled_softmax_loss(one, drawn, masked, None, weight[:, None])
    torch.testing.assert_close(found, sampled_softmax_loss(one[again], drawn[again], masked[again], None))


@given(rows_of(), rows_of())
@QUICK
def test_later_rows_change_nothing_that_was_known_before(rows: Rows, later: Rows) -> None:
    """Histories, baselines, rhythm and targets of a moment, with and without rows after it."""
    more = [*rows, *((user, item, day + 41) for user, item, day in later)]
    before = frame_of(more).filter(pl.col("timestamp") <= START + 40 * DAY)
    one, other = history_of(rows), History.from_interactions(before, N_USERS)
    users = np.arange(N_USERS)
    for fit in (fit_popularity, fit_item_knn, fit_personal_frequency):
        found = [fit(history, N_ITEMS).scores(history, users) for history in (one, other)]  # type: ignore[operator]
        np.testing.assert_array_equal(*found)
    rhythm = []
    for history in (one, other):
        indptr, positions = history.rows(users)
        query = np.repeat(users, np.diff(indptr))
        ones, time = np.ones(len(query)), history.timestamp[positions]
        entries = Entries(query, history.item_idx[positions], ones, np.zeros(len(query), int), time, ones > 0)
        everything = np.tile(np.arange(N_ITEMS), (N_USERS, 1))
        rhythm.append(own_items(entries, N_USERS, N_ITEMS, START + 40 * DAY).at(everything))
    np.testing.assert_array_equal(*rhythm)


def prepared_of(frame: pl.DataFrame, folder: Path, **sections: Any) -> Prepared:
    data = folder / "data"
    data.mkdir()
    frame.write_parquet(data / "interactions.parquet")
    pl.DataFrame({"item_id": [f"i{n}" for n in range(N_ITEMS + 90)]}).write_parquet(data / "items.parquet")
    build_graph(parse_config(sections, "test"), data, folder / "run")
    return read_prepared(folder / "run")


def log_of(rows: Rows) -> pl.DataFrame:
    """The rows on days 0 to 40, and enough rows of other users around them for a split by time."""
    others = [(10 + n % 7, N_ITEMS + n, n) for n in range(90)]
    columns = pl.format("u{}", "user_idx").alias("user_id"), pl.format("i{}", "item_idx").alias("item_id"), "timestamp"
    return frame_of([*rows, *others]).select(columns)


@given(rows_of(), st.integers(0, 10_000))
@settings(max_examples=8, deadline=None, phases=[Phase.generate])
def test_double_exports_are_counted_and_change_nothing(tmp_path_factory: Any, rows: Rows, seed: int) -> None:
    log = log_of(rows)
    doubled = pl.concat([log, log.sample(7, seed=seed)])
    found = [prepared_of(frame, tmp_path_factory.mktemp("log"), task={"target": "any"}) for frame in (log, doubled)]
    assert found[0].interactions.equals(found[1].interactions)
    assert [each.info["counts"]["cleaning"]["dropped_double_exports"] for each in found] == [0, 7]


@given(rows_of(5), st.integers(0, 10_000))
@settings(max_examples=8, deadline=None, phases=[Phase.generate])
def test_rows_after_the_cutoff_do_not_change_training(tmp_path_factory: Any, rows: Rows, seed: int) -> None:
    """Other items, weights and repeats in the test part leave training, validation and their targets as they are."""
    log = log_of(rows)
    config: dict[str, Any] = {"split": {"kind": "given"}, "task": {"target": "new"}}
    part = pl.when(pl.col("timestamp") < START + 60 * DAY).then(pl.lit("train"))
    part = part.when(pl.col("timestamp") < START + 75 * DAY).then(pl.lit("valid")).otherwise(pl.lit("test"))
    log = log.with_columns(split=part, weight=1.0 + pl.col("timestamp") % 3)
    rng = np.random.default_rng(seed)
    is_test = pl.col("split") == "test"
    chance = pl.Series("other", [f"i{n}" for n in rng.integers(0, N_ITEMS, len(log))])
    changed = log.with_columns(
        item_id=pl.when(is_test).then(chance).otherwise("item_id"),
        weight=pl.when(is_test).then(pl.lit(900.0)).otherwise("weight"),
    )
    found = [prepared_of(frame, tmp_path_factory.mktemp("log"), **config) for frame in (log, changed)]
    known = [each.interactions.filter(pl.col("split") != "test") for each in found]
    assert known[0].equals(known[1])
    held = [held_out(each, "valid", ("train",), len(found[0].users)) for each in known]
    np.testing.assert_array_equal(held[0].relevant[1], held[1].relevant[1])
    assert found[0].half_life(Config()) == found[1].half_life(Config())
