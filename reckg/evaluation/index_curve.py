"""Recall and time of the index: recall against exact search, by search effort."""

from __future__ import annotations

import copy
import time
from typing import TypedDict

import numpy as np

from reckg.retrieval.exact import exact_search
from reckg.retrieval.index import ItemIndex

QUERIES = 300
EFFORTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the configured effort
EFFORT_SETTINGS = ("ef_search", "nprobe")


class IndexPoint(TypedDict):
    """Recall and time at an effort.

    Args:
        effort: {setting: value}, empty for an index without.
        own: the run's effort.
    """

    effort: dict[str, int | None]
    own: bool
    recall: float
    p50_ms: float
    p95_ms: float


class IndexSection(TypedDict):
    """The report's section ``index``."""

    kind: str
    k: int
    queries: int
    items: int
    points: list[IndexPoint]


def index_section(index: ItemIndex, queries: np.ndarray, vectors: np.ndarray, k: int, seed: int = 0) -> IndexSection:
    """Measures the run's own index at its effort and at a few others. Queries come one by one, as in service.

    Args:
        queries: (n, d) user vectors; at most QUERIES random ones are used.
        vectors: (n_items, d).
        k: places of a search.
    Returns:
        {"kind", "k", "queries", "items", "points": [{"effort", "own", "recall", "p50_ms", "p95_ms"}]}; effort is
        {setting: value}, empty for an index without; own marks the run's. Recall@k: share of the k best by exact search
        that are found, the mean over the queries; items that score as well as the k-th count.
    """
    k = min(k, len(vectors))
    chosen = np.random.default_rng(seed).permutation(len(queries))[:QUERIES]
    chosen_queries = queries[np.sort(chosen)]
    exact = exact_search(chosen_queries, vectors, k)
    effort = next((name for name in EFFORT_SETTINGS if name in index.settings), None)
    values = [None] if effort is None else sorted({max(1, round(index.settings[effort] * f)) for f in EFFORTS})
    points: list[IndexPoint] = []
    for value in values:
        searched = index
        if effort is not None and value is not None:
            searched = copy.copy(index)
            searched.settings = index.settings | {effort: value}
        recall, seconds = _measure(searched, chosen_queries, vectors, k, exact.score[:, -1])
        points.append(
            {
                "effort": {} if effort is None else {effort: value},
                "own": effort is None or value == index.settings[effort],
                "recall": recall,
                "p50_ms": float(np.median(seconds) * 1e3),
                "p95_ms": float(np.quantile(seconds, 0.95) * 1e3),
            }
        )
    return {"kind": index.kind, "k": k, "queries": len(chosen_queries), "items": len(vectors), "points": points}


def _measure(
    index: ItemIndex, queries: np.ndarray, vectors: np.ndarray, k: int, worst: np.ndarray
) -> tuple[float, np.ndarray]:
    """Measures recall, and the seconds of every search. worst (n,): the k-th best exact score."""
    index.search(queries[:1], k)  # warm
    found, seconds = 0, np.empty(len(queries))
    for row, query in enumerate(queries):
        began = time.perf_counter()
        items = index.search(query[None], k).item_idx[0]
        seconds[row] = time.perf_counter() - began
        score = vectors[items[items >= 0]] @ query
        found += int((score >= worst[row] - 1e-6 * max(1.0, abs(float(worst[row])))).sum())
    return found / max(len(queries) * k, 1), seconds
