"""A linear part beside the graph's vectors: the closed-form item-item regression of EASE at low rank.

The graph model and a linear one err differently, and their sum is better than either. EASE's scores of unseen items are
x F F' / diag(1 - F F') with F = V sqrt(s^2 / (s^2 + lambda)) over the right singular vectors V and singular values s of
the binary user-item matrix. Cut to the leading ones, this is an inner product, and so it fits into the vectors.

Source: Steck, WWW 2019, arXiv:1905.03375 (EASE); that its scores filter the spectrum follows from its closed form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy import sparse
from scipy.sparse.linalg import svds

from reckg.errors import ArtifactError
from reckg.files.mapped_tensors import write_tensors
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.metrics.choice import clearly_best
from reckg.model.embeddings import Embeddings
from reckg.model.linear.content import Content, NewItems, equalize_lengths, evenly, fit_content, item_edges, unit

SHARE = 0.15  # of the score's spread; the best on validation over seeds and data sets
OTHERS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
BEYOND = (0.6, 0.8, 0.9)  # tried one after another while the best is the largest
NEW_SHARE = 0.8  # the same of items without interactions, whose columns are predicted from their content
NEW_OTHERS = (0.0, 0.5, 0.7, 0.9, 1.0)
SPREAD_USERS, SPREAD_ITEMS = 2000, 5000  # over whom the spread of scores is taken, at most; evenly spaced
ROUNDING = 1e-4  # of the scores: a smaller spread is none, and nothing is divided by it
FEWEST_NEW = 20  # fewer new items do not tell the spread of their scores: known ones stand in for them
PLACES = 10  # first places that new items share with the known ones


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

        With new items, a column holds their level, and 1 for every user with a vector. The last column makes all items
        equally long. Users have 0 there, so that it changes no order. Entities stay as they are. Without a linear part
        the embeddings are returned as they are.

        Returns:
            Unit vectors with d + r + 1 columns, or d + r + 2 with new items.
        """
        if not self.joins:
            return embeddings
        users = np.concatenate([embeddings.users, self.users(graph)], axis=1)
        if self.new is not None:
            users = np.concatenate([users, users.any(axis=1, keepdims=True)], axis=1)
        users = unit(np.pad(users, ((0, 0), (0, 1))))
        return replace(embeddings, users=users, items=equalize_lengths(self.beside(embeddings.items), self.longest))

    def beside(self, items: np.ndarray) -> np.ndarray:
        """Puts the targets, and the level of new items, beside the items' graph vectors (n_items, d)."""
        out = np.concatenate([items, self.ratio * self.target], axis=1)
        if self.new is not None:
            out = np.pad(out, ((0, 0), (0, 1)))
            out[~self.known] = self.new.place(items[~self.known], self.target[~self.known])
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
            tensors["new"] = np.array([self.new.own, self.new.linear, self.new.level])
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
        new = NewItems(*tensors["new"].tolist()) if "new" in tensors else None
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
    earned: float | None = None,
) -> tuple[Spectral, float, float, float]:
    """Sets the linear part's shares to SHARE and NEW_SHARE, unless validation clearly prefers others.

    A share w gives the linear scores w / (1 - w) times the graph's spread over the items, on average over users.

    Args:
        validate: scores (n,) of n validation users, higher is better.
        new_items: validation holds only new items, so it chooses their share and not the others'.
        earned: share of the first places that a new item earns, see _Spread; None: not known.
    Returns:
        The part, the share, the share of new items, and the mean score.
    """
    usual = (SHARE, NEW_SHARE)
    others = [(SHARE, w) for w in NEW_OTHERS] if new_items else [(w, NEW_SHARE) for w in OTHERS]
    if not spectral.users(graph).any():
        return spectral, 0.0, 0.0, float(validate(embeddings).mean())
    spread = _Spread(spectral, embeddings, graph, earned)
    tried: dict[tuple[float, float], Spectral] = {}
    scores: dict[tuple[float, float], np.ndarray] = {}
    waiting, beyond = [usual, *others], [] if new_items else [(w, NEW_SHARE) for w in BEYOND]
    while waiting:
        for shares in waiting:
            tried[shares] = spread.at(*shares)
            scores[shares] = validate(tried[shares].joined(embeddings, graph))
        best = max(scores, key=lambda shares: float(scores[shares].mean()))
        waiting, beyond = (beyond[:1], beyond[1:]) if best == waiting[-1] else ([], [])
    shares = clearly_best(scores, usual)
    return tried[shares], *shares, float(scores[shares].mean())


def with_shares(
    spectral: Spectral,
    embeddings: Embeddings,
    graph: KnowledgeGraph,
    share: float,
    new_share: float,
    earned: float | None = None,
) -> Spectral:
    """Sets the linear part's shares as given, as in choose_shares."""
    return (
        _Spread(spectral, embeddings, graph, earned).at(share, new_share) if spectral.users(graph).any() else spectral
    )


class _Spread:
    """Scores of a sample of users, to set the spread of both parts.

    Args:
        earned: share of the first places that a new item earns: of the validation part's interactions, those with items
            that nobody had taken before, by the number of these items. New items get no more places than that
            together. None: not known, new items are placed as if they were average.
    """

    def __init__(
        self, spectral: Spectral, embeddings: Embeddings, graph: KnowledgeGraph, earned: float | None = None
    ) -> None:
        self.spectral, self.embeddings, self.earned = spectral, embeddings, earned
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
        content = self.spectral.content
        if content is None and self.spectral.known.all():
            return None
        reliability = 0.0 if content is None else float(content.reliability)
        new = evenly(np.flatnonzero(~self.spectral.known), SPREAD_ITEMS)
        standing_in = self.known if len(new) < FEWEST_NEW else new
        own, linear = self._scores(standing_in)
        ratio = _ratio(share, own, linear)
        weights = (0.0, 1.0) if share == 1 else (1.0, ratio)
        total = weights[0] * own + weights[1] * linear
        wanted_spread, spread = np.sqrt(reliability) * np.nanstd(wanted, axis=1).mean(), _spread(total)
        scale = wanted_spread / spread if spread else 0.0
        level = float(np.nanmean(wanted) - scale * total.mean())
        if self.earned is not None and len(new):
            own, linear = (own, linear) if standing_in is new else self._scores(new)
            share = min(1.0, self.earned * int((~self.spectral.known).sum()))
            level = self._earned_level(level, share, wanted, scale * (weights[0] * own + weights[1] * linear))
        return NewItems(float(scale * weights[0]), float(scale * weights[1]), level)

    def _earned_level(self, level: float, share: float, wanted: np.ndarray, total: np.ndarray) -> float:
        """Lowers the level of the new items until they have no more of the first places than they earn.

        Args:
            level: at most this.
            share: that they earn together.
            wanted: (users, known items) scores, nan for a user's own items.
            total: (users, new items) scores without a level.
        """
        n_new, n_known = int((~self.spectral.known).sum()), int(self.spectral.known.sum())
        known, of_known = _best(np.nan_to_num(wanted, nan=-np.inf)), n_known / wanted.shape[1]
        new, of_new = _best(total), n_new / total.shape[1]
        weight = np.repeat([of_known, of_new], [known.shape[1], new.shape[1]])
        is_new = np.arange(len(weight)) >= known.shape[1]

        def exposure(height: float) -> float:
            """Computes the share of the first places that new items have at a height."""
            scores = np.concatenate([known, new + height], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")
            taken = weight[order]
            taken = np.clip(PLACES - (taken.cumsum(axis=1) - taken), 0, taken)
            return float((taken * is_new[order]).sum() / taken.sum())

        if exposure(level) <= share:
            return level
        step = max(float(np.nanstd(wanted)), 1e-6)
        low, high = level - step, level
        while exposure(low) > share and level - low < 64 * step:
            low, high = level - 2 * (level - low), low
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if exposure(middle) <= share else (low, middle)
        return low

    def _scores(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the users' graph scores and linear scores of items."""
        own = self.users[:, : self.dim] @ self.embeddings.items[items].T
        return own, self.users[:, self.dim :] @ self.spectral.target[items].T


def _best(scores: np.ndarray) -> np.ndarray:
    """Selects the PLACES highest scores of every row, in any order."""
    first = max(0, scores.shape[1] - PLACES)
    return np.partition(scores, first, axis=1)[:, first:] if first else scores


def _ratio(share: float, own: np.ndarray, linear: np.ndarray) -> float:
    """Computes the factor that gives the linear scores (users, items) a share below 1 of the spread."""
    spread = _spread(linear)
    return 0.0 if spread == 0 or share == 1 else share / (1 - share) * _spread(own) / spread


def _spread(scores: np.ndarray) -> float:
    """Computes the standard deviation over items, on average over users; 0 if it is no more than rounding."""
    spread = float(scores.std(axis=1).mean())
    return spread if spread > ROUNDING * float(np.abs(scores).mean()) else 0.0


def _histories(graph: KnowledgeGraph) -> sparse.csr_matrix:
    """Gives each interaction's share in its user's attention: (n_users, n_items)."""
    edges = np.flatnonzero((graph.relation == 0) & (graph.head < graph.n_users))
    place = graph.head[edges], graph.tail[edges] - graph.n_users
    return sparse.csr_matrix((graph.prior[edges].astype(np.float64), place), shape=(graph.n_users, graph.n_items))
