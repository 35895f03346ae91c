from __future__ import annotations

import warnings

import numpy as np
import pytest

from reckg.evaluation.als import Als, fit_als
from tests.unit.evaluation.test_baselines import DENSE, TRAIN, history_of


def solved(model: Als, row: np.ndarray, regularisation: float, alpha: float) -> np.ndarray:
    """One user's normal equations: (Y'Y + (alpha - 1) sum of own yy' + lambda I) x = alpha sum of own y."""
    items = model.model.item_factors.astype(np.float64)
    mine = items[row > 0]
    left = items.T @ items + (alpha - 1) * mine.T @ mine + regularisation * np.eye(items.shape[1])
    return items @ np.linalg.solve(left, alpha * mine.sum(axis=0))


def test_a_user_is_the_solution_for_the_history_that_is_given() -> None:
    model = fit_als(TRAIN, 5, factors=3, regularisation=0.5, alpha=4.0, seed=1, threads=1)
    assert model.settings == {"factors": 3, "regularisation": 0.5, "alpha": 4.0}
    for user in range(4):
        expected = solved(model, DENSE[user], 0.5, 4.0)
        np.testing.assert_allclose(model.scores(TRAIN, np.array([user]))[0], expected, rtol=1e-3, atol=1e-4)
    later = history_of({4: [1]})
    expected = solved(model, np.eye(5)[1], 0.5, 4.0)
    np.testing.assert_allclose(model.scores(later, np.array([4]))[0], expected, rtol=1e-3, atol=1e-4)


def test_without_history_the_order_is_that_of_popularity() -> None:
    np.testing.assert_array_equal(fit_als(TRAIN, 5, factors=2).scores(TRAIN, np.array([4]))[0], [3, 2, 3, 2, 0])


def test_items_without_users_all_score_nothing() -> None:
    scores = fit_als(TRAIN, 5, factors=3).scores(TRAIN, np.arange(4))
    assert (scores[:, 4] == 0).all() and (scores[:, :4] != 0).all()


def test_the_seed_decides_and_threads_do_not() -> None:
    users = np.arange(4)
    one, two, other = (fit_als(TRAIN, 5, factors=3, seed=s, threads=t) for s, t in ((0, 1), (0, 2), (7, 1)))
    np.testing.assert_array_equal(one.model.item_factors, two.model.item_factors)
    np.testing.assert_array_equal(one.scores(TRAIN, users), two.scores(TRAIN, users))
    assert not np.array_equal(one.model.item_factors, other.model.item_factors)


def test_implicit_has_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns once of a BLAS with threads of its own; while it works, BLAS has one."""
    from implicit import utils
    from threadpoolctl import threadpool_limits

    monkeypatch.setattr(utils, "_checked_blas_config", False)
    with threadpool_limits(2, "blas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_als(TRAIN, 5, factors=2)
    assert utils._checked_blas_config
