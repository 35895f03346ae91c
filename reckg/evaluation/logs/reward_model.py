"""A reward model for the doubly robust estimate: small, linear, and never applied to rows that it was fitted on."""

from __future__ import annotations

import numpy as np

PENALTY = 1.0  # on the squared coefficients of standardised features
STEPS = 25  # most Newton steps
TOLERANCE = 1e-8


def cross_fitted(
    shown: np.ndarray, reward: np.ndarray, wanted: np.ndarray, cluster: np.ndarray, folds: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts rewards of shown and of wanted items, by models that saw no row of the same cluster.

    Logistic regression if every reward is 0 or 1, else least squares; ridge, on standardised features. Predictions stay
    within the range of the rewards.

    Args:
        shown: (n, f) features of the shown items, finite.
        reward: (n,) of the shown items.
        wanted: (n, f) features of the items that the system would show instead.
        cluster: (n,) int from 0 without gaps, at least two.
        folds: most folds; fewer with fewer clusters.
    Returns:
        (n,) and (n,) predicted rewards.
    Raises:
        ValueError: fewer than two clusters or folds.
    Source: cross-fitting, Chernozhukov et al. 2018, arXiv:1608.00060.
    """
    n_clusters = int(cluster.max(initial=-1)) + 1
    folds = min(folds, n_clusters)
    if folds < 2:
        raise ValueError(f"cross-fitting needs two clusters and two folds, got {n_clusters} and {folds}")
    fold = (np.random.default_rng(seed).permutation(n_clusters) % folds)[cluster]
    of_shown, of_wanted = np.empty(len(reward)), np.empty(len(reward))
    for number in range(folds):
        mine = fold == number
        centre, scale = shown[~mine].mean(axis=0), shown[~mine].std(axis=0)
        scale[scale < 1e-12] = 1.0
        coefficients, binary = _fit((shown[~mine] - centre) / scale, reward[~mine])
        low, high = reward[~mine].min(), reward[~mine].max()
        for features, out in ((shown, of_shown), (wanted, of_wanted)):
            value = _with_one((features[mine] - centre) / scale) @ coefficients
            out[mine] = np.clip(_sigmoid(value) if binary else value, low, high)
    return of_shown, of_wanted


def _fit(features: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, bool]:
    """Fits (f + 1,) coefficients, the last of the constant, and tells whether the regression is logistic."""
    x = _with_one(features)
    penalty = np.full(x.shape[1], PENALTY)
    penalty[-1] = 0.0
    binary = bool(np.isin(reward, (0.0, 1.0)).all()) and 0 < reward.mean() < 1
    if not binary:
        return np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ reward), False
    coefficients = np.zeros(x.shape[1])
    coefficients[-1] = np.log(reward.mean() / (1 - reward.mean()))
    for _ in range(STEPS):
        mean = _sigmoid(x @ coefficients)
        curvature = (x * (mean * (1 - mean))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, x.T @ (reward - mean) - penalty * coefficients)
        coefficients += step
        if np.abs(step).max() < TOLERANCE:
            break
    return coefficients, True


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.column_stack([features, np.ones(len(features))])


def _sigmoid(value: np.ndarray) -> np.ndarray:
    probability: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0)))
    return probability
