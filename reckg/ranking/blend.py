"""Blend: the weighted source scores from which the ranker's trees start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reckg.errors import DataError
from reckg.ranking.features import FEATURES, SOURCE_SCORES

BLENDED: tuple[str, ...] = tuple(f"{name}_z" for name in SOURCE_SCORES)
SMALLEST_WEIGHT = 0.05  # of the retrieval score
RIDGE = 1e-3
HEAD = 50  # candidates of a query, in retrieval order, from which the weights are learnt


@dataclass(frozen=True)
class Blend:
    """A weight for each source score, standardised over the user's candidates."""

    weights: dict[str, float]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(r,) float64 of (r, F) features; a score that does not exist counts 0."""
        values = features.T[[FEATURES.index(name) for name in self.weights]].astype(np.float64)
        np.copyto(values, 0, where=~np.isfinite(values))
        values *= np.array(list(self.weights.values()))[:, None]
        total = np.zeros(len(features))
        for value in values:  # one by one, so that the bits do not depend on the number of rows
            total += value
        return total


def fit_blend(features: np.ndarray, hits: np.ndarray, real: np.ndarray) -> Blend:
    """The blend under which the hits are the likeliest choices among their query's candidates.

    Maximises the likelihood of a conditional logit over the source scores, with weights >= 0. This gives the
    retrieval score a scale on which trees can build, and the other scores their weights beside it. Only the head of
    each list counts: that is where the places are decided, and there the retrieval score tells less than over the
    whole list, whose far end it has well sorted.

    Args:
        features: (n, c, F), in retrieval order.
        hits, real: (n, c) bool: the relevant candidates, and those that are no padding.
    Raises:
        DataError: no query has a hit in its head, or the retrieval scores do not differ within any query.
    Source: McFadden 1974, Conditional logit analysis of qualitative choice behavior.
    """
    head = np.flatnonzero(hits[:, :HEAD].any(axis=1))
    if not len(head):
        raise DataError(f"no query has a relevant item among its first {HEAD} candidates: there is nothing to learn.")
    features, hits, real = features[head, :HEAD], hits[head, :HEAD], real[head, :HEAD]
    columns = features[:, :, [FEATURES.index(name) for name in BLENDED]].astype(np.float64)
    sources = np.moveaxis(np.where(real[:, :, None] & np.isfinite(columns), columns, 0), 2, 0)
    some = np.flatnonzero(sources.any(axis=(1, 2)))
    if 0 not in some:
        raise DataError("the retrieval scores of every user are all equal: there is no order to improve on.")
    weights = _choice_weights(sources[some], hits, real, 0)
    return Blend({BLENDED[place]: float(weight) for place, weight in zip(some, weights, strict=True) if weight > 0})


def _choice_weights(sources: np.ndarray, hits: np.ndarray, real: np.ndarray, retrieval: int) -> np.ndarray:
    """(s,) weights >= 0 of the (s, n, c) sources that maximise the likelihood of the hits."""
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
    start = np.full(len(sources), 1 / len(sources))
    bounds = [(value, None) for value in low]
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.maximum(found.x, low)
