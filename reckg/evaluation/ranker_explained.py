"""Contributions of the ranker's features to the scores of a sample of candidates.

SHAP values of trees are exact, and LightGBM computes them itself. Source: Lundberg et al. 2020,
doi:10.1038/s42256-019-0138-9.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

ROWS = 4_000  # random candidates that are explained
POINTS = 160  # candidates that the plot shows
FEATURES = 12  # strongest features, which are shown


class RecordingRanker:
    """A ranker that keeps the features of the candidates that it reranks. All else is the original's."""

    def __init__(self, ranker: Any) -> None:
        self._ranker = ranker
        self.features: list[np.ndarray] = []

    def rerank(self, candidates: Any, features: np.ndarray, *args: Any, **settings: Any) -> Any:
        self.features.append(features)
        return self._ranker.rerank(candidates, features, *args, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranker, name)


class FeatureShap(TypedDict):
    """SHAP values of a feature.

    Args:
        mean_abs: mean of |SHAP|, in units of the score.
        points: [SHAP, place of the value among the feature's values, 0 to 1, or None if missing].
    """

    name: str
    mean_abs: float
    points: list[tuple[float, float | None]]


class RankerShap(TypedDict, total=False):
    """The strongest features of a ranker. Empty for a model without trees, or without candidates."""

    rows: int
    trees: int
    features: list[FeatureShap]


def explain_ranker(model: str, features: np.ndarray, seed: int = 0) -> RankerShap:
    """Computes SHAP values of a LightGBM model over a sample of candidates.

    Args:
        model: LightGBM's text.
        features: (r, F) float32; rows of NaN alone are padding, and left out.
    Returns:
        The strongest features first.
    """
    import lightgbm as lgb

    booster = lgb.Booster(model_str=model)
    rows = features[~np.isnan(features).all(axis=1)]
    if not booster.num_trees() or not len(rows):
        return {}
    rng = np.random.default_rng(seed)
    rows = rows[np.sort(rng.choice(len(rows), min(ROWS, len(rows)), replace=False))]
    shap = np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1))[:, :-1]  # the last is the mean
    mean_abs = np.abs(shap).mean(axis=0)
    shown = np.sort(rng.choice(len(rows), min(POINTS, len(rows)), replace=False))
    names = booster.feature_name()
    found: list[FeatureShap] = []
    for column in np.argsort(-mean_abs, kind="stable")[:FEATURES].tolist():
        value = rows[shown, column]
        known = np.isfinite(value)
        place = np.full(len(shown), np.nan)
        order = np.unique(value[known], return_inverse=True)[1]
        place[known] = order / max(int(order.max(initial=0)), 1)
        points: list[tuple[float, float | None]] = [
            (round(float(s), 5), None if np.isnan(p) else round(float(p), 3))
            for s, p in zip(shap[shown, column], place, strict=True)
        ]
        found.append({"name": names[column], "mean_abs": float(mean_abs[column]), "points": points})
    return {"rows": len(rows), "trees": booster.num_trees(), "features": found}
