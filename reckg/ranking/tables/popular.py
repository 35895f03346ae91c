"""The most popular items, and the latest share of the interactions that they are counted in."""

from __future__ import annotations

import numpy as np

from reckg.arrays.ragged_rows import rows_of_pairs, take_rows
from reckg.data.history import History
from reckg.metrics.choice import clearly_best
from reckg.metrics.ranking import ranking_metrics
from reckg.ranking.tables.columns import latest_counts
from reckg.retrieval.exact import exact_search

POPULAR_SHARE = 0.2  # unless another is better. Fewer are noise for items with a handful of users
SHARES = (0.02, 0.05, 0.1, POPULAR_SHARE, 0.5, 1.0)
JUDGED = 0.1  # latest share of the interactions that the choice is judged on
USERS, FEWEST = 2000, 50  # users that are judged: at most, and below which nothing is chosen


def popular_items(
    history: History, n_items: int, now: int | None, share: float = POPULAR_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Orders items by popularity in the latest interactions, or in all without times.

    Args:
        share: latest share of the interactions.
    Returns:
        (I,) item_idx by falling popularity, equal ones by popularity overall; (I,) float32 log popularity.
    """
    count = overall = np.bincount(history.item_idx, minlength=n_items)
    if now is not None and len(history.item_idx):
        count, _ = latest_counts(history, n_items, share)
    return np.lexsort((-overall, -count)), np.log1p(count).astype(np.float32)


def choose_popular_share(history: History, n_items: int, seed: int) -> float:
    """Chooses the share by how well the most popular items of the earlier interactions foretell the latest ones.

    The measure is NDCG@10 over users with items that are new to them among the latest interactions.

    Args:
        history: with epoch seconds.
        seed: of the sample of users.
    Returns:
        A value of SHARES; POPULAR_SHARE unless another is better.
    """
    if not len(history.item_idx):
        return POPULAR_SHARE
    late = history.timestamp >= np.quantile(history.timestamp, 1 - JUDGED)
    user = np.repeat(np.arange(history.n_users), np.diff(history.indptr))
    known, asked = (rows_of_pairs(user[part], history.item_idx[part], history.n_users) for part in (~late, late))
    pairs = [np.repeat(np.arange(history.n_users), np.diff(rows[0])) * n_items + rows[1] for rows in (known, asked)]
    fresh = np.setdiff1d(pairs[1], pairs[0], assume_unique=True)
    users = np.unique(fresh // n_items)
    if len(users) < FEWEST or late.all():
        return POPULAR_SHARE
    users = np.sort(np.random.default_rng(seed).permutation(users)[:USERS])
    relevant = take_rows(rows_of_pairs(fresh // n_items, fresh % n_items, history.n_users), users)
    ends = np.cumsum(np.bincount(user[~late], minlength=history.n_users))
    earlier = History(np.append(0, ends), history.item_idx[~late], history.timestamp[~late], history.weight[~late])
    scores = dict[float, np.ndarray]()
    for share in SHARES:
        order, _ = popular_items(earlier, n_items, int(earlier.timestamp.max()), share)
        rank = np.empty((n_items, 1), dtype=np.float32)
        rank[order, 0] = -np.arange(n_items)
        found = exact_search(np.ones((len(users), 1), np.float32), rank, 10, take_rows(known, users))
        scores[share] = ranking_metrics(found.item_idx, relevant, (10,))["ndcg@10"]
    return clearly_best(scores, POPULAR_SHARE)
