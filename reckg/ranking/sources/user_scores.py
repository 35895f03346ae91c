"""Scores of items by a block of users' histories, computed once for the candidate sources and the features."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from reckg.arrays.half_floats import float32_rows
from reckg.arrays.ragged_rows import Rows
from reckg.data.history import History
from reckg.ranking.sources.own_items import Entries, OwnItems, own_items
from reckg.ranking.tables.factors import history_factors
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.row_sums import RowSums, row_sums

RECENT, LAST = 0.7, 0.4  # weight of an item of the history relative to the next moment's
LATEST = 500  # latest items of a history that count
RECENT_WEIGHTS, LAST_WEIGHTS = RECENT ** np.arange(LATEST), LAST ** np.arange(LATEST)  # by the number of later moments


class UserScores:
    """Scores of items for n users. Each is computed on first use; none depends on the other users.

    If the predicted items come after the history (``tables.order`` is "ahead"), the latest items count most, and items
    with equal times count alike.

    Args:
        tables: of a state.
        history: the tables' own, or of folded-in users.
        user_idx: (n,) rows of history and of ``tables.users``.
        vectors: (n, d) float32 of these users.
        item_vectors: (n_items, d) float32.
    """

    def __init__(
        self,
        tables: FeatureTables,
        history: History,
        user_idx: np.ndarray,
        vectors: np.ndarray,
        item_vectors: np.ndarray,
    ) -> None:
        self.tables, self.history, self.user_idx = tables, history, user_idx
        self.vectors, self.item_vectors = vectors, item_vectors
        self.n = len(user_idx)
        self.ahead = tables.order == "ahead"
        indptr, self.positions = history.rows(user_idx)
        length = indptr[1:] - indptr[:-1]
        self.query = np.repeat(np.arange(self.n), length)
        age = (indptr[1:] - 1)[self.query] - np.arange(len(self.positions))
        self.length = np.minimum(length, LATEST)
        if len(age) and age.max() >= LATEST:
            latest = age < LATEST
            self.query, self.positions, age = self.query[latest], self.positions[latest], age[latest]
        self.item = history.item_idx[self.positions]
        self.ends = np.cumsum(self.length)
        self.start = self.ends - self.length
        self.later = self._later_moments() if self.ahead else age
        weighted = tables.weighted
        self.ones = history.weight[self.positions].astype(np.float64) if weighted else np.ones(len(self.later))
        self.recent, self.last = self.ones * RECENT_WEIGHTS[self.later], self.ones * LAST_WEIGHTS[self.later]

    def _later_moments(self) -> np.ndarray:
        """Counts the different times after each item in its history: (h,)."""
        time = self.history.timestamp[self.positions]
        moment = np.cumsum(np.append(False, time[1:] != time[:-1])[: len(time)])
        last = self.ends[self.length > 0] - 1
        later: np.ndarray = np.repeat(moment[last], self.length[self.length > 0]) - moment
        return later

    @cached_property
    def own(self) -> OwnItems:
        """The items of the histories, with each user's rhythm."""
        taken = self.history.taken
        flags = np.ones(len(self.item), dtype=bool) if taken is None else taken[self.positions]
        time = self.history.timestamp[self.positions]
        entries = Entries(self.query, self.item, self.ones, self.later, time, flags)
        return own_items(entries, self.n, len(self.tables.items), self.tables.now)

    @cached_property
    def history_rows(self) -> Rows:
        """Compressed rows of the latest items of each history, oldest first."""
        return np.append(0, self.ends), self.item

    @cached_property
    def history_vectors(self) -> np.ndarray:
        """The graph's unit vectors of the histories' items: (h, graph_dim) float32."""
        return float32_rows(self.tables.vectors, self.item)

    @cached_property
    def cooccurrence(self) -> RowSums:
        """Sums over the history by weight; if it is ahead, also with the recent and the last items counting most."""
        weights = [self.ones, self.recent, self.last] if self.ahead else [self.ones]
        return row_sums(self.tables.cooccurrence, self.query, self.item, weights, self.n)

    @cached_property
    def walk(self) -> RowSums:
        """Two-step walks from the history; if it is ahead, recent items count most."""
        return self._sums("walk")

    @cached_property
    def entity_neighbours(self) -> RowSums:
        return self._sums("entity_neighbours")

    @cached_property
    def text_neighbours(self) -> RowSums:
        return self._sums("text_neighbours")

    @cached_property
    def linear(self) -> RowSums:
        """The linear model's scores. Every item of the history counts by its weight alone."""
        return row_sums(self.tables.linear, self.query, self.item, [self.ones], self.n)

    def _sums(self, name: str) -> RowSums:
        weights = self.recent if self.ahead else self.ones
        return row_sums(getattr(self.tables, name), self.query, self.item, [weights], self.n)

    @cached_property
    def entities(self) -> RowSums:
        """Rarity of an entity times the weights of the history's items that have it.

        The three weightings are: all alike, the recent most, and the profile of unit rows for entity_similarity.
        """
        profile = (self.recent if self.ahead else self.ones) / self.tables.entity_length[self.item]
        weights = [self.ones, self.recent, profile]
        return row_sums(self.tables.entities, self.query, self.item, weights, self.n)

    @cached_property
    def n_attributes(self) -> np.ndarray:
        """Number of attributes of each user, (n,)."""
        indptr = self.tables.user_entities.indptr
        counts: np.ndarray = indptr[self.user_idx + 1] - indptr[self.user_idx]
        return counts

    @cached_property
    def factors(self) -> np.ndarray:
        """The factor vectors of the histories: (n, f) float32."""
        return history_factors(self.history_rows, self.tables.factors, self.tables.factor_gram)

    @cached_property
    def profiles(self) -> np.ndarray:
        """Sums of the history's unit vectors, (2, n, graph_dim).

        The first is by the recent weights (all alike unless ahead), the second by the last weights.
        """
        return self._profiles(self.history_vectors)

    @cached_property
    def text_profiles(self) -> np.ndarray:
        """Sums of the history's text vectors, (2, n, t), weighted as profiles."""
        return self._profiles(float32_rows(self.tables.text, self.item))

    def _profiles(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((self.n, 2, rows.shape[1]), dtype=np.float32)
        some = self.length > 0
        if some.any():
            weights = np.stack([self.recent if self.ahead else self.ones, self.last], axis=1, dtype=np.float32)
            out[some] = np.add.reduceat(rows[:, None] * weights[:, :, None], self.start[some], axis=0)
        return out.swapaxes(0, 1)
