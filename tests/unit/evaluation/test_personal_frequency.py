from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.history import History
from reckg.evaluation.baselines import top_items
from reckg.evaluation.personal_frequency import fit_personal_frequency

# user 0: 5 times item 0 long ago, then item 1 twice; user 1: item 2; user 2: nothing. Item 3 is the most popular.
ROWS = [(0, 0, day) for day in range(5)] + [(0, 1, 8), (0, 1, 9), (1, 2, 3)] + [(user, 3, 4) for user in range(3, 9)]
HISTORY = History.from_interactions(
    pl.DataFrame(ROWS, schema=["user_idx", "item_idx", "timestamp"], orient="row").with_columns(weight=pl.lit(1.0)), 9
)


def lists(fading: float) -> list[list[int]]:
    model = fit_personal_frequency(HISTORY, 4, fading=fading)
    return top_items(model.scores(HISTORY, np.array([0, 1, 2])), 3).item_idx.tolist()


def test_the_most_frequent_comes_first_then_what_is_popular() -> None:
    assert lists(1.0) == [[0, 1, 3], [2, 3, 0], [3, 0, 1]]


def test_fading_prefers_what_was_taken_lately() -> None:
    assert lists(0.3)[0] == [1, 0, 3]


def test_old_items_stay_before_those_of_others() -> None:
    long = History(
        np.array([0, 2000]),
        np.concatenate([[0], np.ones(1999, dtype=np.int64)]),
        np.arange(2000),
        np.ones(2000, dtype=np.float32),
    )
    scores = fit_personal_frequency(HISTORY, 4, fading=0.3).scores(long, np.array([0]))
    assert top_items(scores, 3).item_idx.tolist() == [[1, 0, 3]]


def test_fading_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="fading must be in"):
        fit_personal_frequency(HISTORY, 4, fading=1.5)
