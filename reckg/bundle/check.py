"""Checks that the parts of a bundle fit together."""

from __future__ import annotations

import numpy as np
import polars as pl

from reckg.bundle.bundle import Bundle
from reckg.bundle.manifest import VERSION
from reckg.data.history import History
from reckg.errors import ArtifactError

FEWEST_TAKEN, SAMPLE = 20, 1000  # items with interactions: fewer are not judged, more are sampled
MOST_EQUAL = 0.9  # share of equal vectors above which they are degenerate


def check_bundle(bundle: Bundle) -> None:
    """Checks that the parts of a bundle fit together.

    Args:
        bundle: a bundle in memory, before it is saved or after it was read.
    Raises:
        ArtifactError: names all parts that do not fit.
    """
    n_users, n_items = len(bundle.user_ids), len(bundle.item_ids)
    dim = bundle.item_vectors.shape[-1]
    problems = [] if VERSION.fullmatch(bundle.version) else [f"version {bundle.version!r} is no name of a folder"]
    if n_users == 0 or n_items == 0:
        problems.append(f"there are {n_users} users and {n_items} items")
    problems += _array_problems("user vectors", bundle.user_vectors, (n_users, dim), "user ids")
    problems += _array_problems("item vectors", bundle.item_vectors, (n_items, dim), "item ids")
    if bundle.items.height != n_items or bundle.items.columns[:1] != ["item_id"]:
        problems.append(f"items has {bundle.items.height:_} rows, item ids {n_items:_}, or does not start with item_id")
    if bundle.title_column is not None and bundle.items.schema.get(bundle.title_column) != pl.String:
        problems.append(f"items has no text column {bundle.title_column!r}, which item_columns.text names first")
    problems += _index_problems(bundle, sound=not problems)
    problems += _history_problems(bundle.history, n_users, n_items)
    problems += _degenerate(bundle, sound=not problems)
    for name, table, n in (("users", bundle.features.users, n_users), ("items", bundle.features.items, n_items)):
        if len(table) != n:
            problems.append(f"feature tables have {len(table):_} {name}, {name[:-1]} ids {n:_}")
    if bundle.inductive is not None:
        problems += bundle.inductive.problems(n_users, n_items, dim)
    if problems:
        raise ArtifactError(
            f"bundle {bundle.version!r}: " + "; ".join(problems) + ": built from different runs? Run 'reckg run' again."
        )


def _index_problems(bundle: Bundle, *, sound: bool) -> list[str]:
    """Compares the index with the item vectors, value by value if all parts before are ``sound``."""
    n_items, dim = len(bundle.item_ids), bundle.item_vectors.shape[-1]
    if bundle.index.n_items != n_items:
        return [f"index has {bundle.index.n_items:_} vectors, item ids {n_items:_}"]
    if bundle.index.dim != dim:
        return [f"index has {bundle.index.dim} dimensions, item vectors {dim}"]
    if sound and not np.array_equal(bundle.index.vectors(), bundle.item_vectors):
        return ["index and item vectors hold different vectors"]
    return []


def _array_problems(name: str, array: np.ndarray, shape: tuple[int, ...], counted: str) -> list[str]:
    if array.ndim == len(shape) and array.shape[0] != shape[0]:
        return [f"{name} have {array.shape[0]:_} rows, {counted} {shape[0]:_}"]
    if array.shape != shape or array.dtype != np.float32:
        return [f"{name} are {array.dtype} of shape {array.shape}, expected float32 of {shape}"]
    bad = int((~np.isfinite(array)).sum())
    return [f"{name} hold {bad:_} values that are not finite"] if bad else []


def _degenerate(bundle: Bundle, *, sound: bool) -> list[str]:
    """Finds vectors that cannot order the items, if all parts before are ``sound``: almost all of them are equal."""
    taken = np.flatnonzero(np.bincount(bundle.history.item_idx)) if sound else np.empty(0, dtype=np.int64)
    if len(taken) < FEWEST_TAKEN:
        return []
    sample = taken[np.linspace(0, len(taken) - 1, min(len(taken), SAMPLE)).astype(np.int64)]
    rows = np.round(np.asarray(bundle.item_vectors[sample], dtype=np.float64), 4)
    equal = int(np.unique(rows, axis=0, return_counts=True)[1].max())
    if equal <= MOST_EQUAL * len(sample):
        return []
    return [f"{equal:_} of {len(sample):_} vectors of items with interactions are the same, so they order nothing"]


def _history_problems(history: History, n_users: int, n_items: int) -> list[str]:
    indptr, item_idx = history.indptr, history.item_idx
    if history.never is not None:
        never, items = history.never
        sound = len(never) == n_users + 1 and never[0] == 0 and (np.diff(never) >= 0).all() and never[-1] == len(items)
        if not sound or ((items < 0) | (items >= n_items)).any():
            return [f"history's dislikes do not fit {n_users:_} users and {n_items:_} items"]
    if indptr.ndim != 1 or history.n_users != n_users:
        return [f"history has {len(indptr) - 1:_} users, user ids {n_users:_}"]
    lengths = {len(item_idx), len(history.timestamp), len(history.weight), int(indptr[-1])}
    if len(lengths) > 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        return [f"history's rows do not fit its {len(item_idx):_} interactions"]
    outside = int(((item_idx < 0) | (item_idx >= n_items)).sum())
    return [f"history names {outside:_} times an item outside 0..{n_items - 1}"] if outside else []
