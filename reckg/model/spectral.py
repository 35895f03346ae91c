"""A linear part beside the graph's vectors: the closed-form item-item regression of EASE at low rank.

The graph model and a linear one err differently, and their sum is better than either. EASE's scores of unseen items are
x F F' / diag(1 - F F') with F = V sqrt(s^2 / (s^2 + lambda)) over the right singular vectors V and singular values s of
the binary user-item matrix; cut to the leading ones, this is an inner product, and so it fits into the vectors.

Source: Steck, WWW 2019, arXiv:1905.03375 (EASE); that its scores filter the spectrum follows from its closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.sparse.linalg import svds

from reckg.errors import ArtifactError
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.joint_model import Embeddings

SHARE = 0.15  # of the score's spread; the best on validation over seeds and data sets
OTHERS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
MARGIN = 1.01  # one validation part is noisy: another share must score this many times what SHARE does
SPREAD_USERS = 2000  # users over whom the spread of both scores is taken, at most


@dataclass(frozen=True)
class Spectral:
    """source, target (n_items, r) float32: a history's sum of sources times an item's target is the linear score.

    ratio: what a user's linear part is multiplied by; 0: there is none.
    """

    source: np.ndarray
    target: np.ndarray
    ratio: float = 0.0

    def users(self, graph: KnowledgeGraph) -> np.ndarray:
        """(n_users, r) unit rows: each user's history in this graph, weighted as there; zeros without one."""
        summed = _histories(graph) @ self.source
        return (summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def joined(self, embeddings: Embeddings, graph: KnowledgeGraph) -> Embeddings:
        """Unit vectors with d + r + 1 columns, whose inner product orders items by the sum of both scores.

        The last column makes all items equally long; users have 0 there, so that it changes no order. Entities stay
        as they are. With ratio 0 nothing changes.
        """
        if self.ratio == 0:
            return embeddings
        users = np.concatenate([embeddings.users, self.ratio * self.users(graph)], axis=1)
        items = np.concatenate([embeddings.items, self.target], axis=1)
        square = np.square(items).sum(axis=1, keepdims=True)
        items = np.concatenate([items, np.sqrt(np.maximum(square.max() - square, 0))], axis=1)
        users = np.pad(users, ((0, 0), (0, 1)))
        return Embeddings(_unit(users), _unit(items), embeddings.entities)

    def save(self, path: Path) -> None:
        tensors = {"source": self.source, "target": self.target, "ratio": np.array([self.ratio])}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)


def load_spectral(path: Path) -> Spectral:
    """What Spectral.save wrote. Raises ArtifactError."""
    try:
        tensors = load_file(path)
        return Spectral(tensors["source"], tensors["target"], float(tensors["ratio"][0]))
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run 'reckg train' again.") from error


def fit_spectral(graph: KnowledgeGraph, rank: int) -> Spectral:
    """The linear part of a training graph, not yet weighed.

    Args:
        rank: r, cut to what the matrix has. lambda is the median of the squared singular values that are kept.
    """
    matrix = (_histories(graph) > 0).astype(np.float64)
    rank = min(rank, min(matrix.shape) - 1)
    if rank < 1:
        nothing = np.zeros((graph.n_items, 0), dtype=np.float32)
        return Spectral(nothing, nothing)
    start = np.ones(min(matrix.shape))
    _, values, rows = svds(matrix, k=rank, v0=start)
    square = np.square(values)
    factor = rows.T * np.sqrt(square / (square + np.median(square)))
    target = factor / (1 - np.square(factor).sum(axis=1, keepdims=True))
    longest = np.linalg.norm(target, axis=1).max()
    return Spectral(factor.astype(np.float32), (target / longest).astype(np.float32))


def weighed(
    spectral: Spectral, embeddings: Embeddings, graph: KnowledgeGraph, validate: Callable[[Embeddings], float]
) -> tuple[Spectral, float, float]:
    """The linear part at SHARE, unless validation clearly prefers another; (it, the share, the score).

    A share w gives the linear scores w / (1 - w) times the graph's spread over the items, on average over users.
    """
    chosen = np.linspace(0, graph.n_users - 1, min(graph.n_users, SPREAD_USERS)).astype(np.int64)
    linear = (spectral.users(graph)[chosen] @ spectral.target.T).std(axis=1).mean()
    own = (embeddings.users[chosen] @ embeddings.items.T).std(axis=1).mean()
    if linear == 0:
        return replace(spectral, ratio=0.0), 0.0, validate(embeddings)
    tried = {w: replace(spectral, ratio=float(w / (1 - w) * own / linear)) for w in (SHARE, *OTHERS)}
    scores = {w: validate(part.joined(embeddings, graph)) for w, part in tried.items()}
    best = max(scores, key=scores.__getitem__)
    share = best if scores[best] > MARGIN * scores[SHARE] else SHARE
    return tried[share], share, scores[share]


def _histories(graph: KnowledgeGraph) -> sparse.csr_matrix:
    """(n_users, n_items): the share of each interaction in its user's attention."""
    edges = np.flatnonzero((graph.relation == 0) & (graph.head < graph.n_users))
    place = graph.head[edges], graph.tail[edges] - graph.n_users
    return sparse.csr_matrix((graph.prior[edges].astype(np.float64), place), shape=(graph.n_users, graph.n_items))


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
