"""Users' histories: the items of every user in time order, as compressed rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from reckg.arrays.ragged_rows import Rows, kept_entries, row_positions
from reckg.data.row_order import hash_pairs, history_order, row_order
from reckg.errors import DataError


@dataclass(frozen=True)
class History:
    """Users' interactions in compressed rows, oldest first. An item may repeat.

    Attributes:
        indptr: (n_users + 1,) int64; user u has the interactions ``indptr[u]:indptr[u + 1]``.
        item_idx, timestamp: (n,) int64.
        weight: (n,) float32.
        taken: (n,) bool: of the target event. None: all are.
        never: compressed rows of the items that each user dislikes. None: no user dislikes any.
    """

    indptr: np.ndarray
    item_idx: np.ndarray
    timestamp: np.ndarray
    weight: np.ndarray
    taken: np.ndarray | None = None
    never: Rows | None = None

    def taken_rows(self, user_idx: np.ndarray) -> Rows:
        """Collects the items that users took, as compressed rows. Items of other events alone are not among them.

        Args:
            user_idx: (n,) users.
        """
        indptr, positions = self.rows(user_idx)
        rows = indptr, self.item_idx[positions]
        return rows if self.taken is None else kept_entries(rows, self.taken[positions])

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    def items(self, user_idx: int) -> np.ndarray:
        """Returns the (m,) item_idx of a user, oldest first."""
        return self.item_idx[self.indptr[user_idx] : self.indptr[user_idx + 1]]

    def rows(self, user_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds the interactions of users.

        Args:
            user_idx: (n,) users.
        Returns:
            (indptr (n + 1,), positions): positions in ``item_idx``, ``timestamp`` and ``weight``, user by user.
        """
        return row_positions(self.indptr, np.asarray(user_idx, dtype=np.int64))

    @classmethod
    def from_interactions(cls, frame: pl.DataFrame, n_users: int) -> History:
        """Builds the histories of n_users users.

        Args:
            frame: columns user_idx, item_idx and, optional, timestamp (default 0), weight (default 1) and taken
                (default: all).
        Raises:
            DataError: a column is missing, or a user_idx is out of range.
        """
        missing = {"user_idx", "item_idx"} - set(frame.columns)
        if missing:
            raise DataError(f"interactions lack the columns {sorted(missing)}; build the graph again.")
        timed = "timestamp" in frame.columns
        if not timed:
            frame = frame.with_columns(pl.lit(0, pl.Int64).alias("timestamp"))
        if "weight" not in frame.columns:
            frame = frame.with_columns(pl.lit(1.0, pl.Float32).alias("weight"))
        frame = _sorted(frame, timed)
        counts = np.bincount(frame["user_idx"].to_numpy(), minlength=n_users)
        if len(counts) > n_users:
            raise DataError(f"user_idx {len(counts) - 1} is out of range: there are {n_users} users.")
        return cls(
            indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            item_idx=frame["item_idx"].cast(pl.Int64).to_numpy(),
            timestamp=frame["timestamp"].cast(pl.Int64).to_numpy(),
            weight=frame["weight"].cast(pl.Float32).to_numpy(),
            taken=_flags(frame["taken"]) if "taken" in frame.columns else None,
        )


def _flags(column: pl.Series) -> np.ndarray | None:
    """Converts a column of flags. None if all are true."""
    return None if column.all() else column.to_numpy()


def latest_time(timestamp: np.ndarray) -> int:
    """Finds the time up to which a log reaches.

    That is the last time, unless a few rows lie far behind all others: a wrong clock in a single row must not make
    everything else old. Times count up to the 99th percentile, and then as far again as the span of the tenth before
    it, a tenth of the whole span, or a day.

    Args:
        timestamp: (n,) epoch seconds, n >= 1.
    """
    first, low, high = np.quantile(timestamp, (0.0, 0.9, 0.99), method="lower")
    limit = high + max(high - low, (high - first) // 10, 86_400)
    return int(timestamp[timestamp <= limit].max())


def _sorted(frame: pl.DataFrame, timed: bool) -> pl.DataFrame:
    """Sorts by user and time as history_order, or by user and item. A sorted frame is returned as it is."""
    user, time, item = (frame[name].cast(pl.Int64).to_numpy() for name in ("user_idx", "timestamp", "item_idx"))
    key = time if timed else item
    same, equal = user[1:] == user[:-1], key[1:] == key[:-1]
    if not ((user[1:] > user[:-1]) | (same & (key[1:] >= key[:-1]))).all():
        return frame[history_order(user, time, item) if timed else row_order(user, item)]
    tied = np.flatnonzero(same & equal) if timed else np.empty(0, dtype=np.int64)
    before, after = (hash_pairs(user[rows], item[rows]) for rows in (tied, tied + 1))
    return frame if (before <= after).all() else frame[history_order(user, time, item)]
