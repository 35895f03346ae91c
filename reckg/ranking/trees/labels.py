"""Labels: items that users took after a state of the data, and the lists that train a ranker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reckg.arrays.ragged_rows import Rows, hit_matrix, take_rows
from reckg.data.history import History
from reckg.ranking.features.extract import block_users, candidate_features, feature_names
from reckg.ranking.sources.candidates import (
    CandidateCounts,
    available_sources,
    retrieve,
    source_top,
)
from reckg.ranking.sources.depths import DEEPEST, Choice, LabelledLists, RequestCosts
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.trees.queries import LARGEST_GRADE, Queries
from reckg.retrieval.index import ItemIndex

Progress = Callable[[int], object]

LABEL_USERS = 4000  # most users that the depths are chosen on


@dataclass(frozen=True)
class LabelSet:
    """A state to make candidates and features from, and the items that users took after it.

    Args:
        tables, history, index: of the state, by a model without the labels.
        vectors: (n_users, d) of the same model.
        users: (n,) user_idx, each with at least one label.
        relevant, excluded: compressed rows of the labels and of the items that the lists leave out, in the users'
            order.
        weight: (nnz,) weights of the labels, in the order of ``relevant``. None: all 1.
    """

    tables: FeatureTables
    history: History
    index: ItemIndex
    vectors: np.ndarray
    users: np.ndarray
    relevant: Rows
    excluded: Rows
    weight: np.ndarray | None = None

    def scores(self, rows: np.ndarray) -> tuple[UserScores, Rows]:
        """Makes the scores of the label users at ``rows``, and the items that their lists leave out."""
        users = self.users[rows]
        scores = UserScores(self.tables, self.history, users, self.vectors[users], self.index.vectors())
        return scores, take_rows(self.excluded, rows)


def depths_for(
    labels: LabelSet, budget: int, seed: int, costs: RequestCosts | None = None, latency_ms: float = 0.0
) -> Choice:
    """Chooses the number of candidates of each source over at most LABEL_USERS users.

    Args:
        budget: candidates of a user.
        costs: of a request; None: without a bound.
        latency_ms: most milliseconds of a request.
    """
    n = len(labels.users)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:LABEL_USERS])
    names = available_sources(labels.tables)
    depth = {name: min(budget if name == "vectors" else DEEPEST, labels.index.n_items) for name in names}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    block = block_users(labels.tables, budget)
    for start in range(0, len(rows), block):
        scores, seen = labels.scores(rows[start : start + block])
        for name in names:
            parts[name].append(source_top(name, scores, labels.index, depth[name], seen).item_idx)
    lists = {name: np.concatenate(found) for name, found in parts.items()}
    labelled = LabelledLists(lists, take_rows(labels.relevant, rows))
    return labelled.choose(budget) if costs is None else labelled.choose_within(budget, costs, latency_ms)


def label_queries(sets: Sequence[LabelSet], depths: CandidateCounts, progress: Progress | None = None) -> Queries:
    """Makes the lists of all label users, with candidates and features as of each set's state.

    Args:
        progress: called with the number of users after each block.
    """
    parts: list[Queries] = []
    for labels in sets:
        block = block_users(labels.tables, sum(depths.values()))
        for start in range(0, len(labels.users), block):
            rows = np.arange(start, min(start + block, len(labels.users)))
            parts.append(_queries(labels, rows, depths))
            if progress is not None:
                progress(len(rows))
    width = max((part.item_idx.shape[1] for part in parts), default=0)

    def joined(arrays: list[np.ndarray], value: float) -> np.ndarray:
        wide = [[(0, 0), (0, width - a.shape[1]), (0, 0)][: a.ndim] for a in arrays]
        return np.concatenate([np.pad(a, w, constant_values=value) for a, w in zip(arrays, wide, strict=True)])

    length = np.concatenate([np.diff(part.relevant[0]) for part in parts])
    return Queries(
        user=np.concatenate([part.user for part in parts]),
        item_idx=joined([part.item_idx for part in parts], -1),
        features=joined([part.features for part in parts], np.nan),
        hits=joined([part.hits for part in parts], False),
        relevant=(np.concatenate([[0], np.cumsum(length)]), np.concatenate([part.relevant[1] for part in parts])),
        without=sum(part.without for part in parts),
        grades=joined([part.hits if part.grades is None else part.grades for part in parts], 0).astype(np.int8),
    )


def _queries(labels: LabelSet, rows: np.ndarray, depths: CandidateCounts) -> Queries:
    """Makes the lists of the label users at ``rows``, with features only for users with a relevant candidate."""
    scores, seen = labels.scores(rows)
    found = retrieve(scores, labels.index, depths, seen)
    relevant = take_rows(labels.relevant, rows)
    hits = hit_matrix(found.item_idx, relevant)
    some = np.flatnonzero(hits.any(axis=1))
    n_features = len(feature_names(labels.tables))
    features = np.empty((len(some), found.item_idx.shape[1], n_features), dtype=np.float32)
    if len(some):
        features[:] = candidate_features(scores, found)[some]
    return Queries(
        user=labels.users[rows[some]],
        item_idx=found.item_idx[some],
        features=features,
        hits=hits[some],
        relevant=take_rows(relevant, some),
        without=len(rows) - len(some),
        grades=_grades(labels, rows[some], found.item_idx[some], hits[some]),
    )


def _grades(labels: LabelSet, rows: np.ndarray, item_idx: np.ndarray, hits: np.ndarray) -> np.ndarray | None:
    """Grades hits by the weight of their label, from 1 to LARGEST_GRADE: (n, c) int8. None without weights.

    Args:
        rows: (n,) places of the label users.
        item_idx, hits: (n, c) candidates, and those that are labels.
    """
    if labels.weight is None:
        return None
    indptr, items = labels.relevant
    stride = int(max(items.max(initial=0), item_idx.max(initial=0))) + 1
    keys = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) * stride + items  # sorted, as the rows are
    query, place = np.nonzero(hits)
    weight = labels.weight[np.searchsorted(keys, rows[query] * stride + item_idx[query, place])]
    grades = np.zeros(hits.shape, dtype=np.int8)
    grades[query, place] = np.clip(np.rint(weight), 1, LARGEST_GRADE)
    return grades
