"""Draws of books from groups by popularity, and the choice of a book at each visit."""

from __future__ import annotations

import numpy as np

ROUNDS = 4  # searches for another book after the best one was taken before


class Shelves:
    """Draws books from groups, as genres, in proportion to popularity.

    Args:
        group: (n, c) groups of n books, -1 for none.
        popularity: (n,) weights.
        n_groups: number of groups.
    """

    def __init__(self, group: np.ndarray, popularity: np.ndarray, n_groups: int) -> None:
        book, column = np.nonzero(group >= 0)
        group_of = group[book, column]
        order = np.argsort(group_of, kind="stable")
        self.books = book[order]
        self.size = np.bincount(group_of, minlength=n_groups)
        self.start = np.concatenate([[0], np.cumsum(self.size)])
        cumulative = np.concatenate([[0.0], np.cumsum(popularity[self.books])])
        self.low, self.high = cumulative[self.start[:-1]], cumulative[self.start[1:]]
        self.cumulative = cumulative[1:]
        # The first book of each equal slice of the sum, so that a draw is a look-up and a few steps.
        self.slices = 4 * len(self.books)
        edges = np.arange(self.slices + 1) * (self.cumulative[-1] / self.slices)
        guide = np.minimum(np.searchsorted(self.cumulative, edges, side="right"), len(self.books) - 1)
        self.guide = guide[:-1].astype(np.int32)
        self.steps = int(np.diff(guide).max())

    def draw(self, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws a book for each group.

        Args:
            group: groups, an array of any shape.
            rng: the random stream.
        Returns:
            books in the same shape, -1 for an empty group.
        """
        point = self.low[group] + rng.random(group.shape) * (self.high - self.low)[group]
        slice_of = np.minimum((point * (self.slices / self.cumulative[-1])).astype(np.int64), self.slices - 1)
        place = self.guide[slice_of]
        for _ in range(self.steps):
            place += self.cumulative[place] <= point
        place = np.clip(place, self.start[group], np.maximum(self.start[group + 1] - 1, 0))
        return np.where(self.size[group] > 0, self.books[np.minimum(place, len(self.books) - 1)], -1)


def choose_books(score: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives each row the column with its best score, and each key to one row only.

    A key goes to the first row that wants it. The other rows want their next best column, up to ROUNDS times. Rows
    without a finite score get no column.

    Args:
        score: (e, c) scores.
        key: (e, c) keys.
    Returns:
        (rows, columns), each (m,), rows rising.
    """
    score = score.copy()
    rows, given, keys = [], [], np.empty(0, dtype=key.dtype)
    pending = np.arange(len(score))
    for _ in range(ROUNDS):
        column = np.argmax(score[pending], axis=1)
        finite = np.isfinite(score[pending, column])
        pending, column = pending[finite], column[finite]
        first = np.zeros(len(pending), dtype=bool)
        first[np.unique(key[pending, column], return_index=True)[1]] = True
        rows.append(pending[first])
        given.append(column[first])
        keys = np.concatenate([keys, key[pending, column][first]])
        pending = pending[~first]
        score[pending] = np.where(np.isin(key[pending], keys), -np.inf, score[pending])
    row, column = np.concatenate(rows), np.concatenate(given)
    order = np.argsort(row)
    return row[order], column[order]
