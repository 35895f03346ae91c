"""Ranker: LightGBM LambdaRank over retrieved candidates, and the guard that refuses one that does not help.

The trees start from a blend of the source scores (retrieval, co-occurrence, linear model, shared entities): their
square roots, weighted by a conditional logit of the labels, enter as ``init_score``. The final score is blend plus
trees. Labels are few, so trees are small and may not turn a source score against its meaning.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import scipy.optimize

from reckg.errors import ArtifactError, DataError
from reckg.evaluation.metrics import ranking_metrics
from reckg.evaluation.significance import paired_difference
from reckg.ranking.features import FEATURES
from reckg.retrieval.exact import Rows, pair_scores
from reckg.retrieval.scored_items import ScoredItems

SOURCE_SCORES: tuple[str, ...] = (
    "retrieval_score",
    "cooccurrence",
    "cooccurrence_recent",
    "linear",
    "shared_entities",
    "shared_entities_recent",
)
MONOTONE = {name: 1 for name in SOURCE_SCORES} | {"retrieval_rank": -1}

FORMAT_VERSION = 1
K = 10  # the guard's cut-off
GUARD_P = 0.1  # the guard asks for a better mean, with a two-sided p below this
GUARD_SAMPLES = 2000
SMALLEST_WEIGHT = 0.05  # of the retrieval score in the blend, where every score has standard deviation 1
RIDGE = 1e-3


@dataclass(frozen=True)
class Blend:
    """Weights (per unit of the square root) of the source scores; the retrieval score itself enters without a root."""

    weights: dict[str, float]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(r,) float64 of (r, F) features; a score that does not exist counts 0."""
        total = np.zeros(len(features))
        for name, weight in self.weights.items():
            total += weight * _source(features, name)
        return total


def _source(features: np.ndarray, name: str) -> np.ndarray:
    """(r,) float64: a source score as it enters the blend: its signed square root, 0 where it does not exist."""
    value = np.nan_to_num(features[:, FEATURES.index(name)].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return value if name == "retrieval_score" else np.sign(value) * np.sqrt(np.abs(value))


def fit_blend(features: np.ndarray, hits: np.ndarray) -> Blend:
    """The blend under which the hits are the likeliest choices among their query's candidates.

    Maximises the log-likelihood of a conditional logit over the source scores, with weights >= 0: a scale for the
    retrieval score, on which the trees can build, and the other scores' weights beside it.

    Args:
        features: (n * c, F), of queries with at least one hit.
        hits: (n, c) bool.
    Source: McFadden 1974, Conditional logit analysis of qualitative choice behavior.
    """
    n, c = hits.shape
    scores, names, spreads = [], [], []
    for name in SOURCE_SCORES:
        score = _source(features, name).reshape(n, c)
        spread = float((score - score.mean(axis=1, keepdims=True)).std())
        if spread > 0:
            scores.append(score / spread)
            names.append(name)
            spreads.append(spread)
    if "retrieval_score" not in names:
        raise DataError("all retrieval scores of a user are equal: there is no order to improve. Train the model again.")
    sources = np.stack(scores, axis=-1)  # (n, c, s)
    chosen = hits.sum(axis=1)

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        utility = sources @ weight
        utility -= utility.max(axis=1, keepdims=True)
        share = np.exp(utility)
        total = share.sum(axis=1)
        likelihood = (hits * utility).sum() - (chosen * np.log(total)).sum()
        share *= (chosen / total)[:, None]
        gradient = np.einsum("ncs,nc->s", sources, hits - share)
        ridge = RIDGE * n * weight
        return float(-likelihood + ridge @ weight / 2) / n, (ridge - gradient) / n

    low = [SMALLEST_WEIGHT if name == "retrieval_score" else 0.0 for name in names]
    start = np.full(len(names), 1 / len(names))
    bounds = [(value, None) for value in low]
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Blend({name: float(w / s) for name, w, s in zip(names, found.x, spreads, strict=True) if w > 0})
