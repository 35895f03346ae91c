"""History: compressed rows in time order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.history import History
from reckg.errors import DataError

# user 0: item 3 at 5, item 1 at 2;  user 1: nothing;  user 2: items 2 and 0 at the same time
FRAME = pl.DataFrame(
    {
        "user_idx": [0, 2, 0, 2],
        "item_idx": [3, 2, 1, 0],
        "timestamp": [5, 7, 2, 7],
        "weight": pl.Series([1.0, 2.0, 3.0, 4.0], dtype=pl.Float32),
    }
)


def test_rows_are_in_time_order() -> None:
    history = History.from_interactions(FRAME, n_users=4)
    assert history.n_users == 4
    assert history.indptr.tolist() == [0, 2, 2, 4, 4]
    assert [history.items(u).tolist() for u in range(4)] == [[1, 3], [], [0, 2], []]
    assert history.timestamp.tolist() == [2, 5, 7, 7]
    assert history.weight.tolist() == [3.0, 1.0, 4.0, 2.0]
    assert (history.indptr.dtype, history.item_idx.dtype, history.weight.dtype) == (np.int64, np.int64, np.float32)


def test_rows_of_many_users() -> None:
    history = History.from_interactions(FRAME, n_users=4)
    indptr, positions = history.rows(np.array([2, 1, 0, 2]))
    assert indptr.tolist() == [0, 2, 2, 4, 6]
    assert history.item_idx[positions].tolist() == [0, 2, 1, 3, 0, 2]
    indptr, positions = history.rows(np.array([], dtype=np.int64))
    assert indptr.tolist() == [0] and len(positions) == 0


def test_missing_times_and_weights_have_stated_values() -> None:
    history = History.from_interactions(FRAME.select("user_idx", "item_idx"), n_users=3)
    assert history.timestamp.tolist() == [0] * 4 and history.weight.tolist() == [1.0] * 4
    assert history.items(0).tolist() == [1, 3]


def test_no_interactions() -> None:
    history = History.from_interactions(FRAME.clear(), n_users=2)
    assert history.indptr.tolist() == [0, 0, 0] and history.items(1).tolist() == []


def test_broken_frames_are_refused() -> None:
    with pytest.raises(DataError, match=r"lack the columns \['item_idx'\]"):
        History.from_interactions(FRAME.drop("item_idx"), n_users=3)
    with pytest.raises(DataError, match=r"user_idx 2 is out of range: there are 2 users"):
        History.from_interactions(FRAME, n_users=2)
