"""The baseline personal frequency: the user's most frequent and latest items, then the most popular ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reckg.data.history import History
from reckg.evaluation.baselines import fit_popularity
from reckg.evaluation.protocol import SystemSettings


@dataclass(frozen=True)
class PersonalFrequency:
    """Weights of the user's interactions with an item, each fading with the user's later moments.

    Items that the user never had follow by popularity. Fading 1 counts the plain frequency (GP-TopFreq). Source: Hu et
    al. 2020, arXiv:2006.00556; Faggioli et al. 2020, doi:10.1145/3340631.3394850.

    Args:
        count: (n_items,) float32, popularity.
        fading: weight of an interaction relative to one of the next moment, in (0, 1].
    """

    count: np.ndarray
    fading: float
    settings: SystemSettings = field(default_factory=dict)

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        """Scores all items for (b,) users: (b, n_items) float32."""
        below = self.count / (self.count.max(initial=0) + 1)  # in [0, 1): less than any own item
        out = np.tile(below.astype(np.float32), (len(user_idx), 1))
        indptr, positions = history.rows(user_idx)
        row = np.repeat(np.arange(len(user_idx)), np.diff(indptr))
        own = np.zeros(out.shape)
        value = history.weight[positions] * self.fading ** later_moments(history, row, positions)
        value = np.maximum(value, np.finfo(np.float64).tiny)  # however old, it is the user's own
        np.add.at(own, (row, history.item_idx[positions]), value)
        had = own > 0
        log = np.log(own[had])  # the order of weights alone counts, and old ones would round to 0
        out[had] += (2 - log.min() + log).astype(np.float32) if len(log) else 0
        return out


def fit_personal_frequency(known: History, n_items: int, *, fading: float = 0.9) -> PersonalFrequency:
    """Makes the baseline.

    Args:
        known: interactions, for the popularity.
        fading: see PersonalFrequency.
    Raises:
        ValueError: fading is not in (0, 1].
    """
    if not 0 < fading <= 1:
        raise ValueError(f"fading must be in (0, 1], got {fading}")
    return PersonalFrequency(fit_popularity(known, n_items).count, fading, {"fading": fading})


def later_moments(history: History, row: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Counts the different later times of the same user.

    Args:
        row: (m,) rising number of the user.
        positions: (m,) interactions, by user and time.
    Returns:
        (m,) int64.
    """
    if not len(row):
        return np.zeros(0, dtype=np.int64)
    time = history.timestamp[positions]
    new = np.append(True, (row[1:] != row[:-1]) | (time[1:] != time[:-1]))
    moment = np.cumsum(new)
    other_user = row[1:] != row[:-1]
    last = moment[np.append(np.flatnonzero(other_user), len(row) - 1)]
    later: np.ndarray = last[np.cumsum(np.append(0, other_user))] - moment
    return later
