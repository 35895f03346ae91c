"""The user-item matrix, and EASE over it: the linear model of ranking and a baseline of the evaluation.

Interactions are binary, unless weights are asked for: repeats and weights are ignored.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse

from reckg.data.history import History
from reckg.errors import DataError

BLOCK_VALUES = 8_000_000  # dense values worked on at once
DOUBLE_PRECISION_ITEMS = 6_000  # the inverse is in float64 up to here, above in float32 to halve the memory


def user_item_matrix(
    history: History,
    n_items: int,
    *,
    user_idx: np.ndarray | None = None,
    latest: int | None = None,
    weighted: bool = False,
) -> sparse.csr_matrix:
    """Makes the matrix of ones for the items that users have.

    Args:
        history: of all users.
        n_items: columns.
        user_idx: (b,) users, in this order; None: all users.
        latest: number of latest interactions of each user to use; None: all.
        weighted: the summed weights of a pair in place of 1.
    Returns:
        (b, n_items) float32.
    """
    users = np.arange(history.n_users) if user_idx is None else user_idx
    indptr, positions = history.rows(users)
    if latest is not None:
        length = np.diff(indptr)
        age = np.repeat(indptr[1:], length) - np.arange(len(positions)) - 1
        positions = positions[age < latest]
        indptr = np.concatenate([[0], np.cumsum(np.minimum(length, latest))])
    items = history.item_idx[positions]
    values = history.weight[positions].astype(np.float32) if weighted else np.ones(len(items), np.float32)
    matrix = sparse.csr_matrix((values, items, indptr), shape=(len(users), n_items))
    matrix.sum_duplicates()
    if not weighted:
        matrix.data[:] = 1.0
    return matrix


def ease_weights(matrix: sparse.csr_matrix, regularisation: float) -> np.ndarray:
    """Fits EASE in closed form: with P = (X'X + lambda I)^-1, the weights are -P_ij / P_jj off the diagonal.

    The inverse replaces X'X in place (a Cholesky factor, then LAPACK's potri), so that the peak is one dense matrix:
    m^2 x 4 bytes in float32 (0.6 GB at 12,000 items), x 8 in float64 with at most DOUBLE_PRECISION_ITEMS.

    Args:
        matrix: X, (n, m) of ones.
        regularisation: lambda, > 0.
    Returns:
        (m, m) float32; a user's scores are their row of X times it.
    Raises:
        ValueError: regularisation <= 0.
        DataError: X'X + lambda I has no inverse in this precision.
    Source: Steck 2019, arXiv:1905.03375.
    """
    if regularisation <= 0:
        raise ValueError(f"EASE needs regularisation > 0, got {regularisation}")
    gram = _gram(matrix, inverse_precision(matrix.shape[1]))
    n = len(gram)
    gram.flat[:: n + 1] += regularisation
    factor, inverse = linalg.get_lapack_funcs(("potrf", "potri"), (gram,))
    upper, failed = factor(gram.T, lower=1, overwrite_a=1, clean=0)  # gram.T is Fortran-ordered: in place
    if not failed:
        upper, failed = inverse(upper, lower=1, overwrite_c=1)
    if failed:
        raise DataError(
            f"EASE: X'X + {regularisation} I has no inverse in {gram.dtype} (LAPACK info {failed}): raise lambda."
        )
    out = upper.T  # C-ordered; its upper triangle is filled
    block = max(1, BLOCK_VALUES // max(1, n))
    for start in range(0, n, block):
        stop = min(start + block, n)
        out[stop:, start:stop] = out[start:stop, stop:].T
        corner = np.triu(out[start:stop, start:stop])
        out[start:stop, start:stop] = corner + np.triu(corner, 1).T
    out /= -out.diagonal().copy()
    np.fill_diagonal(out, 0.0)
    weights: np.ndarray = out.astype(np.float32, copy=False)
    return weights


def inverse_precision(n_items: int) -> type:
    """Chooses the type that EASE inverts in."""
    return np.float64 if n_items <= DOUBLE_PRECISION_ITEMS else np.float32


def _gram(matrix: sparse.csr_matrix, dtype: type) -> np.ndarray:
    """Computes X'X, dense (m, m), in blocks of rows so that no sparse copy of all of X'X exists."""
    n = matrix.shape[1]
    columns = matrix.T.tocsr()
    out = np.empty((n, n), dtype=dtype)
    block = max(1, BLOCK_VALUES // max(1, n))
    for start in range(0, n, block):
        out[start : start + block] = (columns[start : start + block] @ matrix).toarray()
    return out
