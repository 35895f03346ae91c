"""What a block of users' histories say of the items: computed once for the candidate sources and the features."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from reckg.arrays.half_floats import float32_rows
from reckg.arrays.ragged_rows import Rows
from reckg.data.history import History
from reckg.ranking.tables.factors import history_factors
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.row_sums import RowSums, row_sums

RECENT, LAST = 0.7, 0.4  # weight of an item of the history against the one after it
LATEST = 500  # items of a history that count at most, the latest
RECENT_WEIGHTS, LAST_WEIGHTS = RECENT ** np.arange(LATEST), LAST ** np.arange(LATEST)  # by age


class UserScores:
    """Scores of items for n users. Each is computed when first asked for; none depends on the other users.

    Where what is asked for comes after the history (``tables.order`` is "ahead"), the latest items count most.

    Args:
        history: the same that the tables were built of, or of folded-in users.
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
        self.ones, self.recent, self.last = np.ones(len(age)), RECENT_WEIGHTS[age], LAST_WEIGHTS[age]

    @cached_property
    def history_rows(self) -> Rows:
        """Compressed rows of the latest items of each history, oldest first."""
        return np.append(0, self.ends), self.item

    @cached_property
    def history_vectors(self) -> np.ndarray:
        """(h, graph_dim) float32: the graph's unit vectors of the histories' items."""
        return float32_rows(self.tables.vectors, self.item)

    @cached_property
    def cooccurrence(self) -> RowSums:
        """Summed over the history; where it is ahead also with the recent and the last counting most."""
        weights = [self.ones, self.recent, self.last] if self.ahead else [self.ones]
        return row_sums(self.tables.cooccurrence, self.query, self.item, weights, self.n)

    @cached_property
    def walk(self) -> RowSums:
        """Two-step walks from the history; where it is ahead, the recent counting most."""
        return self._sums("walk")

    @cached_property
    def entity_neighbours(self) -> RowSums:
        return self._sums("entity_neighbours")

    @cached_property
    def text_neighbours(self) -> RowSums:
        return self._sums("text_neighbours")

    @cached_property
    def linear(self) -> RowSums:
        """The linear model's scores; every item of the history counts alike."""
        return row_sums(self.tables.linear, self.query, self.item, [self.ones], self.n)

    def _sums(self, name: str) -> RowSums:
        weights = self.recent if self.ahead else self.ones
        return row_sums(getattr(self.tables, name), self.query, self.item, [weights], self.n)

    @cached_property
    def entities(self) -> RowSums:
        """Of an entity: its rarity times the weights of the history's items that have it, by three weightings: all
        alike, the recent most, and as the profile of unit rows that entity_similarity takes."""
        profile = (self.recent if self.ahead else self.ones) / self.tables.entity_length[self.item]
        weights = [self.ones, self.recent, profile]
        return row_sums(self.tables.entities, self.query, self.item, weights, self.n)

    @cached_property
    def n_attributes(self) -> np.ndarray:
        """(n,) how many attributes the users have."""
        indptr = self.tables.user_entities.indptr
        counts: np.ndarray = indptr[self.user_idx + 1] - indptr[self.user_idx]
        return counts

    @cached_property
    def factors(self) -> np.ndarray:
        """(n, f) float32: the factor vectors of the histories."""
        return history_factors(self.history_rows, self.tables.factors, self.tables.factor_gram)

    @cached_property
    def profiles(self) -> np.ndarray:
        """(2, n, graph_dim): sums of the history's unit vectors, by the recent weights (all alike unless ahead) and the
        last ones."""
        return self._profiles(self.history_vectors)

    @cached_property
    def text_profiles(self) -> np.ndarray:
        """(2, n, t): the same of the vectors of the history's texts."""
        return self._profiles(float32_rows(self.tables.text, self.item))

    def _profiles(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((self.n, 2, rows.shape[1]), dtype=np.float32)
        some = self.length > 0
        if some.any():
            weights = np.stack([self.recent if self.ahead else self.ones, self.last], axis=1, dtype=np.float32)
            out[some] = np.add.reduceat(rows[:, None] * weights[:, :, None], self.start[some], axis=0)
        return out.swapaxes(0, 1)
