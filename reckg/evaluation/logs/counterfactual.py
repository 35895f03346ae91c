"""What a system would have earned, estimated from what another one showed: IPS, SNIPS and doubly robust.

A row is one shown item. Its weight is the probability that the evaluated system would have put it there, divided by
the logged probability (propensity). All values are rewards per shown item. They hold under two conditions: what a row
earns does not depend on the other items of the list, and the log could have shown whatever the system would show. Where
both hold and the propensities are right, the mean weight is 1: its interval is the check of the second.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reckg.metrics.significance import bootstrap_means


def importance_weights(target: np.ndarray, propensity: np.ndarray, clip: float | None = None) -> np.ndarray:
    """(n,) weights: target / propensity, at most ``clip``. A bound lowers the variance and biases towards less.

    Args:
        target: (n,) probability that the evaluated system shows the row's item there, in [0, 1].
        propensity: (n,) probability with which the log's system did, in (0, 1].
    Raises:
        ValueError: a propensity is not in (0, 1], a target not in [0, 1], or clip <= 0.
    """
    target, propensity = np.asarray(target, dtype=np.float64), np.asarray(propensity, dtype=np.float64)
    if not ((propensity > 0) & (propensity <= 1)).all():
        raise ValueError("propensities must be in (0, 1]")
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError("target probabilities must be in [0, 1]")
    if clip is not None and clip <= 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    weight: np.ndarray = target / propensity
    return weight if clip is None else np.minimum(weight, clip)


def effective_sample_size(weight: np.ndarray) -> float:
    """How many rows of equal weight are worth as much: (sum w)^2 / sum w^2, in [1, n]; 0 without any weight.

    Source: Kish 1965, Survey Sampling, section 8.2.
    """
    largest = float(np.max(weight, initial=0.0))
    if largest == 0:
        return 0.0
    scaled = weight / largest  # squares of small weights would be rounded to 0
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def top_weight_share(weight: np.ndarray, share: float = 0.01) -> float:
    """The part of all weight that the heaviest ``share`` of the rows has (at least one row); 0 without any weight."""
    n, total = max(1, round(len(weight) * share)), float(np.sum(weight))
    return float(np.sort(weight)[-n:].sum()) / total if total > 0 else 0.0


def estimate(
    reward: np.ndarray,
    weight: np.ndarray,
    shown: np.ndarray,
    wanted: np.ndarray,
    cluster: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """All estimates with 95% bootstrap intervals over clusters, which are drawn whole.

    Args:
        reward, weight, shown, wanted: (n,) rewards and weights of the shown items, and a reward model's values of the
            shown items and of the items that the system would show in their stead.
        cluster: (n,) int from 0, the request or the user of each row, without gaps.
    Returns:
        logged (the mean reward of the log), ips, snips, dr, ips_minus_logged, snips_minus_logged, dr_minus_logged and
        mean_weight, each {"mean", "low", "high"}; None where no row has a weight.
    Source: cluster bootstrap, Davison & Hinkley 1997, section 3.8.
    """
    parts = (np.ones(len(reward)), weight, reward, weight * reward, wanted + weight * (reward - shown))
    sums = np.column_stack([np.bincount(cluster, weights=part) for part in parts])
    drawn, whole = _ratios(bootstrap_means(sums, samples, seed)), _ratios(sums.mean(axis=0, keepdims=True))
    return {name: _interval(float(whole[name][0]), drawn[name]) for name in whole}


def _ratios(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    """Of (s, 5) means over clusters: rows, weight, reward, weight x reward, corrected reward."""
    rows, weight, reward, weighted, corrected = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {"logged": reward / rows, "ips": weighted / rows, "snips": weighted / weight, "dr": corrected / rows}
    differences = {f"{name}_minus_logged": found[name] - found["logged"] for name in ("ips", "snips", "dr")}
    return {**found, **differences, "mean_weight": weight / rows}


def _interval(mean: float, drawn: np.ndarray) -> dict[str, float | None]:
    known = drawn[np.isfinite(drawn)]  # a sample without any weight has no weighted mean
    if not np.isfinite(mean) or not len(known):
        return {"mean": None, "low": None, "high": None}
    low, high = np.quantile(known, [0.025, 0.975])
    return {"mean": mean, "low": float(low), "high": float(high)}
