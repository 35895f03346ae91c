"""Users' histories: the items of every user in time order, as compressed rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from reckg.arrays.ragged_rows import row_positions
from reckg.data.row_order import row_order
from reckg.errors import DataError


@dataclass(frozen=True)
class History:
    """Users' interactions in compressed rows, oldest first. An item may repeat.

    Attributes:
        indptr: (n_users + 1,) int64; user u has the interactions ``indptr[u]:indptr[u + 1]``.
        item_idx, timestamp: (n,) int64.
        weight: (n,) float32.
    """

    indptr: np.ndarray
    item_idx: np.ndarray
    timestamp: np.ndarray
    weight: np.ndarray

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
            frame: columns user_idx, item_idx and, optional, timestamp (default 0) and weight (default 1).
        Raises:
            DataError: a column is missing, or a user_idx is out of range.
        """
        missing = {"user_idx", "item_idx"} - set(frame.columns)
        if missing:
            raise DataError(f"interactions lack the columns {sorted(missing)}; build the graph again.")
        if "timestamp" not in frame.columns:
            frame = frame.with_columns(pl.lit(0, pl.Int64).alias("timestamp"))
        if "weight" not in frame.columns:
            frame = frame.with_columns(pl.lit(1.0, pl.Float32).alias("weight"))
        frame = _sorted(frame)
        counts = np.bincount(frame["user_idx"].to_numpy(), minlength=n_users)
        if len(counts) > n_users:
            raise DataError(f"user_idx {len(counts) - 1} is out of range: there are {n_users} users.")
        return cls(
            indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            item_idx=frame["item_idx"].cast(pl.Int64).to_numpy(),
            timestamp=frame["timestamp"].cast(pl.Int64).to_numpy(),
            weight=frame["weight"].cast(pl.Float32).to_numpy(),
        )


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    """Sorts by user, time and item. A sorted frame, as every run has, is returned as it is."""
    user, time, item = (frame[name].cast(pl.Int64).to_numpy() for name in ("user_idx", "timestamp", "item_idx"))
    later = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (item[1:] >= item[:-1]))
    if ((user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & later)).all():
        return frame
    return frame[row_order(user, time, item)]
