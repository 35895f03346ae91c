"""Factors: weighted matrix factorisation of the user-item matrix (iALS), and the vector of a history."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from reckg.arrays.extended_array import Array
from reckg.arrays.ragged_rows import Rows
from reckg.data.history import History
from reckg.errors import DataError
from reckg.ranking.tables.ease import user_item_matrix

DIMENSIONS = 64
REGULARISATION = 35.0
CONFIDENCE = 5.0  # confidence of an interaction; every other pair has 1
ITERATIONS = 15
FEWEST = 4  # dimensions stay below the smaller side of the matrix


def fit_factors(history: History, n_items: int, seed: int, threads: int) -> np.ndarray:
    """Fits item factors.

    Source: Hu, Koren & Volinsky 2008, doi:10.1109/ICDM.2008.22, by the library `implicit`.

    Returns:
        (n_items, f) float32; f is 0 if the matrix is too small to factorise.
    """
    matrix = user_item_matrix(history, n_items)
    dimensions = min(DIMENSIONS, min(matrix.shape) - 1)
    if dimensions < FEWEST or not matrix.nnz:
        return np.zeros((n_items, 0), dtype=np.float32)
    model = fit_implicit_als(matrix, dimensions, REGULARISATION, CONFIDENCE, seed, threads)
    return np.asarray(model.item_factors, dtype=np.float32)


def fit_implicit_als(
    matrix: sparse.csr_matrix, factors: int, regularisation: float, confidence: float, seed: int, threads: int
) -> Any:
    """Fits the library's model of an (n, m) matrix of ones. Items without users get zeros.

    Args:
        matrix: (n, m) of ones.
        factors: f.
        regularisation: lambda, not scaled by the number of interactions.
        confidence: of an interaction; all other pairs have 1.
        threads: 0: one per core. The result does not depend on it.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # the library has threads of its own
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularisation,
            alpha=confidence,
            iterations=ITERATIONS,
            num_threads=threads,
            random_state=seed,
        )
        model.fit(matrix, show_progress=False)
    model.item_factors[matrix.getnnz(axis=0) == 0] = 0.0  # the exact solution; the solver leaves a random start
    return model


def factor_gram(factors: np.ndarray) -> np.ndarray:
    """Computes the part that every history's equations share: (f, f) float64."""
    wide = factors.astype(np.float64)
    return wide.T @ wide + REGULARISATION * np.eye(factors.shape[1])


def history_factors(rows: Rows, factors: Array, gram: np.ndarray) -> np.ndarray:
    """Solves for the least-squares vectors of n histories, each independently of the others.

    Args:
        rows: compressed rows of item_idx; an item counts once.
        factors: (n_items, f).
        gram: of factor_gram.
    Returns:
        (n, f) float32; zeros for an empty history.
    """
    n, dimensions = len(rows[0]) - 1, factors.shape[1]
    out = np.zeros((n, dimensions), dtype=np.float32)
    for row in np.flatnonzero(np.diff(rows[0])) if dimensions else ():
        items = np.sort(rows[1][rows[0][row] : rows[0][row + 1]])
        once = np.append(True, items[1:] != items[:-1])
        own = factors[items[once]].astype(np.float64)
        left = gram + (CONFIDENCE - 1) * (own.T @ own)
        _, solution, failed = lapack.dposv(left.T, CONFIDENCE * own.sum(axis=0), overwrite_a=True, overwrite_b=True)
        if failed:
            raise DataError(
                f"the factors of a history's items have no solution (LAPACK info {failed}): fit them again."
            )
        out[row] = solution
    return out
