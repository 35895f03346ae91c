from __future__ import annotations

import numpy as np

from reckg.data.history import History
from reckg.ranking.tables.popular import POPULAR_SHARE, SHARES, choose_popular_share, popular_items

N_ITEMS = 60


def log(fashion: bool, n: int = 6000, seed: int = 0) -> History:
    """Every user takes one item: the one in fashion on the day, or one of all days alike."""
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(0, 600, n))
    favourite = (day // 12 if fashion else 0) + rng.geometric(0.3, n) - 1
    item = np.where(rng.random(n) < 0.8, favourite, rng.integers(0, N_ITEMS, n)) % N_ITEMS
    return History(np.arange(n + 1), item.astype(np.int64), day.astype(np.int64), np.ones(n, np.float32))


def test_a_fashion_is_counted_in_few_interactions() -> None:
    assert choose_popular_share(log(fashion=True), N_ITEMS, 0) < POPULAR_SHARE


def test_what_never_changes_is_counted_in_many() -> None:
    assert choose_popular_share(log(fashion=False, n=1500), N_ITEMS, 0) >= POPULAR_SHARE


def test_few_users_choose_nothing() -> None:
    assert choose_popular_share(log(fashion=True, n=40), N_ITEMS, 0) == POPULAR_SHARE
    nothing = History(np.zeros(3, np.int64), *(np.zeros(0, dtype) for dtype in (np.int64, np.int64, np.float32)))
    assert choose_popular_share(nothing, N_ITEMS, 0) == POPULAR_SHARE


def test_the_order_is_that_of_the_latest_share() -> None:
    history = History(np.array([0, 4]), np.array([1, 1, 2, 3]), np.array([1, 2, 3, 4]), np.ones(4, np.float32))
    assert popular_items(history, 5, 4, 0.3)[0].tolist()[:2] == [3, 1]
    assert popular_items(history, 5, 4, 1.0)[0].tolist()[:2] == [1, 2]
    assert popular_items(history, 5, None, 0.3)[0].tolist()[0] == 1
    assert max(SHARES) == 1
