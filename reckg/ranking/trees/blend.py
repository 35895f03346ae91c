"""Blend: the weighted source scores from which the ranker's trees start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reckg.errors import DataError
from reckg.ranking.features.extract import ALL_FEATURES, OWN_SCORES, SOURCE_SCORES

BLENDED: tuple[str, ...] = tuple(f"{name}_z" for name in (*SOURCE_SCORES, *OWN_SCORES))
SMALLEST_WEIGHT = 0.05  # least weight of the retrieval score
RIDGE = 1e-3
HEAD = 50  # first candidates of a query, which the weights are fitted on
ROUNDS = 3  # the first head is in retrieval order, later ones in the order of the blend


class NoOrderError(DataError):
    """The lists hold nothing that a blend could learn from."""


@dataclass(frozen=True)
class Blend:
    """A weight for each source score, standardised over the user's candidates."""

    weights: dict[str, float]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Scores (r, F) features: (r,) float64. A missing score counts 0."""
        values = features.T[[ALL_FEATURES.index(name) for name in self.weights]].astype(np.float64)
        np.copyto(values, 0, where=~np.isfinite(values))
        values *= np.array(list(self.weights.values()))[:, None]
        total = np.zeros(len(features))
        for value in values:  # one by one, so that the bits do not depend on the number of rows
            total += value
        return total


def fit_blend(features: np.ndarray, hits: np.ndarray, real: np.ndarray) -> Blend:
    """Fits the blend that makes the hits likeliest among their query's candidates.

    It maximises the likelihood of a conditional logit over the source scores, with weights >= 0. This gives the
    retrieval score a scale on which trees can build, and the other scores their weights beside it. Only the head of
    each list counts, because the head decides the places, and there the retrieval score separates less than over the
    whole list. The blend
    itself decides on the head, so that it is fitted ROUNDS times: if popularity orders better than the vectors, the
    vectors' head would hold too little of it.

    Args:
        features: (n, c, F), in retrieval order.
        hits: (n, c) bool: the relevant candidates.
        real: (n, c) bool: no padding.
    Raises:
        NoOrderError: no query has a hit in its head, or the retrieval scores do not differ within any query.
    Source: McFadden 1974, Conditional logit analysis of qualitative choice behavior.
    """
    blend, order = Blend({}), np.broadcast_to(np.arange(hits.shape[1]), hits.shape)
    for _ in range(ROUNDS):
        blend = _fit_head(features, hits, real, order[:, :HEAD], blend)
        total = np.where(real, blend.scores(features.reshape(-1, features.shape[2])).reshape(hits.shape), -np.inf)
        order = np.argsort(-total, axis=1, kind="stable")
        if not np.take_along_axis(hits, order[:, :HEAD], axis=1).any():
            break
    return blend


def _fit_head(features: np.ndarray, hits: np.ndarray, real: np.ndarray, head: np.ndarray, start: Blend) -> Blend:
    """The blend over the candidates at ``head`` (n, h) of each query; start: where the search for weights begins."""
    some = np.flatnonzero(np.take_along_axis(hits, head, axis=1).any(axis=1))
    if not len(some):
        raise NoOrderError(f"no query has a relevant item among its first {HEAD} candidates: there is nothing to learn")
    row, head = some[:, None], head[some]
    hits, real = hits[row, head], real[row, head]
    places = [place for place in map(ALL_FEATURES.index, BLENDED) if place < features.shape[2]]
    sources = np.stack([features[row, head, place] for place in places]).astype(np.float64)
    sources = np.where(real & np.isfinite(sources), sources, 0)
    known = np.flatnonzero(sources.any(axis=(1, 2)))
    if 0 not in known:
        raise NoOrderError("the retrieval scores of every user are all equal: there is no order to improve on")
    begin = np.array([start.weights.get(BLENDED[place], 0.0) for place in known])
    weights = _choice_weights(sources[known], hits, real, 0, begin if begin.any() else None)
    return Blend({BLENDED[place]: float(weight) for place, weight in zip(known, weights, strict=True) if weight > 0})


def _choice_weights(
    sources: np.ndarray, hits: np.ndarray, real: np.ndarray, retrieval: int, start: np.ndarray | None = None
) -> np.ndarray:
    """Maximises the likelihood of the hits.

    Args:
        sources: (s, n, c).
        start: (s,) first weights of the search; None: all equal.
    Returns:
        (s,) weights >= 0.
    """
    import scipy.optimize  # a server never needs it

    n = len(hits)
    chosen = hits.sum(axis=1)

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        utility = np.where(real, np.tensordot(weight, sources, axes=1), -np.inf)
        utility -= utility.max(axis=1, keepdims=True)
        share = np.exp(utility)
        total = share.sum(axis=1)
        likelihood = utility[hits].sum() - (chosen * np.log(total)).sum()
        gradient = np.tensordot(sources, hits - share * (chosen / total)[:, None], axes=2)
        ridge = RIDGE * n * weight
        return float(ridge @ weight / 2 - likelihood) / n, (ridge - gradient) / n

    low = np.zeros(len(sources))
    low[retrieval] = SMALLEST_WEIGHT
    start = np.full(len(sources), 1 / len(sources)) if start is None else start
    bounds = [(value, None) for value in low]
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights: np.ndarray = np.maximum(found.x, low)
    return weights
