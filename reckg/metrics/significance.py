"""Confidence intervals over users, and paired differences between two systems on the same users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from scipy import special

CHUNK_VALUES = 2_000_000  # resampling counts held at once: 64 MB with the draws


class Interval(TypedDict):
    """A mean with the ends of its 95% interval."""

    mean: float
    low: float
    high: float


class KnownInterval(Interval):
    """An interval over the users with a value, and their number."""

    users: int


class Difference(Interval):
    """A difference of two systems over the same users, with its two-sided p-value."""

    p: float


def bootstrap_means(values: np.ndarray, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """Computes means of bootstrap samples of users.

    Every column sees the same resampled users, and so does every call with the same n, samples and seed: differences
    between systems stay paired. Memory is bounded: the resampling is done in chunks of samples.

    Args:
        values: (n, m) float, a user a row, n >= 1, finite.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.
    Returns:
        (samples, m) float64.
    Raises:
        ValueError: no users, a value that is not finite, or samples < 1.
    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 13.

    >>> import numpy as np
    >>> from reckg.metrics.significance import bootstrap_means
    >>> bootstrap_means(np.ones((4, 2)), samples=3).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0 or samples < 1:
        raise ValueError(f"a bootstrap needs users and samples, got {n} users and {samples} samples")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are not finite")
    rng = np.random.default_rng(seed)
    out = np.empty((samples, values.shape[1]))
    chunk = max(1, min(samples, CHUNK_VALUES // n))
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        out[start : start + size] = counts.astype(np.float64) @ values / n
    return out


@dataclass(frozen=True)
class Resampled:
    """Means of named values over the same users, and over bootstrap samples of the users.

    Args:
        mean: by name.
        samples: name -> (samples,) float64.
    """

    mean: dict[str, float]
    samples: dict[str, np.ndarray]

    def intervals(self) -> dict[str, Interval]:
        """Lists the 95% percentile interval of every name."""
        return {name: self.difference(name) for name in self.mean}

    def difference(self, a: str, b: str | None = None) -> Interval:
        """Computes the interval of the mean of a, or of a - b over the same users."""
        samples = self.samples[a] - (self.samples[b] if b is not None else 0.0)
        low, high = np.quantile(samples, [0.025, 0.975])
        mean = self.mean[a] - (self.mean[b] if b is not None else 0.0)
        return {"mean": mean, "low": float(low), "high": float(high)}


def resample(values: Mapping[str, np.ndarray], samples: int = 1000, seed: int = 0) -> Resampled:
    """Bootstraps named arrays of the same users.

    Args:
        values: (n,) float each.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.
    Raises:
        ValueError: as in `bootstrap_means`.

    >>> import numpy as np
    >>> from reckg.metrics.significance import resample
    >>> resample({"a": np.array([0.0, 1.0])}, samples=10).mean
    {'a': 0.5}
    """
    if not values:
        return Resampled({}, {})
    matrix = np.column_stack([np.asarray(column, dtype=np.float64) for column in values.values()])
    means, mean = bootstrap_means(matrix, samples, seed), matrix.mean(axis=0)
    return Resampled(
        {name: float(mean[i]) for i, name in enumerate(values)}, {name: means[:, i] for i, name in enumerate(values)}
    )


def bootstrap_intervals(values: Mapping[str, np.ndarray], samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Computes the 95% percentile interval of each mean over the same users.

    Args:
        values: (n,) float each.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.
    Raises:
        ValueError: as in `bootstrap_means`.

    >>> import numpy as np
    >>> from reckg.metrics.significance import bootstrap_intervals
    >>> bootstrap_intervals({"a": np.ones(3)}, samples=10)
    {'a': {'mean': 1.0, 'low': 1.0, 'high': 1.0}}
    """
    return resample(values, samples, seed).intervals()


def bootstrap_interval(values: np.ndarray, samples: int = 1000, seed: int = 0) -> Interval:
    """Computes the 95% percentile interval of a mean.

    Args:
        values: (n,) float.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.

    >>> import numpy as np
    >>> from reckg.metrics.significance import bootstrap_interval
    >>> bootstrap_interval(np.ones(3), samples=10)
    {'mean': 1.0, 'low': 1.0, 'high': 1.0}
    """
    return bootstrap_intervals({"value": values}, samples, seed)["value"]


def paired_differences(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], samples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Compares two systems over the same users, for each metric of both.

    ``p`` is two-sided, from the share of resampled differences on the other side of zero. With S samples it is never
    below 2 / (S + 1).

    Args:
        a, b: metric -> (n,) float.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.
    Returns:
        a minus b, by metric.
    Raises:
        ValueError: the arrays of a metric differ in length.

    >>> import numpy as np
    >>> from reckg.metrics.significance import paired_differences
    >>> paired_differences({"x": np.ones(3)}, {"x": np.zeros(3)}, samples=99)["x"]
    {'mean': 1.0, 'low': 1.0, 'high': 1.0, 'p': 0.02}
    """
    names = [name for name in a if name in b]
    for name in names:
        if len(a[name]) != len(b[name]):
            raise ValueError(f"{name}: {len(a[name])} users against {len(b[name])}; a pair needs the same users")
    if not names:
        return {}
    matrix = np.column_stack([np.asarray(a[name], np.float64) - np.asarray(b[name], np.float64) for name in names])
    means = bootstrap_means(matrix, samples, seed)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    beyond = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    p = np.minimum(1.0, 2.0 * (beyond + 1) / (samples + 1))
    mean = matrix.mean(axis=0)
    return {
        name: {"mean": float(mean[i]), "low": float(low[i]), "high": float(high[i]), "p": float(p[i])}
        for i, name in enumerate(names)
    }


def paired_difference(a: np.ndarray, b: np.ndarray, samples: int = 1000, seed: int = 0) -> Difference:
    """Compares two arrays of the same users, as `paired_differences` does.

    Args:
        a, b: (n,) float.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.
    Returns:
        a minus b.

    >>> import numpy as np
    >>> from reckg.metrics.significance import paired_difference
    >>> paired_difference(np.ones(3), np.zeros(3), samples=99)["p"]
    0.02
    """
    return paired_differences({"value": a}, {"value": b}, samples, seed)["value"]


def known_intervals(values: Mapping[str, np.ndarray], samples: int = 1000, seed: int = 0) -> dict[str, KnownInterval]:
    """Computes intervals as `bootstrap_intervals`, each over its known values (not NaN).

    Args:
        values: (n,) float each. A name without known values is left out.
        samples: bootstrap samples, >= 1.
        seed: of the resampling.

    >>> import numpy as np
    >>> from reckg.metrics.significance import known_intervals
    >>> known_intervals({"a": np.array([1.0, np.nan])}, samples=10)["a"]["users"]
    1
    """
    found: dict[str, KnownInterval] = {}
    known = {name: ~np.isnan(value) for name, value in values.items()}
    for some in {mask.tobytes(): mask for mask in known.values()}.values():
        if some.any():
            alike = {name: values[name][some] for name, mask in known.items() if (mask == some).all()}
            for name, interval in bootstrap_intervals(alike, samples, seed).items():
                found[name] = {**interval, "users": int(some.sum())}
    return {name: found[name] for name in values if name in found}


def paired_t_test(a: np.ndarray, b: np.ndarray) -> float:
    """Computes two-sided p of Student's t-test of the mean of a - b over the same users.

    Args:
        a, b: (n,) float.
    Returns:
        p; 1 if all differences are equal.
    Source: Student 1908; for rankings, Smucker et al. 2007, doi:10.1145/1321440.1321528.

    >>> import numpy as np
    >>> from reckg.metrics.significance import paired_t_test
    >>> paired_t_test(np.ones(3), np.ones(3))
    1.0
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean, n = difference.mean(), len(difference)
    error = difference.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    if error == 0:
        return 1.0 if mean == 0 or n < 2 else 0.0
    return float(2 * special.stdtr(n - 1, -abs(mean / error)))


def t_interval(a: np.ndarray, b: np.ndarray, error: float = 0.05) -> tuple[float, float]:
    """Computes the interval of the mean of a - b by Student's t. It leaves zero out if `paired_t_test` is below error.

    Args:
        a, b: (n,) float of the same users.
        error: 1 minus the interval's level, above 0.
    Returns:
        Its ends; the mean itself if all differences are equal; with a single user, an interval that holds 0.

    >>> import numpy as np
    >>> from reckg.metrics.significance import t_interval
    >>> t_interval(np.ones(3), np.zeros(3))
    (1.0, 1.0)
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean, n = float(difference.mean()), len(difference)
    if n < 2:
        return min(mean, 0.0), max(mean, 0.0)
    half = float(-special.stdtrit(n - 1, error / 2) * difference.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Corrects p-values of several comparisons, so that 0.05 bounds the chance of any false one among them.

    Args:
        p: by comparison.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    >>> from reckg.metrics.significance import holm
    >>> holm({"a": 0.01, "b": 0.04})
    {'a': 0.02, 'b': 0.04}
    """
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p}


def coverage_interval(times: np.ndarray, some_user: np.ndarray, n_users: int) -> Interval:
    """Computes catalog coverage with a 95% jackknife interval over users.

    A bootstrap sample holds only about 63% of the users, so its coverage is too low by construction. Leaving out one
    user at a time has no bias of this kind, and only items that a single user was shown matter for it.

    Args:
        times: (n_items,) int, number of lists that hold the item.
        some_user: (n_items,) int, the row of a user whose list holds it (any value if times is 0).
        n_users: number of lists, >= 1.
    Returns:
        The interval; its mean is the coverage itself.
    Source: Efron & Tibshirani 1993, chapter 11.

    >>> import numpy as np
    >>> from reckg.metrics.significance import coverage_interval
    >>> coverage_interval(np.array([2, 2, 0, 0]), np.zeros(4, dtype=np.int64), n_users=2)["mean"]
    0.5
    """
    coverage = float((times > 0).mean())
    only = np.bincount(some_user[times == 1], minlength=n_users).astype(np.float64)
    error = np.sqrt((n_users - 1) / n_users * ((only - only.mean()) ** 2).sum()) / len(times)
    return {
        "mean": coverage,
        "low": max(0.0, coverage - 1.96 * float(error)),
        "high": min(1.0, coverage + 1.96 * float(error)),
    }
