"""Changes of a list after ranking: less similarity (MMR), the user's own mix (calibration), a limit per provider.

All three choose among the candidates of a ranked list, best first, ties by the lower rank, and give k items if k exist.
A list depends on its own row alone. Scores are scaled to 0..1 within each list of candidates before they are weighted:
the best is 1, the worst 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from scipy import sparse

from reckg.arrays.extended_array import Array
from reckg.data.history import History
from reckg.errors import ConfigError
from reckg.retrieval.scored_items import ScoredItems

Strategy = Literal["none", "mmr", "calibrated", "provider"]

SMOOTHING = 0.01  # share of the user's mix in the list's, for a finite divergence: Steck's alpha
CELLS_AT_ONCE = 2**22
PADDING = -1e300  # below every objective, above the -inf of chosen items


@dataclass(frozen=True)
class Diversity:
    """Strategy that changes lists after ranking.

    Args:
        strategy: ``mmr`` trades scores for distance between vectors, ``calibrated`` for the user's mix of a column,
            ``provider`` limits the items of a provider. ``none`` keeps the ranking.
        weight: of the strategy against the scores, 0 to 1. 0 keeps the ranking.
        column: categorical or list column that is calibrated.
        provider_column: categorical column of providers.
        max_per_provider: items of a provider among the first k.

    >>> import reckg
    >>> recommender = reckg.load("run/bundle")
    >>> recommender.recommend("u03", diversity=reckg.Diversity("mmr", weight=0.5)).stages
    ('retrieve', 'features', 'rerank', 'diversify')
    """

    strategy: Strategy = "none"
    weight: float = 0.3
    column: str = ""
    provider_column: str = ""
    max_per_provider: int = 2


@dataclass(frozen=True)
class ItemTraits:
    """Properties of items that strategies need.

    Args:
        vectors: (n_items, d) float32.
        values: (n_items, v) csr: rows sum to 1, or are empty; None without ``column``.
        provider: (n_items,) int64, -1 for none; None without ``provider_column``.
        value_names: of the values' columns.
        provider_names: of the providers' numbers.
    """

    vectors: Array
    values: sparse.csr_matrix | None = None
    provider: np.ndarray | None = None
    value_names: list[str] = field(default_factory=list, repr=False)
    provider_names: list[str] = field(default_factory=list, repr=False)


def item_traits(items: pl.DataFrame, vectors: Array, diversity: Diversity) -> ItemTraits:
    """Reads the traits of a catalog.

    Args:
        items: a row for each item.
    Raises:
        ConfigError: a column is missing or has another type.
    """
    values, value_names = value_matrix(items, diversity.column) if diversity.column else (None, [])
    column = diversity.provider_column
    provider, provider_names = provider_codes(items, column) if column else (None, [])
    return ItemTraits(vectors, values, provider, value_names, provider_names)


def value_matrix(items: pl.DataFrame, column: str) -> tuple[sparse.csr_matrix, list[str]]:
    """Splits an item's distinct values into equal parts.

    Returns:
        (n_items, v) columns sorted by name, an empty row without values; and the names.
    """
    name = "diversity.column"
    kind = _column_type(items, column, name)
    lists = pl.col(column) if kind == pl.List(pl.String) else pl.concat_list(column)
    if kind not in (pl.String, pl.List(pl.String)):
        raise ConfigError(f"{name}: {column!r} is of type {kind}; give a categorical or a list column.")
    long = items.select(pl.int_range(pl.len()).alias("row"), lists.alias("value")).explode("value")
    long = long.filter(pl.col("value").is_not_null() & (pl.col("value") != "")).unique().sort("row", "value")
    code = (long["value"].rank("dense").cast(pl.Int64) - 1).to_numpy()
    row = long["row"].to_numpy()
    count = np.bincount(row, minlength=len(items))
    shape = (len(items), int(code.max(initial=-1)) + 1)
    names = long["value"].unique().sort().to_list()
    return sparse.csr_matrix((1.0 / count[row], (row, code)), shape=shape), names


def provider_codes(items: pl.DataFrame, column: str) -> tuple[np.ndarray, list[str]]:
    """Numbers the providers.

    Returns:
        (n_items,) int64 into the sorted names, -1 for none; and the names.
    """
    name = "diversity.provider_column"
    kind = _column_type(items, column, name)
    if kind != pl.String:
        raise ConfigError(f"{name}: {column!r} is of type {kind}; give a categorical column: one provider an item.")
    value = items.select(pl.when(pl.col(column) != "").then(column).alias(column))[column]
    names = sorted(value.drop_nulls().unique().to_list())
    place = {provider: code for code, provider in enumerate(names)}
    return np.array([place.get(provider, -1) for provider in value.to_list()], dtype=np.int64), names


def _column_type(items: pl.DataFrame, column: str, name: str) -> pl.DataType:
    if column not in items.columns:
        raise ConfigError(f"{name}: the items have no column {column!r}; they have {', '.join(items.columns)}.")
    return items.schema[column]


def history_mix(history: History, user_idx: np.ndarray, values: sparse.csr_matrix) -> sparse.csr_matrix:
    """Averages values over the interactions of users.

    Args:
        user_idx: (n,).
        values: (n_items, v).
    Returns:
        (n, v); rows sum to 1, or are empty.
    """
    indptr, positions = history.rows(user_idx)
    items = history.item_idx[positions]
    taken = sparse.csr_matrix((np.ones(len(items)), items, indptr), shape=(len(user_idx), values.shape[0]))
    mix = (taken @ values).tocsr()
    mix.sum_duplicates()
    total = np.asarray(mix.sum(axis=1)).ravel()
    return (sparse.diags_array(1 / np.where(total > 0, total, 1)) @ mix).tocsr()


def diversify(
    found: ScoredItems,
    k: int,
    candidates: int,
    diversity: Diversity,
    traits: ItemTraits,
    history: History,
    user_idx: np.ndarray,
) -> ScoredItems:
    """Chooses the first k places of n ranked lists among their first ``candidates``.

    If k is larger, the others follow in their order. An item keeps its score, but none is above the score of the item
    before: scores fall along a list. The first k of a longer answer are the answer for k.

    Args:
        found: (n, w) ranked lists.
        history, user_idx: (n,) the row of ``history`` for each list.
    Returns:
        (n, min(k, w)) items.
    Raises:
        ConfigError: the strategy needs a column, and ``diversity`` names none.
    """
    width = min(candidates, found.item_idx.shape[1])
    item_idx, score = found.item_idx[:, :width], found.score[:, :width]
    order = np.empty((len(item_idx), min(k, width)), dtype=np.int64)
    step = max(1, CELLS_AT_ONCE // _cells(width, diversity, traits))
    for start in range(0, len(order), step):
        block = slice(start, start + step)
        order[block] = _order(
            item_idx[block], score[block], order.shape[1], diversity, traits, history, user_idx[block]
        )
    chosen = [np.take_along_axis(part, order, axis=1) for part in (item_idx, score)]
    rest = slice(width, max(k, width))
    items, scores = (
        np.concatenate([head, part[:, rest]], axis=1)
        for head, part in zip(chosen, (found.item_idx, found.score), strict=True)
    )
    return ScoredItems(items, np.minimum.accumulate(scores, axis=1))


def _order(
    item_idx: np.ndarray,
    score: np.ndarray,
    m: int,
    diversity: Diversity,
    traits: ItemTraits,
    history: History,
    user_idx: np.ndarray,
) -> np.ndarray:
    """Orders (n, c) candidates by the strategy: (n, m) columns. Raises ConfigError if its column is not named."""
    if diversity.strategy == "mmr":
        return mmr_order(relevance(item_idx, score), traits.vectors[item_idx], diversity.weight, m)
    if diversity.strategy == "calibrated":
        if traits.values is None:
            raise ConfigError("diversity.column: must name a column with the strategy 'calibrated'")
        mix = history_mix(history, user_idx, traits.values)
        return order_calibrated(relevance(item_idx, score), item_idx, traits.values, mix, diversity.weight, m)
    if diversity.strategy == "provider":
        if traits.provider is None:
            raise ConfigError("diversity.provider_column: must name a column with the strategy 'provider'")
        return provider_order(item_idx, traits.provider, diversity.max_per_provider)[:, :m]
    return np.broadcast_to(np.arange(m), (len(item_idx), m))


def _cells(width: int, diversity: Diversity, traits: ItemTraits) -> int:
    """Computes the memory cells of a list."""
    if diversity.strategy == "mmr":
        return width * traits.vectors.shape[1]
    if diversity.strategy == "calibrated" and traits.values is not None:
        cells: int = max(width * _most_values(traits.values), traits.values.shape[1])
        return cells
    return max(width, 1)


def relevance(item_idx: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Scales each list's scores, worst 0 and best 1: (n, c) float64; all 1 if they are equal; padding -inf."""
    real = item_idx >= 0
    value = np.where(real, score.astype(np.float64), np.nan)
    high = np.max(value, axis=1, initial=-np.inf, where=real, keepdims=True)
    low = np.min(value, axis=1, initial=np.inf, where=real, keepdims=True)
    with np.errstate(invalid="ignore"):
        spread = high - low
        scaled = np.where(spread > 0, (value - low) / np.where(spread > 0, spread, 1.0), 1.0)
    return np.where(real, scaled, -np.inf)


def mmr_order(value: np.ndarray, vectors: np.ndarray, weight: float, m: int) -> np.ndarray:
    """Computes maximal marginal relevance: each place takes the best (1 - weight) x score - weight x likeness.

    Likeness is the cosine with the most similar chosen item, scaled to 0..1. An item with a zero vector is half alike
    to all.

    Args:
        value: (n, c) scores in 0..1, padding -inf.
        vectors: (n, c, d) of the candidates.
        m: places.
    Returns:
        (n, m) columns.
    Source: Carbonell & Goldstein 1998, doi:10.1145/290941.291025.
    """
    length = np.sqrt(np.einsum("ncd,ncd->nc", vectors, vectors))[:, :, None]
    unit = vectors / np.where(length > 0, length, 1.0)
    rows, likeness = np.arange(len(value)), np.zeros(value.shape)
    worth, bar = _start(value)
    order = np.empty((len(value), m), dtype=np.int64)
    for place in range(m):
        order[:, place] = best = np.argmax((1 - weight) * worth - weight * likeness + bar, axis=1)
        bar[rows, best] = -np.inf
        cosine = np.einsum("ncd,nd->nc", unit, unit[rows, best])
        likeness = np.maximum(likeness, 0.5 + 0.5 * np.clip(cosine, -1.0, 1.0))
    return order


def order_calibrated(
    value: np.ndarray, item_idx: np.ndarray, values: sparse.csr_matrix, mix: sparse.csr_matrix, weight: float, m: int
) -> np.ndarray:
    """Calibrates lists: each place takes the best (1 - weight) x score - weight x KL(mix || list).

    The divergence is between the user's mix of values and the list with the item, in nats. An item without a value
    leaves the list's mix as it is. A user without a mix has the ranking's order.

    Args:
        value: (n, c) scores in 0..1, padding -inf.
        item_idx: (n, c).
        values: (n_items, v), rows sum to 1 or are empty.
        mix: (n, v) the users' own, rows sum to 1 or are empty.
        m: places.
    Returns:
        (n, m) columns.
    Source: Steck 2018, doi:10.1145/3240323.3240372, with the greedy search given there.
    """
    n, rows = len(value), np.arange(len(value))
    if not values.shape[1]:  # no item has a value: the ranking's order
        return np.tile(np.arange(m), (n, 1))
    code, part = _pad_values(values, item_idx)
    wanted = mix.toarray()
    support, of_row = mix.indices, np.repeat(rows, np.diff(mix.indptr))
    p = wanted[rows[:, None, None], code] * (part > 0)
    has = np.asarray(part.any(axis=2))
    listed, counted = np.zeros(wanted.shape), np.zeros(n)
    worth, bar = _start(value)
    order = np.empty((n, m), dtype=np.int64)

    def fit(size: np.ndarray) -> np.ndarray:
        """Sums p log q over the mix, q of the list with ``size`` valued items: (n,)."""
        share = wanted[of_row, support]
        q = (1 - SMOOTHING) * listed[of_row, support] / size[of_row] + SMOOTHING * share
        return np.bincount(of_row, share * np.log(q), minlength=n)

    for place in range(m):
        size, so_far = counted + 1, listed[rows[:, None, None], code]
        before = (1 - SMOOTHING) * so_far / size[:, None, None] + SMOOTHING * p
        after = before + (1 - SMOOTHING) * part / size[:, None, None]
        gain = (p * np.log(np.divide(after, before, out=np.ones_like(p), where=p > 0))).sum(axis=2)
        fitting = np.where(has, fit(size)[:, None] + gain, fit(np.maximum(counted, 1))[:, None])
        order[:, place] = best = np.argmax((1 - weight) * worth + weight * fitting + bar, axis=1)
        bar[rows, best] = -np.inf
        np.add.at(listed, (rows[:, None], code[rows, best]), part[rows, best])
        counted += has[rows, best]
    return order


def provider_order(item_idx: np.ndarray, provider: np.ndarray, limit: int) -> np.ndarray:
    """Keeps the ranking, but moves a provider's items beyond its ``limit`` best after all others.

    So a list of k keeps the limit if it can, and still holds k items. Items without a provider are free.

    Returns:
        (n, c) columns.
    """
    beyond = _earlier_of_provider(item_idx, provider) >= limit
    return np.argsort(np.where(item_idx < 0, 2, beyond), axis=1, kind="stable")


def places_over_limit(item_idx: np.ndarray, provider: np.ndarray, limit: int) -> np.ndarray:
    """Counts each list's places beyond a provider's limit, (n,): 0 unless no other candidate existed."""
    places: np.ndarray = (_earlier_of_provider(item_idx, provider) >= limit).sum(axis=1)
    return places


def limit_share(found: ScoredItems, k: int, provider: np.ndarray, share: float) -> tuple[ScoredItems, int]:
    """Takes the first k of every list, with at most ``share`` of all places of the batch for a provider.

    Unlike all else here, a list depends on the lists before it. Lists are filled in order, each with its best items
    whose providers have places left. If too few items are left, others fill up in rank order, and are counted.

    Returns:
        (n, k) items, and the number of places beyond the limit.
    """
    n = len(found.item_idx)
    quota = int(share * n * k)
    owner = np.where(found.item_idx >= 0, provider[found.item_idx], -1)
    earlier = _earlier_of_provider(found.item_idx, provider)
    used = np.zeros(int(provider.max(initial=-1)) + 2, dtype=np.int64)  # the last stands for no provider
    order, over = np.empty((n, min(k, found.item_idx.shape[1])), dtype=np.int64), 0
    for row in range(n):
        beyond = (owner[row] >= 0) & (used[owner[row]] + earlier[row] >= quota)
        rank = np.where(found.item_idx[row] < 0, 2, beyond)
        order[row] = np.argsort(rank, kind="stable")[: order.shape[1]]
        over += int((rank[order[row]] == 1).sum())
        np.add.at(used, owner[row, order[row]], 1)
    items, scores = (np.take_along_axis(part, order, axis=1) for part in (found.item_idx, found.score))
    return ScoredItems(items, np.minimum.accumulate(scores, axis=1)), over


def _earlier_of_provider(item_idx: np.ndarray, provider: np.ndarray) -> np.ndarray:
    """Counts items of the same provider before each place: (n, c); -1 without provider, and for padding."""
    n, c = item_idx.shape
    owner = np.where(item_idx >= 0, provider[item_idx], -1)
    key = np.arange(n)[:, None] * (int(provider.max(initial=-1)) + 2) + owner + 1
    order = np.argsort(key.ravel(), kind="stable")
    ordered = key.ravel()[order]
    count = np.empty(n * c, dtype=np.int64)
    count[order] = np.arange(n * c) - np.searchsorted(ordered, ordered)
    return np.where(owner >= 0, count.reshape(n, c), -1)


def _start(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits (n, c) scores: the scores, 0 for padding, and a penalty that bars padding until nothing else is left."""
    real = np.isfinite(value)
    return np.where(real, value, 0.0), np.where(real, 0.0, PADDING)


def _most_values(values: sparse.csr_matrix) -> int:
    return max(1, int(np.diff(values.indptr).max(initial=0)))


def _pad_values(values: sparse.csr_matrix, item_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Looks up the columns of ``values`` and their parts.

    They are as wide as the catalog's widest item, so that sums do not depend on the batch.

    Args:
        item_idx: (n, c).
    Returns:
        (n, c, most) each, padded with column 0 and part 0.
    """
    most = _most_values(values)
    start, stop = values.indptr[item_idx], values.indptr[item_idx + 1]
    there = (np.arange(most) < (stop - start)[:, :, None]) & (item_idx >= 0)[:, :, None]
    place = np.where(there, start[:, :, None] + np.arange(most), 0)
    if not len(values.data):
        return np.zeros(place.shape, dtype=np.int64), np.zeros(place.shape)
    return np.where(there, values.indices[place], 0).astype(np.int64), np.where(there, values.data[place], 0.0)
