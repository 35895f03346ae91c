"""Sorting of many rows by several integer keys. Keys packed into one number sort several times faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

LARGEST = 2**63 - 1


def row_order(*keys: np.ndarray) -> np.ndarray:
    """Sorts rows stably by the first key, then by the next.

    >>> import numpy as np
    >>> from reckg.data.row_order import row_order
    >>> row_order(np.array([1, 0, 0]), np.array([5, 9, 7])).tolist()
    [2, 1, 0]

    Args:
        keys: integer arrays (n,).
    Returns:
        (n,) int64 row numbers in order.
    """
    return _sorted(keys)[0]


def row_runs(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts rows and finds the runs of equal keys.

    Args:
        keys: integer arrays (n,).
    Returns:
        ``row_order`` of the keys, and (n,) bool that is true at the first place of each run.
    """
    order, packed = _sorted(keys)
    first = np.zeros(len(order), dtype=bool)
    first[:1] = True
    for key in [key[order] for key in keys] if packed is None else [packed]:
        first[1:] |= key[1:] != key[:-1]
    return order, first


def history_order(user: np.ndarray, time: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Sorts interactions by user and time. A hash of user and item decides between equal times.

    Equal times say nothing about the order. Any rule that a model could learn, as the order of the items' numbers,
    would let it predict the held-out items from the rule.

    Args:
        user, time, item: (n,) integers.
    Returns:
        (n,) int64 row numbers in order.
    """
    order, first = row_runs(user, time)
    tied = np.flatnonzero(~(first & np.append(first[1:], True)))
    if len(tied):
        rows, run = order[tied], np.cumsum(first)[tied]
        order[tied] = rows[np.lexsort((hash_pairs(user[rows], item[rows]), run))]
    return order


def hash_pairs(first: np.ndarray, second: np.ndarray, seed: int = 0) -> np.ndarray:
    """Hashes pairs of numbers.

    Args:
        first, second: (n,) integers >= 0.
        seed: another seed gives other hashes.
    Returns:
        (n,) uint64.
    """
    return hash_numbers(hash_numbers(first, seed) ^ second.astype(np.uint64), seed)


def hash_numbers(value: np.ndarray, seed: int) -> np.ndarray:
    """Hashes (n,) integers >= 0 to uint64 by SplitMix64's finaliser.

    Source: Steele et al. 2014, doi:10.1145/2660193.2660195.
    """
    mixed = value.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _sorted(keys: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the order, and the packed keys in that order (None if they did not fit into one number)."""
    n = len(keys[0])
    if n == 0:
        return np.zeros(0, dtype=np.int64), None
    lowest = [int(key.min()) for key in keys]
    spans = [int(key.max()) - low + 1 for key, low in zip(keys, lowest, strict=True)]
    total = 1
    for span in spans:
        total *= span
    if total > LARGEST:
        return np.lexsort(keys[::-1]), None
    packed = np.zeros(n, dtype=np.int64)
    for key, low, span in zip(keys, lowest, spans, strict=True):
        packed *= span
        packed += key
        packed -= low
    if total * n > LARGEST:
        return pl.DataFrame({"key": packed}).select(pl.arg_sort_by("key", maintain_order=True))["key"].to_numpy(), None
    packed *= n
    packed += np.arange(n)
    packed = pl.Series(packed).sort().to_numpy()
    key = packed // n
    return packed - key * n, key
