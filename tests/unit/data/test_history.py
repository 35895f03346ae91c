"""History: compressed rows in time order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.history import History, latest_time
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
    assert [sorted(history.items(u).tolist()) for u in range(4)] == [[1, 3], [], [0, 2], []]
    assert history.items(0).tolist() == [1, 3]
    assert history.timestamp.tolist() == [2, 5, 7, 7]
    assert history.weight.tolist() == [3.0, 1.0, *({0: 4.0, 2: 2.0}[item] for item in history.items(2).tolist())]
    assert (history.indptr.dtype, history.item_idx.dtype, history.weight.dtype) == (np.int64, np.int64, np.float32)


def test_rows_of_many_users() -> None:
    history = History.from_interactions(FRAME, n_users=4)
    indptr, positions = history.rows(np.array([2, 1, 0, 2]))
    assert indptr.tolist() == [0, 2, 2, 4, 6]
    tied = history.items(2).tolist()
    assert history.item_idx[positions].tolist() == [*tied, 1, 3, *tied]
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


def test_equal_times_are_in_the_same_order_whatever_the_order_of_rows() -> None:
    frame = pl.DataFrame({"user_idx": [0] * 50, "item_idx": range(50), "timestamp": [3] * 50})
    once = History.from_interactions(frame, 1)
    again = History.from_interactions(frame.sample(fraction=1, shuffle=True, seed=1), 1)
    assert once.items(0).tolist() == again.items(0).tolist() != sorted(once.items(0).tolist())
    kept = pl.DataFrame({"user_idx": [0] * 50, "item_idx": once.item_idx, "timestamp": [3] * 50})
    assert History.from_interactions(kept, 1).items(0).tolist() == once.items(0).tolist()


@pytest.mark.parametrize("n", [2, 30, 1000])
def test_a_stray_time_is_not_the_time_up_to_which_a_log_reaches(n: int) -> None:
    day = 86_400
    times = np.arange(n) * day + 10**9
    assert latest_time(times) == times[-1] or n == 2
    assert latest_time(np.append(times, times[-1] + 60)) == times[-1] + 60
    assert latest_time(np.append(times, 4_102_444_800)) == times[-1]
    assert latest_time(np.array([5])) == 5
