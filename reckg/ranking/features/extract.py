"""Ranking features of (user, candidate item) pairs: the only extractor, for training, batch and server alike.

All features are computed from a history as it stood at one time (``FeatureTables``) and the retrieved candidates. A
feature without a value (an item without entities, a time feature without times) is NaN, which LightGBM handles itself.
``missing_values.missing_causes`` gives the reason.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from reckg.ranking.features.pairs import Pairs
from reckg.ranking.sources.own_items import RHYTHM
from reckg.ranking.sources.user_scores import UserScores
from reckg.ranking.tables.columns import EVENT_SPAN
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS, USER_COLUMNS, FeatureTables
from reckg.ranking.tables.row_sums import row_entries
from reckg.retrieval.scored_items import ScoredItems

# Scores of the candidate by a source each, as they are and standardised over the user's candidates.
SOURCE_SCORES: tuple[str, ...] = (
    "retrieval_score",  # inner product of the vectors
    "graph_score",  # the graph model's part
    "cooccurrence",  # summed over the history
    "cooccurrence_recent",  # the same, the latest items counting most; histories that are ahead only
    "cooccurrence_last",  # the same, the last item counting most; histories that are ahead only
    "walk",  # two steps: item, user, item
    "linear",  # EASE; small catalogues only
    "factors",  # weighted matrix factorisation
    "profile_similarity",  # graph vectors: the candidate with the history's sum, the latest counting most
    "profile_similarity_last",  # the same, the last item counting most; histories that are ahead only
    "closest_similarity",  # cosine with the three closest of the latest items of the history
    "shared_entities",  # mean rarity-weighted entities shared with an item of the history
    "shared_entities_recent",  # the same, the latest items counting most; histories that are ahead only
    "entity_similarity",  # cosine of the entities' weights, summed over the history
    "text_similarity",  # text vectors: the candidate with the history's sum, the latest counting most
    "text_similarity_last",  # the same, the last item counting most; histories that are ahead only
    "popular_score",  # log popularity that orders the most popular items: recent if times are known
)
FEATURES: tuple[str, ...] = (
    *SOURCE_SCORES,
    *(f"{name}_z" for name in SOURCE_SCORES),
    "retrieval_rank",  # 0 is the best candidate
    *ITEM_COLUMNS,
    *USER_COLUMNS,
    "popularity_near",  # log ratio of the item's rate near the history's time to its overall rate; "between" only
    "attribute_affinity",  # mean log lift of the item among users with the user's attributes
    "number_distance",  # standardised number columns: mean distance from the user's mean
)
# Features of the user's own rhythm with the candidate, where items of the history may be candidates. The first two are
# source scores, and are standardised too.
OWN_SCORES = RHYTHM[:2]
OWN_FEATURES: tuple[str, ...] = (*RHYTHM, *(f"{name}_z" for name in OWN_SCORES))
ALL_FEATURES = FEATURES + OWN_FEATURES
CLOSEST_OF, CLOSEST = 50, 3  # latest items that are compared, and number of closest ones that count
NEAR = 30 * 86_400  # seconds around the history that count as its time
CELLS_AT_ONCE = 2**22  # cells of a block's working arrays

Columns = Iterable[np.ndarray | float]


def block_users(tables: FeatureTables, candidates: int) -> int:
    """Computes the number of users whose scores are held at once."""
    widest = max(len(tables.items), tables.entities.shape[1], candidates * len(feature_names(tables)), 1)
    return max(1, CELLS_AT_ONCE // widest)


def feature_names(tables: FeatureTables) -> tuple[str, ...]:
    """Lists the features of candidates by these tables, in their order."""
    return ALL_FEATURES if tables.own else FEATURES


def candidate_features(scores: UserScores, candidates: ScoredItems) -> np.ndarray:
    """Extracts the features of users and their candidates.

    Args:
        scores: of n users.
        candidates: (n, c) in retrieval order.
    Returns:
        (n, c, F) float32, the features of ``feature_names``.
    """
    n, c = candidates.item_idx.shape
    columns = np.full((len(feature_names(scores.tables)), n, c), np.nan, dtype=np.float32)
    if columns.size and len(scores.tables.items):
        pairs = Pairs(scores, candidates)
        for first, compute in _COLUMNS:
            for place, values in enumerate(compute(pairs), first):
                columns[place] = values
        n_scores = len(SOURCE_SCORES)
        columns[n_scores : 2 * n_scores] = standardise_scores(columns[:n_scores], pairs.real)
        if scores.tables.own:
            first, after = len(FEATURES), len(FEATURES) + len(RHYTHM)
            columns[first:after] = scores.own.at(pairs.item_idx)
            columns[after:] = standardise_scores(columns[first : first + len(OWN_SCORES)], pairs.real)
        if not pairs.all_real:
            columns[:, ~pairs.real] = np.nan
    return np.ascontiguousarray(columns.transpose(1, 2, 0))


def standardise_scores(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Subtracts the mean over a user's real candidates from scores and divides by the standard deviation.

    Args:
        values: (s, n, c) scores.
        real: (n, c) bool: no padding.
    Returns:
        (s, n, c); 0 if all are equal. NaN does not count and stays NaN.
    """
    unknown = ~(np.isfinite(values) & real)
    count = np.maximum(values.shape[2] - unknown.sum(axis=2, keepdims=True), 1)
    off = values.astype(np.float64)
    np.copyto(off, 0, where=unknown)
    off -= _total(off) / count
    np.copyto(off, 0, where=unknown)
    spread = np.sqrt(_total(off * off) / count)
    off /= np.where(spread > 0, spread, 1)
    np.copyto(off, np.nan, where=unknown)
    return off


def _total(values: np.ndarray) -> np.ndarray:
    """Sums over the candidates one by one, so that zeros of padding change no bit: (s, n, 1)."""
    return values.cumsum(axis=2)[:, :, -1:]


# Each function below gives features that stand side by side in FEATURES, from the name in _COLUMNS on. A feature
# broadcasts to (n, c). Without its inputs the result is empty.


def retrieval_score(pairs: Pairs) -> Columns:
    """Inner product of the vectors."""
    return [pairs.score]


def graph_score(pairs: Pairs) -> Columns:
    """Inner product of the graph model's part of the vectors."""
    dim, scores = pairs.tables.graph_dim, pairs.scores
    return [_products(scores.vectors[:, :dim], scores.item_vectors.take(pairs.item_idx, axis=0)[:, :, :dim])]


def cooccurrence(pairs: Pairs) -> Columns:
    """Sums co-occurrence over the history; if it is ahead, also with the recent and the last items counting most."""
    return pairs.scores.cooccurrence.at(pairs.item_idx)


def walk(pairs: Pairs) -> Columns:
    """Sums two-step walks over the history."""
    return pairs.scores.walk.at(pairs.item_idx)


def linear(pairs: Pairs) -> Columns:
    """Sums the linear model's weights over the history."""
    return () if pairs.tables.linear is None else pairs.scores.linear.at(pairs.item_idx)


def factors(pairs: Pairs) -> Columns:
    """Inner product of the factors."""
    if not pairs.tables.factors.shape[1]:
        return ()
    return [_products(pairs.scores.factors, pairs.tables.factors.take(pairs.item_idx, axis=0))]


def profile_similarity(pairs: Pairs) -> Columns:
    """Compares the candidate with the history's graph vectors."""
    return _profile_products(pairs, pairs.scores.profiles, pairs.vectors)


def text_similarity(pairs: Pairs) -> Columns:
    """Compares the candidate with the history's text vectors."""
    if not pairs.tables.text.shape[1]:
        return ()
    return _profile_products(pairs, pairs.scores.text_profiles, pairs.texts)


def _profile_products(pairs: Pairs, profiles: np.ndarray, candidates: np.ndarray) -> Columns:
    """Multiplies profiles with candidates by the recent weights; if the history is ahead, also by the last."""
    return [_products(profile, candidates) for profile in profiles[: 2 if pairs.scores.ahead else 1]]


def _products(users: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Computes inner products of users' vectors and candidates'.

    Args:
        users: (n, d).
        candidates: (n, c, d).
    Returns:
        (n, c).
    """
    products: np.ndarray = np.einsum("bd,bcd->bc", users, candidates)
    return products


def closest_similarity(pairs: Pairs) -> Columns:
    """Averages the cosines of the candidate with the CLOSEST most similar of the latest CLOSEST_OF items."""
    scores = pairs.scores
    result = np.full(pairs.item_idx.shape, np.nan, dtype=np.float32)
    for user in np.flatnonzero(scores.length).tolist():
        start, end = scores.start[user], scores.ends[user]
        own = scores.history_vectors[max(start, end - CLOSEST_OF) : end]
        few = slice(None) if pairs.all_real else pairs.real[user]
        # the product's shape, and with it its bits, depends on the user alone
        cosines = np.sort(pairs.vectors[user, few] @ own.T, axis=1)[:, -CLOSEST:]
        result[user, few] = np.add.reduce(cosines, axis=1) / np.float32(cosines.shape[1])
    return [result]


def measure_shared_entities(pairs: Pairs) -> Columns:
    """Measures the entities that the candidate shares with the history's items.

    The rarity of shared entities is averaged over all items and over the recent ones. The cosine of the entities'
    weights is summed over the history. All are NaN without entities or history.
    """
    n, c = pairs.item_idx.shape
    scores, tables = pairs.scores, pairs.tables
    length, entity, rarity = row_entries(tables.entities, pairs.item_idx.ravel())
    pair = np.repeat(np.arange(n * c), length)
    found = scores.entities.of(pair // c, entity)
    found[2] *= rarity
    some = (length > 0).reshape(n, c) & (scores.length > 0)[:, None]
    sums = [np.where(some, np.bincount(pair, each, minlength=n * c).reshape(n, c), np.nan) for each in found]
    for place, weights in enumerate((scores.ones, scores.recent)):
        total = np.bincount(scores.query, weights, minlength=n)
        sums[place] /= np.where(total > 0, total, 1)[:, None]
    sums[2] /= tables.entity_length[pairs.item_idx]
    return [sums[0], sums[1] if scores.ahead else np.nan, sums[2]]


def popular_score(pairs: Pairs) -> Columns:
    """Log popularity by which the most popular items are ordered."""
    return [pairs.tables.popular_score.take(pairs.item_idx)]


def retrieval_rank(pairs: Pairs) -> Columns:
    """Rank among the candidates, from 0."""
    return [np.arange(pairs.item_idx.shape[1])]


def item_columns(pairs: Pairs) -> Columns:
    """The tables' item columns."""
    return pairs.tables.items.take(pairs.item_idx, axis=0).transpose(2, 0, 1)


def user_columns(pairs: Pairs) -> Columns:
    """The tables' user columns."""
    columns: np.ndarray = pairs.tables.users[pairs.scores.user_idx].T[:, :, None]
    return columns


def popularity_near(pairs: Pairs) -> Columns:
    """Compares the item's interactions within 30 days of the history with its overall popularity, as a log ratio."""
    keys, scores = pairs.tables.event_keys, pairs.scores
    if not len(keys):
        return ()
    some = np.flatnonzero(scores.length)
    times = scores.history.timestamp[scores.positions]
    low, high = np.minimum.reduceat(times, scores.start[some]) - NEAR, times[scores.ends[some] - 1] + NEAR
    low, high = np.maximum(low, 0)[:, None], np.minimum(high, EVENT_SPAN - 1)[:, None]
    item = pairs.item_idx[some] * EVENT_SPAN
    there = np.searchsorted(keys, item + high, side="right") - np.searchsorted(keys, item + low)
    all_times = pairs.tables.event_times
    share = (np.searchsorted(all_times, high, side="right") - np.searchsorted(all_times, low)) / len(all_times)
    popularity = pairs.tables.items[pairs.item_idx[some], ITEM_COLUMNS.index("popularity")]
    overall = np.expm1(popularity.astype(np.float64))
    result = np.full(pairs.item_idx.shape, np.nan)
    result[some] = np.log((1 + there) / (1 + overall * share))
    return [result]


def attribute_affinity(pairs: Pairs) -> Columns:
    """Averages the log lift of the item over the user's attributes; NaN without any."""
    lift, total = pairs.tables.attribute_lift, np.zeros(pairs.item_idx.shape)
    indptr, indices, data = lift.indptr, lift.indices, lift.data
    wanted = pairs.item_idx.astype(indices.dtype)
    count, attribute, _ = row_entries(pairs.tables.user_entities, pairs.scores.user_idx)
    users = np.repeat(np.arange(len(count)), count).tolist()
    starts, stops = indptr[attribute].tolist(), indptr[attribute + 1].tolist()
    for user, start, stop in zip(users, starts, stops, strict=True):  # a user has few; an attribute's row is long
        if start < stop:
            place = np.minimum(indices[start:stop].searchsorted(wanted[user]) + start, stop - 1)
            total[user] += np.where(indices.take(place) == wanted[user], data.take(place), 0)
    total /= np.where(count > 0, count, np.nan)[:, None]
    return [total]


def number_distance(pairs: Pairs) -> Columns:
    """Averages |candidate - mean of the history| over the known standardised number columns."""
    scores, numbers = pairs.scores, pairs.tables.numbers
    some = np.flatnonzero(scores.length)
    if not numbers.shape[1] or not len(some):
        return ()
    values = numbers[scores.item].astype(np.float64)
    known = np.isfinite(values)
    weight = np.add.reduceat(known, scores.start[some], axis=0, dtype=np.int64)
    mean = np.add.reduceat(np.where(known, values, 0), scores.start[some], axis=0)
    mean /= np.where(weight > 0, weight, np.nan)
    distance = np.abs(numbers.take(pairs.item_idx[some], axis=0) - mean[:, None])
    usable = np.isfinite(distance)
    count = usable.sum(axis=2)
    result = np.full(pairs.item_idx.shape, np.nan)
    result[some] = np.where(usable, distance, 0).sum(axis=2) / np.where(count > 0, count, np.nan)
    return [result]


_COLUMNS = tuple(
    (FEATURES.index(name), function)
    for name, function in {
        "retrieval_score": retrieval_score,
        "graph_score": graph_score,
        "cooccurrence": cooccurrence,
        "walk": walk,
        "linear": linear,
        "factors": factors,
        "profile_similarity": profile_similarity,
        "closest_similarity": closest_similarity,
        "shared_entities": measure_shared_entities,
        "text_similarity": text_similarity,
        "popular_score": popular_score,
        "retrieval_rank": retrieval_rank,
        ITEM_COLUMNS[0]: item_columns,
        USER_COLUMNS[0]: user_columns,
        "popularity_near": popularity_near,
        "attribute_affinity": attribute_affinity,
        "number_distance": number_distance,
    }.items()
)
