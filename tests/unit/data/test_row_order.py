"""The order of rows by several numbers, each way of sorting against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.data.row_order import row_order, row_runs


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
