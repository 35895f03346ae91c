"""Lists of a single candidate source, for comparison with the whole."""

from __future__ import annotations

import numpy as np

from reckg.arrays.ragged_rows import Rows, take_rows
from reckg.bundle.bundle import Bundle
from reckg.ranking.features.extract import block_users
from reckg.ranking.sources.candidates import source_top
from reckg.ranking.sources.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems, empty_result


def recommend_by_source(bundle: Bundle, name: str, user_idx: np.ndarray, k: int, exclude: Rows) -> ScoredItems:
    """Lists the best items of a single candidate source.

    Args:
        name: one of candidates.available_sources of the bundle's tables.
        user_idx: (n,) int64.
        exclude: compressed rows of item_idx to leave out, one row per user.
    Returns:
        (n, k) items.
    """
    block = block_users(bundle.features, k)
    found = empty_result(len(user_idx), k)
    for start in range(0, len(user_idx), block):
        some = slice(start, min(start + block, len(user_idx)))
        rows = user_idx[some]
        scores = UserScores(bundle.features, bundle.history, rows, bundle.user_vectors[rows], bundle.item_vectors)
        part = source_top(name, scores, bundle.index, k, take_rows(exclude, some))
        found.item_idx[some], found.score[some] = part.item_idx, part.score
    return found
