"""Rewards of a system, estimated from a log of another system's lists: IPS, SNIPS and doubly robust.

A row is one shown item. Its weight is the probability that the evaluated system shows the item there, divided by the
logged probability (propensity). All values are rewards per shown item. They hold under two conditions: the reward of a
row does not depend on the other items of the list, and the log could have shown everything that the system would show.
If both hold and the propensities are right, the mean weight is 1: its interval checks the second condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from reckg.metrics.significance import Interval, bootstrap_means


class NoEstimate(TypedDict):
    """In place of an interval, if no row has a weight."""

    mean: None
    low: None
    high: None


class Estimates(TypedDict):
    """All estimates per shown item. ``logged`` is the mean reward of the log."""

    logged: Interval
    ips: Interval
    snips: Interval | NoEstimate
    dr: Interval
    ips_minus_logged: Interval
    snips_minus_logged: Interval | NoEstimate
    dr_minus_logged: Interval
    mean_weight: Interval


def importance_weights(target: np.ndarray, propensity: np.ndarray, clip: float | None = None) -> np.ndarray:
    """Computes target / propensity, at most ``clip``. A bound lowers the variance and biases towards less.

    Args:
        target: (n,) probability that the evaluated system shows the row's item there, in [0, 1].
        propensity: (n,) probability with which the log's system did, in (0, 1].
        clip: greatest weight; None: no bound.
    Returns:
        (n,) weights.
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
    """Computes the number of equally weighted rows with the same information: (sum w)^2 / sum w^2.

    Returns:
        A value in [1, n]; 0 without any weight.
    Source: Kish 1965, Survey Sampling, section 8.2.
    """
    largest = float(np.max(weight, initial=0.0))
    if largest == 0:
        return 0.0
    scaled = weight / largest  # squares of small weights would be rounded to 0
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def top_weight_share(weight: np.ndarray, share: float = 0.01) -> float:
    """Computes the share of all weight on the heaviest ``share`` of the rows (at least one); 0 without weight."""
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
) -> Estimates:
    """Computes all estimates with 95% bootstrap intervals over clusters, which are drawn whole.

    Args:
        reward, weight: (n,) of the shown items.
        shown, wanted: (n,) a reward model's values of the shown items, and of the items that the system would show
            instead.
        cluster: (n,) int from 0, the request or the user of each row, without gaps.
        samples: bootstrap samples.
    Source: cluster bootstrap, Davison & Hinkley 1997, section 3.8.
    """
    parts = (np.ones(len(reward)), weight, reward, weight * reward, wanted + weight * (reward - shown))
    sums = np.column_stack([np.bincount(cluster, weights=part) for part in parts])
    drawn, whole = _ratios(bootstrap_means(sums, samples, seed)), _ratios(sums.mean(axis=0, keepdims=True))

    def interval(name: str) -> Interval:
        known = drawn[name][np.isfinite(drawn[name])]  # a sample without any weight has no weighted mean
        low, high = np.quantile(known, [0.025, 0.975])
        return {"mean": float(whole[name][0]), "low": float(low), "high": float(high)}

    def of_weights(name: str) -> Interval | NoEstimate:
        known = np.isfinite(whole[name][0]) and np.isfinite(drawn[name]).any()
        return interval(name) if known else {"mean": None, "low": None, "high": None}

    return {
        "logged": interval("logged"),
        "ips": interval("ips"),
        "snips": of_weights("snips"),
        "dr": interval("dr"),
        "ips_minus_logged": interval("ips_minus_logged"),
        "snips_minus_logged": of_weights("snips_minus_logged"),
        "dr_minus_logged": interval("dr_minus_logged"),
        "mean_weight": interval("mean_weight"),
    }


def _ratios(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    """Computes the estimates from (s, 5) means: rows, weight, reward, weight x reward, corrected reward."""
    rows, weight, reward, weighted, corrected = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {"logged": reward / rows, "ips": weighted / rows, "snips": weighted / weight, "dr": corrected / rows}
    differences = {f"{name}_minus_logged": found[name] - found["logged"] for name in ("ips", "snips", "dr")}
    return {**found, **differences, "mean_weight": weight / rows}
