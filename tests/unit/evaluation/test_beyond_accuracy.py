from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from reckg.evaluation import beyond_accuracy
from reckg.evaluation.beyond_accuracy import (
    Catalog,
    gini_index,
    gini_interval,
    intra_list_diversity,
    item_exposure,
    miscalibration,
    user_figures,
    value_exposure,
)
from tests import toy

# Of the toy world: ann is shown dune, solaris; bob heidi, ulysses; cyd emma and nothing more.
LISTS = np.array([[1, 2], [3, 4], [0, -1]], dtype=np.int32)
USERS = np.array([0, 1, 2])
RELEVANT = (np.array([0, 1, 2, 3]), np.array([2, 4, 3]))
EXPECTED = np.array([[1, 2], [3, 4], [0, 3]])
GENRES = sparse.csr_matrix(np.array([[0.5, 0.5, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]]))


def figures(vectors: object = GENRES, **changed: object) -> dict[str, np.ndarray]:
    settings = {"values": GENRES, "tail": np.array([False, False, False, True, True])} | changed
    catalog = Catalog(toy.POPULARITY.astype(float), 4, vectors, **settings)  # type: ignore[arg-type]
    return user_figures(LISTS, USERS, RELEVANT, toy.history(), catalog, EXPECTED)


def test_values_worked_out_by_hand() -> None:
    found = figures()
    np.testing.assert_allclose(found["popularity"], [2, 0.5, 3])  # users of the items: 3 2 2 1 0
    # ann took emma and heidi (3, 1), bob dune, solaris, emma (2, 2, 3), cyd dune and solaris.
    np.testing.assert_allclose(found["popularity_lift"], [0, 0.5 / (7 / 3) - 1, 0.5])
    np.testing.assert_allclose(found["novelty"], [np.log2(5 / 3), (np.log2(5 / 2) + np.log2(5)) / 2, np.log2(5 / 4)])
    np.testing.assert_allclose(found["tail"], [0, 1, 0])
    np.testing.assert_allclose(
        found["diversity"], [0, 0, np.nan], atol=1e-12
    )  # of one genre each; one item has no pair
    np.testing.assert_allclose(found["serendipity"], [0, 0, 0])  # every hit is what anybody is shown
    # ann: history 3/4 classic, 1/4 romance; list all space.
    assert found["miscalibration"][0] == pytest.approx(np.log(100))
    # cyd: history all space, list half classic, half romance.
    assert found["miscalibration"][2] == pytest.approx(np.log(100))


def test_a_hit_that_is_not_expected_is_serendipity() -> None:
    catalog = Catalog(toy.POPULARITY.astype(float), 4, GENRES, None, np.zeros(5, dtype=bool))
    expected = np.array([[1, 0], [3, 4], [-1, -1]])
    found = user_figures(LISTS, USERS, RELEVANT, toy.history(), catalog, expected)
    np.testing.assert_allclose(found["serendipity"], [0.5, 0, 0])  # ann's solaris; cyd is not shown his heidi
    assert "miscalibration" not in found


def test_dense_vectors_do_as_well_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures()
    monkeypatch.setattr(beyond_accuracy, "BLOCK_USERS", 2)
    for found in (figures(), figures(GENRES.toarray())):
        for name, values in whole.items():
            np.testing.assert_allclose(found[name], values, atol=1e-12)


def test_unlike_items_are_diverse_and_unknown_ones_do_not_count() -> None:
    unit = np.array([[1.0, 0], [0, 1], [-1, 0], [0, 0]])
    listed = sparse.csr_matrix(np.array([[1.0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]))
    np.testing.assert_allclose(intra_list_diversity(listed, unit), [1, 2, np.nan])


def test_the_users_own_mix_is_calibrated() -> None:
    mix = sparse.csr_matrix(np.array([[3.0, 1], [0, 0], [1, 0]]))
    same = sparse.csr_matrix(np.array([[6.0, 2], [1, 0], [0, 0]]))
    np.testing.assert_allclose(miscalibration(mix, same), [0, np.nan, np.nan], atol=1e-12)


def test_the_ginis_interval_is_about_that_of_resampled_users() -> None:
    rng = np.random.default_rng(0)
    lists = np.array([rng.choice(30, 5, replace=False, p=np.arange(1, 31) / 465) for _ in range(600)])
    found = gini_interval(lists, 30)
    drawn = [gini_index(item_exposure(lists[rng.integers(0, 600, 600)], 30)) for _ in range(400)]
    assert found["mean"] == gini_index(item_exposure(lists, 30))
    assert (found["high"] - found["low"]) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.15)


def test_exposure_counts_places_of_real_items_only() -> None:
    np.testing.assert_array_equal(item_exposure(LISTS, 5), [1, 1, 1, 1, 1])
    found = value_exposure(LISTS, np.array([0, 1, -1, 1, 1]), 2)
    np.testing.assert_allclose(found, [[0, 0.5], [0, 1], [1, 0]])
    assert gini_index(np.zeros(4)) == 0
