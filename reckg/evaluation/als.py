"""The baseline ALS: matrix factorisation for implicit feedback, fitted by the library ``implicit``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reckg.data.history import History
from reckg.evaluation.protocol import SystemSettings
from reckg.ranking.tables.ease import user_item_matrix
from reckg.ranking.tables.factors import fit_implicit_als


@dataclass(frozen=True)
class Als:
    """The inner product of the item's factors and the user's, which are solved for the given history."""

    model: Any
    count: np.ndarray
    settings: SystemSettings

    def scores(self, history: History, user_idx: np.ndarray) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        matrix = user_item_matrix(history, len(self.count), user_idx=user_idx, weighted=True)
        with threadpool_limits(1, "blas"):  # implicit has threads of its own
            factors = self.model.recalculate_user(np.arange(len(user_idx)), matrix)
        out: np.ndarray = factors @ self.model.item_factors.T
        out[np.diff(matrix.indptr) == 0] = self.count
        return out


def fit_als(
    train: History,
    n_items: int,
    *,
    factors: int = 64,
    regularisation: float = 35.0,
    alpha: float = 5.0,
    seed: int = 0,
    threads: int = 0,
) -> Als:
    """Fits ALS over interactions, whose weights are the confidences.

    Args:
        train: training interactions.
        factors: dimensions.
        regularisation: lambda, not scaled by the number of interactions.
        alpha: confidence of an interaction of weight 1; all other pairs have 1.
        threads: 0: one per core. The result does not depend on it.
    Source: Hu, Koren & Volinsky 2008, doi:10.1109/ICDM.2008.22; solved as by Takács et al. 2011.
    """
    matrix = user_item_matrix(train, n_items, weighted=True)
    model = fit_implicit_als(matrix, factors, regularisation, alpha, seed, threads)
    count = np.asarray(user_item_matrix(train, n_items).sum(axis=0), dtype=np.float32).ravel()
    return Als(model, count, {"factors": factors, "regularisation": regularisation, "alpha": alpha})
