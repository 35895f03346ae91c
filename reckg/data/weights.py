"""Weights of interactions: damped, with a mean of 1 over the training part."""

from __future__ import annotations

import numpy as np

LOW = 0.05  # quantile of the training weights that log counts in


def damped_weights(
    weight: np.ndarray, training: np.ndarray, damping: str, worth: np.ndarray | None = None
) -> np.ndarray:
    """Damps weights of a heavy tail. Equal weights become 1 exactly.

    log counts a weight in units of a low weight: with play counts of 1 to 352,698 the largest counts 18 times the
    least, and ratings of 1 to 5 count 1 to 2.6. It does not depend on the unit of the weights.

    >>> import numpy as np
    >>> from reckg.data.weights import damped_weights
    >>> damped_weights(np.array([1.0, 3.0]), np.array([True, True]), "linear").tolist()
    [0.5, 1.5]

    Args:
        weight: (n,) above 0.
        training: (n,) bool: rows that the low weight and the mean are taken of.
        damping: log, linear or ignore, as data.weights.
        worth: (n,) of each row's event type, not damped. None: all 1.
    Returns:
        (n,) float64.
    """
    counted = np.ones(len(weight)) if damping == "ignore" else weight
    if damping == "log" and training.any():
        counted = np.log1p(weight / np.quantile(weight[training], LOW, method="lower"))
    counted = counted if worth is None else counted * worth
    known = counted[training]
    equal = len(known) > 0 and bool((known == known[0]).all())  # a mean of equal numbers is not always their value
    damped: np.ndarray = counted / (known[0] if equal else known.mean() if len(known) else 1.0)
    return damped
