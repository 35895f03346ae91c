"""Factors of histories against the library's own, and where there is too little to factorise."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.history import History
from reckg.ranking.tables.ease import user_item_matrix
from reckg.ranking.tables.factors import (
    CONFIDENCE,
    ITERATIONS,
    REGULARISATION,
    factor_gram,
    fit_factors,
    history_factors,
)


def history_of(rows: list[list[int]]) -> History:
    events = [(user, item, time) for user, row in enumerate(rows) for time, item in enumerate(row)]
    frame = pl.DataFrame(
        events, schema={"user_idx": pl.Int64, "item_idx": pl.Int64, "timestamp": pl.Int64}, orient="row"
    )
    return History.from_interactions(frame, len(rows))


@pytest.fixture(scope="module")
def history() -> History:
    """150 users over 40 items, each of one ten of them; the first has none, the second repeats one."""
    rng = np.random.default_rng(0)
    taken = [(10 * (user % 4) + rng.choice(10, rng.integers(3, 9), replace=False)).tolist() for user in range(148)]
    return history_of([[], [3, 8, 3, 3], *taken])


def test_a_historys_factors_are_those_that_the_library_calculates_again(history: History) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    factors = fit_factors(history, 40, seed=1, threads=1)
    assert factors.shape == (40, 39) and factors.dtype == np.float32
    settings = {"regularization": REGULARISATION, "alpha": CONFIDENCE, "iterations": ITERATIONS, "num_threads": 1}
    model = AlternatingLeastSquares(factors=39, random_state=1, use_cg=False, **settings)
    taken = user_item_matrix(history, 40)
    model.item_factors, model.user_factors = factors, np.zeros((150, 39), dtype=np.float32)
    users = np.arange(1, 150)
    expected = model.recalculate_user(users, taken[users])
    found = history_factors((history.indptr, history.item_idx), factors, factor_gram(factors))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found[1:], expected, atol=1e-4)
    assert not found[0].any()


def test_the_model_prefers_what_a_user_has(history: History) -> None:
    factors = fit_factors(history, 40, seed=1, threads=1)
    users = history_factors((history.indptr, history.item_idx), factors, factor_gram(factors))
    taken = user_item_matrix(history, 40).toarray() > 0
    scores = users[2:] @ factors.T
    assert scores[taken[2:]].mean() > scores[~taken[2:]].mean() + 0.1
    assert np.array_equal(factors, fit_factors(history, 40, seed=1, threads=1))


def test_a_history_alone_has_the_bits_of_a_batch(history: History) -> None:
    factors = fit_factors(history, 40, seed=1, threads=1)
    gram = factor_gram(factors)
    batch = history_factors((history.indptr, history.item_idx), factors, gram)
    for user in range(150):
        items = history.items(user)
        assert np.array_equal(history_factors((np.array([0, len(items)]), items), factors, gram)[0], batch[user])


@pytest.mark.parametrize("rows", [[[0, 1], [1, 2], [2], [3]], [[], [], [], [], [], [], []]])
def test_too_little_gives_no_factors(rows: list[list[int]]) -> None:
    history = history_of(rows)
    factors = fit_factors(history, 9, seed=0, threads=1)
    assert factors.shape == (9, 0)
    assert history_factors((history.indptr, history.item_idx), factors, factor_gram(factors)).shape == (len(rows), 0)


def test_an_item_that_nobody_has_gets_no_factors_of_the_random_start() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"user_idx": rng.integers(0, 30, 200), "item_idx": rng.integers(0, 19, 200)})
    found = fit_factors(History.from_interactions(frame, 30), 20, seed=0, threads=1)
    assert found.shape[1] > 0 and np.abs(found[:19]).max() > 0
    assert not found[19].any()
