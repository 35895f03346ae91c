"""The weight of an interaction in its user's history, by the number of later ones."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from reckg.data.history import History
from reckg.graph.knowledge_graph import SMALLEST

HALF_LIVES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0, 32.0)
LATEST = 100  # most interactions of a history that are scored
SCORES = 5e7  # users x items that are scored; at least 200 users, at most 4,000


def recency_weights(user_idx: np.ndarray, half_life: float) -> np.ndarray:
    """Computes 0.5 ** (later interactions of the same user / half_life), never below SMALLEST.

    Args:
        user_idx: (n,) int, a user's rows in time order. Other users' rows may stand between.
        half_life: counted in interactions; 0: every weight is 1.
    Returns:
        (n,) weights in (0, 1].
    """
    if half_life == 0:
        return np.ones(len(user_idx))
    order = np.argsort(user_idx, kind="stable")
    sorted_users = user_idx[order]
    last = np.searchsorted(sorted_users, sorted_users, side="right") - 1
    later = np.empty(len(user_idx))
    later[order] = last - np.arange(len(user_idx))
    return np.maximum(0.5 ** (later / half_life), SMALLEST)


def derive_half_life(history: History, n_items: int) -> float:
    """Finds the half-life under which a user's earlier items best predict the last one.

    Items are scored by the cosine of their users without each user's last interaction, weighted by recency. The measure
    is the mean of 1 / log2(1 + rank of the last item) over evenly spaced users.

    Args:
        history: a user's interactions in time order.
        n_items: number of items.
    Returns:
        A value of HALF_LIVES; 0 if no user has three interactions.
    """
    length = np.diff(history.indptr)
    users_with_three = np.flatnonzero(length > 2)
    if len(users_with_three) == 0:
        return 0.0
    user = np.repeat(np.arange(history.n_users), length)
    earlier = np.arange(len(user)) < history.indptr[1:][user] - 1
    place = history.item_idx[earlier], user[earlier]
    taken = sparse.csr_matrix((np.ones(len(place[0])), place), shape=(n_items, history.n_users))
    taken.data[:] = 1  # repeats were added up
    of_item = (sparse.diags(1 / np.sqrt(np.maximum(taken.getnnz(axis=1), 1))) @ taken).tocsr()
    of_user = of_item.T.tocsr()
    n_users = int(min(max(SCORES / n_items, 200), 4000, len(users_with_three)))
    gains = np.zeros(len(HALF_LIVES))
    for judged in users_with_three[np.linspace(0, len(users_with_three) - 1, n_users).astype(np.int64)].tolist():
        items = history.items(judged)[-LATEST - 1 :]
        weights = 0.5 ** (np.arange(len(items) - 2, -1, -1) / np.array(HALF_LIVES)[:, None])
        near = of_item[items[:-1]]
        users, where = np.unique(near.indices, return_inverse=True)
        near = sparse.csr_matrix((near.data, where, near.indptr), shape=(len(items) - 1, len(users)))
        scores = (of_user[users].T @ (near.T @ weights.T)).T
        scores[:, items[:-1]] = 0  # earlier items are no answer
        target = scores[:, items[-1:]]
        rank = 1 + (scores > target).sum(axis=1) + ((scores == target).sum(axis=1) - 1) / 2
        gains += 1 / np.log2(1 + rank)
    return HALF_LIVES[int(gains.argmax())]
