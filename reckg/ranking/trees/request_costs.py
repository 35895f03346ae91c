"""Costs of a request's parts on this machine: sources, features and trees, measured user by user."""

from __future__ import annotations

import time
from typing import Any

import lightgbm as lgb
import numpy as np

from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.candidates import available_sources, source_top
from reckg.ranking.sources.depths import STEP, RequestCosts
from reckg.ranking.trees.labels import LabelSet

REQUESTS = 60  # users of the medians
WARM_UP = 5  # requests before that
SHARED = ("cooccurrence", "walk", "entities", "profiles", "text_profiles", "factors", "linear", "own")


def measure_costs(labels: LabelSet, budget: int, trees: int, leaves: int, seed: int) -> RequestCosts:
    """Measures medians of processor time with one thread, rounded to two digits.

    A source's cost excludes the work that the features need anyway. The trees are noise of the largest allowed size:
    the trained ranker has no more.

    Args:
        labels: the users whose requests are measured; without any, all costs are 0.
        budget: candidates of a user.
        trees, leaves: most of the ranker.
        seed: of the noise.
    """
    names = available_sources(labels.tables)
    rows = np.random.default_rng(seed).permutation(len(labels.users))[: REQUESTS + WARM_UP]
    if not len(rows):
        return RequestCosts(0.0, dict.fromkeys(names, 0.0), 0.0)
    shared, several, one_step = [], [], []
    sources: dict[str, list[float]] = {name: [] for name in names}
    with one_thread():
        forest = _noise_forest(labels, rows[0], min(budget, labels.index.n_items), trees, leaves, seed)
        for row in rows:
            clock = _Clock()
            scores, seen = labels.scores(np.array([row]))
            for name in SHARED:
                if {"linear": labels.tables.linear is not None, "own": labels.tables.own}.get(name, True):
                    getattr(scores, name)
            common = clock.ms()
            for name in names:
                source_top(name, scores, labels.index, min(2 * STEP, labels.index.n_items), seen)
                sources[name].append(clock.ms())
            times = []
            for size in (budget, STEP):
                found = labels.index.search(scores.vectors, min(size, labels.index.n_items), seen)
                clock.ms()
                features = candidate_features(scores, found)
                forest.predict(features[0], raw_score=True, num_threads=1)
                times.append(clock.ms())
            several.append(times[0])
            one_step.append(times[1])
            shared.append(common)
    candidate = max(0.0, _median(several) - _median(one_step)) / max(1, budget - STEP)
    fixed = _median(shared) + max(0.0, _median(one_step) - STEP * candidate)
    by_source = {name: _round(_median(ms)) for name, ms in sources.items()}
    return RequestCosts(_round(fixed), by_source, _round(candidate))


def one_thread() -> Any:
    """Limits BLAS and OpenMP to one thread, so that its processor time is the whole cost."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _noise_forest(labels: LabelSet, row: int, budget: int, trees: int, leaves: int, seed: int) -> lgb.Booster:
    """Grows a forest of the ranker's largest size."""
    scores, seen = labels.scores(np.array([row]))
    features = candidate_features(scores, labels.index.search(scores.vectors, budget, seen))[0]
    rng = np.random.default_rng(seed)
    noisy = np.repeat(features, 20, axis=0) * rng.normal(1, 0.1, (20 * len(features), 1)).astype(np.float32)
    settings = {"num_leaves": leaves, "min_data_in_leaf": 1, "num_threads": 1, "verbose": -1, "seed": seed}
    return lgb.train(settings, lgb.Dataset(noisy, label=rng.random(len(noisy))), trees)


class _Clock:
    """A clock of this thread's processor time, in milliseconds since the last reading."""

    def __init__(self) -> None:
        self._last = time.thread_time()

    def ms(self) -> float:
        now, last = time.thread_time(), self._last
        self._last = now
        return 1000 * (now - last)


def _median(values: list[float]) -> float:
    return float(np.median(values[WARM_UP:] or values or [0.0]))


def _round(value: float) -> float:
    """Rounds to two digits."""
    return float(f"{value:.2g}")
