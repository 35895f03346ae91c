"""The linear part of items without interactions: a ridge regression from an item's content to its columns.

An item's features are its entities, relation by relation, and its text vector. The weights of the relations and of the
text are found where the answer is known: they minimise the squared leave-one-out error over items with interactions,
which has a closed form. So a relation that does not predict interactions gets a weight near 0.

Sources: kernel ridge regression and its leave-one-out error, Rasmussen & Williams 2006, Gaussian Processes for Machine
Learning, section 5.4.2; weights of kernels as relevance determination, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from reckg.graph.knowledge_graph import KnowledgeGraph

TAUGHT_BY = 4000  # most items with interactions that the regression learns from, evenly spaced
WEIGHED_BY = 500  # most items that the weights are fitted on
CONSTANT = 10.0  # prior variance of the regression's constant, in units of the noise
LOG_WEIGHTS = (-12.0, 5.0)


@dataclass(frozen=True)
class Content:
    """A regression from an item's content to its columns; f features, t text dimensions, r columns.

    Args:
        relation, tail: (f,) int64, sorted: a feature is an edge to this node of the training graph.
        rarity: (f,) float32: the feature's weight beside others of its relation.
        by_feature: (f, r) float32.
        by_text: (t, r) float32.
        constant: (r,) float32.
        reliability: (), 0 to 1, the leave-one-out correlation of predicted columns with the true ones.
        weights: by relation name; ``text`` for the text, an inverse relation ending in ``^-1``.
    """

    relation: np.ndarray
    tail: np.ndarray
    rarity: np.ndarray
    by_feature: np.ndarray
    by_text: np.ndarray
    constant: np.ndarray
    reliability: np.ndarray  # ()
    weights: dict[str, float]

    def columns(self, item: np.ndarray, relation: np.ndarray, tail: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Predicts the columns of n items.

        Args:
            item, relation, tail: (m,) the items' edges; item counts the rows 0..n-1. Unknown edges are passed over.
            text: (n, t) text vectors, zeros for an item without text.
        Returns:
            (n, r) float32; zeros for an item without known content.
        """
        features = _features(self.relation, self.tail, self.rarity, (item, relation, tail), len(text))
        known = (np.diff(features.indptr) > 0) | text.any(axis=1)
        out = features @ self.by_feature + text @ self.by_text + self.constant
        return np.where(known[:, None], out, 0).astype(np.float32)


@dataclass(frozen=True)
class NewItems:
    """Places items without training interactions: [own x graph vector, linear x columns, level].

    The spread of their scores is that of other items times the root of the reliability. By the reliability itself, the
    best guess, almost none would be shown. With the full spread they would crowd others out. Users have 1 in the
    level's column, so that it is added to every score.

    Args:
        own, linear: factors.
        level: makes the mean score that of other items, or lower.
    """

    own: float
    linear: float
    level: float

    def place(self, vectors: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Places items.

        Args:
            vectors: (n, d) graph vectors.
            columns: (n, r) columns of the linear part.
        Returns:
            (n, d + r + 1).
        """
        level = np.full((len(vectors), 1), self.level, dtype=np.float32)
        return np.concatenate([self.own * vectors, self.linear * columns, level], axis=1)


def equalize_lengths(items: np.ndarray, longest: float) -> np.ndarray:
    """Makes items equally long by a last column.

    Args:
        items: (n, d), each at most ``longest`` long.
    Returns:
        (n, d + 1) unit vectors.
    """
    square = np.square(items).sum(axis=1, keepdims=True)
    return unit(np.concatenate([items, np.sqrt(np.maximum(longest**2 - square, 0))], axis=1))


def unit(rows: np.ndarray) -> np.ndarray:
    """Scales rows to length 1: (n, d) float32. Zeros stay."""
    scaled: np.ndarray = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return scaled


def fit_content(
    graph: KnowledgeGraph, text: np.ndarray, factor: np.ndarray, scale: np.ndarray, taught_by: np.ndarray
) -> Content | None:
    """Learns to predict the columns of items from their content.

    Args:
        graph: the training graph.
        text: (n_items, t) text vectors; t may be 0.
        factor: (n_items, r) the columns.
        scale: (r,) weight of each column in the error that the weights minimise.
        taught_by: item_idx of the items whose columns are right.
    Returns:
        None if the items share no content.
    """
    edges = item_edges(graph)
    relation, tail, rarity = _kinds_of_edges(edges, graph)
    taught_by = evenly(taught_by, TAUGHT_BY)
    features = _features(relation, tail, rarity, edges, graph.n_items)[taught_by]
    text, factor = text[taught_by], factor[taught_by]
    kinds = np.unique(relation)
    parts = [features[:, relation == kind] for kind in kinds]
    names = [graph.relations[k % graph.n_relations] + ("^-1" if k >= graph.n_relations else "") for k in kinds]
    if text.any():
        parts.append(sparse.csr_matrix(text.astype(np.float64)))
        names.append("text")
    if not parts or len(taught_by) == 0:
        return None
    judges = evenly(np.arange(len(taught_by)), WEIGHED_BY)
    weights, reliability = _leave_one_out_weights([_kernel(part[judges]) for part in parts], factor[judges] * scale)
    kernel = np.full((len(taught_by), len(taught_by)), CONSTANT)
    for weight, part in zip(weights, parts, strict=True):
        kernel += weight * _kernel(part)
    kernel[np.diag_indices_from(kernel)] += 1
    dual = np.linalg.solve(kernel, factor)
    by_feature = np.zeros((len(relation), factor.shape[1]))
    for weight, part, kind in zip(weights, parts, kinds, strict=False):  # the text has no kind
        by_feature[relation == kind] = weight * (part.T @ dual)
    by_text = weights[-1] * (text.T @ dual) if text.any() else np.zeros((text.shape[1], factor.shape[1]))
    return Content(
        relation,
        tail,
        rarity,
        by_feature.astype(np.float32),
        by_text.astype(np.float32),
        (CONSTANT * dual.sum(axis=0)).astype(np.float32),
        np.array(reliability, dtype=np.float32),
        {name: round(float(weight), 6) for name, weight in zip(names, weights, strict=True)},
    )


def item_edges(graph: KnowledgeGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists the items' edges other than interactions: (item_idx, relation, tail node), (m,) each."""
    item = graph.head - graph.n_users
    mine = (item >= 0) & (item < graph.n_items) & (graph.relation % graph.n_relations != 0)
    return item[mine], graph.relation[mine], graph.tail[mine]


def _kinds_of_edges(
    edges: tuple[np.ndarray, np.ndarray, np.ndarray], graph: KnowledgeGraph
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists relation, tail and rarity of the edges that at least two items share, and not all."""
    item, relation, tail = edges
    edge = np.unique((relation * graph.n_nodes + tail) * graph.n_items + item)
    kinds, count = np.unique(edge // graph.n_items, return_counts=True)
    useful = (count >= 2) & (count < graph.n_items)
    rarity = np.log(graph.n_items / count[useful]).astype(np.float32)
    return kinds[useful] // graph.n_nodes, kinds[useful] % graph.n_nodes, rarity


def _features(
    relation: np.ndarray,
    tail: np.ndarray,
    rarity: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    n: int,
) -> sparse.csr_matrix:
    """Builds the feature matrix.

    Args:
        relation, tail, rarity: (f,) the features.
        edges: item, relation and tail, (m,) each.
        n: number of items.
    Returns:
        (n, f): the root of each feature's rarity, at length 1 within each relation.
    """
    width = 1 + max(tail.max(initial=0), edges[2].max(initial=0))
    key, wanted = relation * width + tail, edges[1] * width + edges[2]
    place = np.searchsorted(key, wanted)
    found = np.append(key, -1)[place] == wanted
    item, place = np.divmod(np.unique(edges[0][found] * len(key) + place[found]), max(len(key), 1))
    group = item * (1 + relation.max(initial=0)) + relation[place]
    total = np.bincount(group, weights=rarity[place])
    return sparse.csr_matrix((np.sqrt(rarity[place] / total[group]), (item, place)), shape=(n, len(relation)))


def _kernel(part: sparse.csr_matrix) -> np.ndarray:
    kernel: np.ndarray = (part @ part.T).toarray()
    return kernel


def _leave_one_out_weights(kernels: list[np.ndarray], target: np.ndarray) -> tuple[np.ndarray, float]:
    """Finds kernel weights that minimise the squared leave-one-out error, beside noise 1.

    Args:
        kernels: m >= 1 matrices (n, n).
        target: (n, r).
    Returns:
        (m,) weights > 0, and the correlation of the predictions with the target.
    """
    from scipy.optimize import minimize  # a server never needs it

    n = len(target)
    target = target / max(float(np.abs(target).max()), 1e-12)

    def error(log_weights: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.exp(log_weights)
        matrix = np.full((n, n), CONSTANT)
        matrix[np.diag_indices(n)] += 1
        for weight, kernel in zip(weights, kernels, strict=True):
            matrix += weight * kernel
        inverse = np.linalg.inv(matrix)
        diagonal = inverse.diagonal()[:, None]
        residual = (inverse @ target) / diagonal
        inner = 2 * (residual / diagonal) @ target.T
        inner[np.diag_indices(n)] -= 2 * (np.square(residual) / diagonal).sum(axis=1)
        gradient = -inverse @ inner @ inverse
        slopes = [weight * np.vdot(gradient, kernel) for weight, kernel in zip(weights, kernels, strict=True)]
        return float(np.square(residual).sum()), np.array(slopes)

    start = np.full(len(kernels), -1 - np.log(len(kernels)))
    found = minimize(
        error, start, jac=True, method="L-BFGS-B", bounds=[LOG_WEIGHTS] * len(kernels), options={"maxiter": 30}
    )
    mean_alone = np.square((target - target.mean(axis=0)) * n / max(n - 1, 1)).sum()
    return np.exp(found.x), float(np.sqrt(max(0.0, 1 - found.fun / max(float(mean_alone), 1e-12))))


def evenly(chosen: np.ndarray, at_most: int) -> np.ndarray:
    """Takes at most ``at_most`` evenly spaced values of (n,)."""
    return chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), at_most)).astype(np.int64)]
