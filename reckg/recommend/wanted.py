"""Wanted: the lists that a caller wants, and the items that may stand in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reckg.arrays.ragged_rows import Rows, join_rows, take_rows
from reckg.bundle.bundle import Bundle
from reckg.ranking.diversity import Diversity
from reckg.recommend.fold_in import Users

NO_DIVERSITY = Diversity()
FEW_UNAVAILABLE = 200  # up to so many are left out like a user's seen items, without a bitmap over the catalogue


@dataclass(frozen=True)
class Wanted:
    """Length and contents of the lists of n users.

    Args:
        k: items per user, k >= 1.
        exclude_seen: leave out the items that each user took. None: as the bundle's question says, which leaves them
            out only if it is the new ones. Disliked items are always left out.
        left_out: compressed rows of further item_idx to leave out, one row per user.
        allowed: (n_items,) bool, the items that any user may get. None: all.
        rerank: apply the bundle's ranker, if it has one, and the diversity. False: lists in retrieval order.
        diversity: strategy applied to the candidates after ranking. None: the bundle's own.

    Raises:
        ValueError: k < 1.
    """

    k: int
    exclude_seen: bool | None = None
    left_out: Rows | None = None
    allowed: np.ndarray | None = None
    rerank: bool = True
    diversity: Diversity | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be >= 1, got {self.k}")

    def for_users(self, places: np.ndarray) -> Wanted:
        """Restricts ``left_out`` to the users at the given places, (m,) int64."""
        return self if self.left_out is None else replace(self, left_out=take_rows(self.left_out, places))

    def without_seen(self, bundle: Bundle, users: Users, rows: np.ndarray) -> Wanted:
        """Collects all items to leave out in ``left_out`` and ``allowed``: the seen and the unavailable ones.

        Args:
            rows: (n,) rows of ``users``, one per row of ``left_out``.
        """
        left_out, history = self.left_out, users.history
        exclude_seen = bundle.features.target == "new" if self.exclude_seen is None else self.exclude_seen
        if exclude_seen:
            left_out = join_rows(history.taken_rows(rows), left_out)
        if history.never is not None:
            left_out = join_rows(take_rows(history.never, rows), left_out)
        left_out, allowed = without_unavailable(bundle, left_out, self.allowed, len(rows))
        return replace(self, exclude_seen=False, left_out=left_out, allowed=allowed)


def without_unavailable(
    bundle: Bundle, left_out: Rows | None, allowed: np.ndarray | None, n: int
) -> tuple[Rows | None, np.ndarray | None]:
    """Adds the bundle's unavailable items to the rows left out, or removes them from the allowed items.

    Args:
        left_out: compressed rows of n users.
        allowed: (n_items,) bool. None: all.
    """
    unavailable = bundle.unavailable
    if len(unavailable) > FEW_UNAVAILABLE or (len(unavailable) and allowed is not None):
        return left_out, bundle.available if allowed is None else allowed & bundle.available
    if not len(unavailable):
        return left_out, allowed
    return join_rows(left_out, (np.arange(n + 1) * len(unavailable), np.tile(unavailable, n))), allowed
