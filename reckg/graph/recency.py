"""How much an interaction still counts in its user's history, by how many came after it."""

from __future__ import annotations

import numpy as np

SMALLEST = 1e-30  # float32 can still tell it from zero


def recency_weights(user_idx: np.ndarray, half_life: float) -> np.ndarray:
    """(n,) weights in (0, 1]: 0.5 ** (later interactions of the same user / half_life), and never below SMALLEST.

    Args:
        user_idx: (n,) int, a user's rows in time order (other users' rows may stand between).
        half_life: counted in interactions; 0: every weight is 1.
    """
    if half_life == 0:
        return np.ones(len(user_idx))
    order = np.argsort(user_idx, kind="stable")
    sorted_users = user_idx[order]
    last = np.searchsorted(sorted_users, sorted_users, side="right") - 1
    later = np.empty(len(user_idx))
    later[order] = last - np.arange(len(user_idx))
    return np.maximum(0.5 ** (later / half_life), SMALLEST)
