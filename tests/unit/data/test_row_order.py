"""The order of rows by several numbers, each way of sorting against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.data.row_order import hash_pairs, history_order, row_order, row_runs


@pytest.mark.parametrize("span", [5, 2**30, 2**40])  # packed with the row, packed alone, and not packed
def test_rows_are_in_order_of_all_keys_and_equal_ones_stay(span: int) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.choice([-3, 0, span], 500) for _ in range(2))
    np.testing.assert_array_equal(row_order(first, second), np.lexsort((second, first)))

    order, starts = row_runs(first, second)
    pairs = list(zip(first[order].tolist(), second[order].tolist(), strict=True))
    assert starts.tolist() == [place == 0 or pairs[place] != pairs[place - 1] for place in range(500)]
    assert starts.sum() == 9


def test_no_rows() -> None:
    assert len(row_order(np.zeros(0, dtype=np.int64))) == 0
    assert [len(each) for each in row_runs(np.zeros(0, dtype=np.int64))] == [0, 0]


def test_histories_are_in_order_of_time_and_by_chance_within_equal_times() -> None:
    rng = np.random.default_rng(1)
    n_users, n_items = 400, 6
    user, item = np.repeat(np.arange(n_users), n_items), np.tile(np.arange(n_items), n_users)
    time = np.where(item < 4, 7, item)  # items 0 to 3 at once, then 4 and 5 before them
    order = history_order(user, time, item)
    assert (np.diff(user[order] * 100 + time[order]) >= 0).all()
    shuffled = rng.permutation(len(user))
    again = history_order(user[shuffled], time[shuffled], item[shuffled])
    np.testing.assert_array_equal(item[shuffled][again], item[order])
    last = item[order].reshape(n_users, n_items)[:, -1]
    counts = np.bincount(last, minlength=n_items)
    assert counts[4:].sum() == 0 and (np.abs(counts[:4] - n_users / 4) < 5 * np.sqrt(n_users * 3 / 16)).all()
    ahead = np.argsort(item[order].reshape(n_users, n_items), axis=1)[:, :4]  # where each item stands
    assert abs((ahead[:, 0] < ahead[:, 3]).mean() - 0.5) < 0.1


def test_a_hash_of_a_pair_depends_on_both_and_on_the_seed() -> None:
    pairs = np.array([[1, 2], [2, 1], [1, 3]])
    hashes = [hash_pairs(pairs[:, 0], pairs[:, 1], seed) for seed in (0, 1)]
    assert len(np.unique(np.concatenate(hashes))) == 6
