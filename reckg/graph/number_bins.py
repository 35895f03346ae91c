"""Numbers as names of the graph: quantile bins, or the numbers themselves if they are few."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class NumberBins:
    """The labels of a column's numbers. A number outside the edges is in the first or the last bin.

    Args:
        points: rising; the bins' edges, or with ``exact`` the only numbers that have a label.
    """

    points: tuple[float, ...]
    exact: bool

    @classmethod
    def of(cls, numbers: np.ndarray, bins: int) -> NumberBins:
        """Makes quantile bins. A column with few distinct numbers keeps them as they are.

        Args:
            numbers: (n,) finite.
            bins: number of bins, and most distinct numbers that are kept.
        """
        distinct = np.unique(numbers)
        if len(distinct) <= bins:
            return cls(tuple(distinct.tolist()), True)
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, bins + 1), method="lower"))
        return cls(tuple(edges.tolist()), False)

    @property
    def labels(self) -> list[str]:
        """The numbers, or ``[a,b)``, the last one ``[a,b]``."""
        texts = [_number_text(point) for point in self.points]
        if self.exact:
            return texts
        labels = [f"[{low},{high})" for low, high in pairwise(texts)]
        labels[-1] = labels[-1][:-1] + "]"
        return labels

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Finds the place among the labels: (n,); -1 for a number that is not finite or has no label."""
        numbers = np.asarray(numbers, dtype=np.float64) + 0.0  # no negative zero
        points = np.array(self.points, dtype=np.float64)
        if self.exact:
            place = np.searchsorted(points, numbers)
            known = np.append(points, np.nan)[place] == numbers
        else:
            place = np.searchsorted(points[1:-1], numbers, side="right")
            known = np.isfinite(numbers)
        return np.where(known, place, -1)


def _number_text(value: float) -> str:
    """Writes the shortest text that reads back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value)).removesuffix(".0")
