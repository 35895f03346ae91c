"""A linear part beside the graph's vectors: the closed-form item-item regression of EASE at low rank.

The graph model and a linear one err differently, and their sum is better than either. EASE's scores of unseen items are
x F F' / diag(1 - F F') with F = V sqrt(s^2 / (s^2 + lambda)) over the right singular vectors V and singular values s of
the binary user-item matrix. Cut to the leading ones, this is an inner product, and so it fits into the vectors.

Source: Steck, WWW 2019, arXiv:1905.03375 (EASE); that its scores filter the spectrum follows from its closed form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import safe_open
from scipy import sparse
from scipy.sparse.linalg import svds

from reckg.errors import ArtifactError
from reckg.files.mapped_tensors import write_tensors
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.embeddings import Embeddings
from reckg.model.linear.content import Content, NewItems, equalize_lengths, evenly, fit_content, item_edges, unit

Choice = TypeVar("Choice", bound=Hashable)
SHARE = 0.15  # of the score's spread; the best on validation over seeds and data sets
OTHERS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
NEW_SHARE = 0.8  # the same of items without interactions, whose columns are predicted from their content
NEW_OTHERS = (0.0, 0.5, 0.7, 0.9, 1.0)
# Validation flatters a share of 0: the graph alone chose the epoch, on the same users. With one standard error in place
# of two that cost .0004 NDCG@10 on ml-100k, judged on the half of the users that did not choose; two lose nothing.
CLEARLY = 2.0
SPREAD_USERS, SPREAD_ITEMS = 2000, 5000  # over whom the spread of scores is taken, at most; evenly spaced


@dataclass(frozen=True)
class Spectral:
    """The linear part: a history's sum of sources times an item's target is the linear score.

    Args:
        source, target: (n_items, r) float32.
        known: (n_items,) bool: has interactions in training. The targets of others are predicted from their content.
        ratio: factor of the known items' targets.
        longest: length of the longest joined item vector.
    """

    source: np.ndarray
    target: np.ndarray
    known: np.ndarray
    content: Content | None = None
    ratio: float = 0.0
    new: NewItems | None = None
    longest: float = 0.0

    @property
    def joins(self) -> bool:
        """Whether the part changes any vector."""
        return self.ratio > 0 or self.new is not None

    def users(self, graph: KnowledgeGraph) -> np.ndarray:
        """Computes users' columns: each history in this graph, weighted as there.

        Returns:
            (n_users, r) unit rows; zeros for a user without history.
        """
        return unit(_histories(graph) @ self.source)

    def joined(self, embeddings: Embeddings, graph: KnowledgeGraph) -> Embeddings:
        """Joins the linear part to embeddings. The inner product then orders items by the sum of both scores.

        The last column makes all items equally long. Users have 0 there, so that it changes no order. Entities stay as
        they are. Without a linear part the embeddings are returned as they are.

        Returns:
            Unit vectors with d + r + 1 columns.
        """
        if not self.joins:
            return embeddings
        users = np.concatenate([embeddings.users, self.users(graph)], axis=1)
        users = unit(np.pad(users, ((0, 0), (0, 1))))
        return replace(embeddings, users=users, items=equalize_lengths(self.beside(embeddings.items), self.longest))

    def beside(self, items: np.ndarray) -> np.ndarray:
        """Puts the targets beside the items' graph vectors: (n_items, d) -> (n_items, d + r), not normalised."""
        out = np.concatenate([items, self.ratio * self.target], axis=1)
        if self.new is not None:
            out[~self.known] = self.new.placed(items[~self.known], self.target[~self.known])
        return out

    def predict_new(self, graph: KnowledgeGraph, text: np.ndarray | None) -> Spectral:
        """Predicts the columns of items without training interactions.

        Args:
            graph: another graph of the same items.
            text: (n_items, t) text vectors, or None.
        """
        if self.content is None:
            return self
        text = np.zeros((len(self.target), len(self.content.by_text)), np.float32) if text is None else text
        predicted = self.content.columns(*item_edges(graph), text)
        return replace(self, target=np.where(self.known[:, None], self.target, predicted))

    def save(self, path: Path) -> None:
        """Writes the part as safetensors."""
        tensors = {"source": self.source, "target": self.target, "known": self.known}
        tensors["scales"] = np.array([self.ratio, self.longest])
        weights: dict[str, float] = {}
        if self.content is not None:
            weights = self.content.weights
            tensors |= {f"content.{name}": array for name, array in vars(self.content).items() if name != "weights"}
        if self.new is not None:
            tensors |= {"new.scales": np.array([self.new.own, self.new.linear]), "new.shift": self.new.shift}
        write_tensors(path, tensors, {"weights": json.dumps(weights)})


def load_spectral(path: Path) -> Spectral:
    """Reads a file that Spectral.save wrote.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            weights = json.loads(file.metadata()["weights"])
        content = {name.split(".")[1]: tensor for name, tensor in tensors.items() if name.startswith("content.")}
        ratio, longest = tensors["scales"].tolist()
        own_and_linear = tensors.get("new.scales", np.zeros(0)).tolist()
        new = NewItems(own_and_linear[0], own_and_linear[1], tensors["new.shift"]) if own_and_linear else None
        return Spectral(
            tensors["source"],
            tensors["target"],
            tensors["known"],
            Content(**content, weights=weights) if content else None,
            ratio,
            new,
            longest,
        )
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run 'reckg train' again.") from error


def fit_spectral(graph: KnowledgeGraph, rank: int, text: np.ndarray | None = None) -> Spectral:
    """Fits the linear part of a training graph, without its shares.

    Args:
        rank: r, cut to the rank of the matrix. lambda is the median of the squared singular values that are kept.
        text: (n_items, t) the items' text vectors, zeros for an item without; None: the data has no texts.
    """
    matrix = (_histories(graph) > 0).astype(np.float64)
    known = matrix.getnnz(axis=0) > 0
    rank = min(rank, min(matrix.shape) - 1)
    if rank < 1:
        nothing = np.zeros((graph.n_items, 0), dtype=np.float32)
        return Spectral(nothing, nothing, known)
    start = np.ones(min(matrix.shape))
    _, values, rows = svds(matrix, k=rank, v0=start, return_singular_vectors="vh")
    square = np.square(values)
    factor = rows.T * np.sqrt(square / (square + np.median(square)))
    target = factor / (1 - np.square(factor).sum(axis=1, keepdims=True))
    longest = np.linalg.norm(target, axis=1).max()
    text = np.zeros((graph.n_items, 0), dtype=np.float32) if text is None else text
    content = fit_content(graph, text, factor / longest, values, np.flatnonzero(known))
    spectral = Spectral(factor.astype(np.float32), (target / longest).astype(np.float32), known, content)
    return spectral.predict_new(graph, text)


def choose_shares(
    spectral: Spectral,
    embeddings: Embeddings,
    graph: KnowledgeGraph,
    validate: Callable[[Embeddings], np.ndarray],
    *,
    new_items: bool = False,
) -> tuple[Spectral, float, float, float]:
    """Sets the linear part's shares to SHARE and NEW_SHARE, unless validation clearly prefers others.

    A share w gives the linear scores w / (1 - w) times the graph's spread over the items, on average over users.

    Args:
        validate: scores (n,) of n validation users, higher is better.
        new_items: validation holds only new items, so it chooses their share and not the others'.
    Returns:
        The part, the share, the share of new items, and the mean score.
    """
    usual = (SHARE, NEW_SHARE)
    others = [(SHARE, w) for w in NEW_OTHERS] if new_items else [(w, NEW_SHARE) for w in OTHERS]
    if not spectral.users(graph).any():
        return spectral, 0.0, 0.0, float(validate(embeddings).mean())
    spread = _Spread(spectral, embeddings, graph)
    tried = {shares: spread.at(*shares) for shares in (usual, *others)}
    scores = {shares: validate(part.joined(embeddings, graph)) for shares, part in tried.items()}
    shares = clearly_best(scores, usual)
    return tried[shares], *shares, float(scores[shares].mean())


def with_shares(
    spectral: Spectral, embeddings: Embeddings, graph: KnowledgeGraph, share: float, new_share: float
) -> Spectral:
    """Sets the linear part's shares as given, as in choose_shares."""
    return _Spread(spectral, embeddings, graph).at(share, new_share) if spectral.users(graph).any() else spectral


def clearly_best(scores: Mapping[Choice, np.ndarray], usual: Choice) -> Choice:
    """Chooses the highest mean score if it clearly beats the usual choice, because a validation part is noisy.

    Clear is a lead of more than CLEARLY standard errors of the difference over users.

    Args:
        scores: (n,) of the same users for each choice.
        usual: the choice without a clear winner.
    """
    best = max(scores, key=lambda choice: float(scores[choice].mean()))
    difference = scores[best] - scores[usual]
    clear = difference.mean() > CLEARLY * difference.std() / np.sqrt(max(len(difference), 1))
    return best if clear else usual


class _Spread:
    """Scores of a sample of users, to set the spread of both parts."""

    def __init__(self, spectral: Spectral, embeddings: Embeddings, graph: KnowledgeGraph) -> None:
        self.spectral, self.embeddings = spectral, embeddings
        users = evenly(np.arange(graph.n_users), SPREAD_USERS)
        self.users = np.concatenate([embeddings.users[users], spectral.users(graph)[users]], axis=1)
        self.dim = embeddings.users.shape[1]
        self.known = evenly(np.flatnonzero(spectral.known), SPREAD_ITEMS)
        self.unseen = _histories(graph)[users][:, self.known].toarray() == 0

    def at(self, share: float, new_share: float) -> Spectral:
        """Sets the shares of known and new items."""
        own, linear = self._scores(self.known)
        ratio = _ratio(share, own, linear)
        new = self._new(new_share, np.where(self.unseen, own + ratio * linear, np.nan))
        out = replace(self.spectral, ratio=ratio, new=new)
        return replace(out, longest=float(np.linalg.norm(out.beside(self.embeddings.items), axis=1).max()))

    def _new(self, share: float, wanted: np.ndarray) -> NewItems | None:
        """Places the new items by their own scores, or, without new items, as if every item were new.

        Args:
            wanted: the scores of known items, nan for a user's own items.
        """
        if self.spectral.content is None:
            return None
        new = evenly(np.flatnonzero(~self.spectral.known), SPREAD_ITEMS)
        own, linear = self._scores(new if len(new) else self.known)
        ratio = _ratio(share, own, linear)
        weights = (0.0, 1.0) if share == 1 else (1.0, ratio)
        total = weights[0] * own + weights[1] * linear
        wanted_spread = np.sqrt(self.spectral.content.reliability) * np.nanstd(wanted, axis=1).mean()
        scale = wanted_spread / max(total.std(axis=1).mean(), 1e-12)
        mean = self.users.mean(axis=0)
        shift = (np.nanmean(wanted) - scale * total.mean()) / max(float(mean @ mean), 1e-12) * mean
        return NewItems(float(scale * weights[0]), float(scale * weights[1]), shift.astype(np.float32))

    def _scores(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the users' graph scores and linear scores of items."""
        own = self.users[:, : self.dim] @ self.embeddings.items[items].T
        return own, self.users[:, self.dim :] @ self.spectral.target[items].T


def _ratio(share: float, own: np.ndarray, linear: np.ndarray) -> float:
    """Computes the factor that gives the linear scores (users, items) a share below 1 of the spread."""
    spread = linear.std(axis=1).mean()
    return 0.0 if spread == 0 or share == 1 else float(share / (1 - share) * own.std(axis=1).mean() / spread)


def _histories(graph: KnowledgeGraph) -> sparse.csr_matrix:
    """Gives each interaction's share in its user's attention: (n_users, n_items)."""
    edges = np.flatnonzero((graph.relation == 0) & (graph.head < graph.n_users))
    place = graph.head[edges], graph.tail[edges] - graph.n_users
    return sparse.csr_matrix((graph.prior[edges].astype(np.float64), place), shape=(graph.n_users, graph.n_items))
