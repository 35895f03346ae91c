"""Ranking features of (user, candidate item) pairs: the only extractor, for training, batch and server alike.

Everything is computed from a history as it stood at one time (``FeatureTables``) and the retrieved candidates. What
does not exist (an item without entities, a time feature without times) is NaN, which LightGBM handles itself;
``causes.missing_causes`` says why.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reckg.data.history import History
from reckg.errors import DataError
from reckg.grown_array import Array
from reckg.ranking.columns import EVENT_SPAN
from reckg.ranking.pairs import Pairs
from reckg.ranking.row_sums import row_entries
from reckg.ranking.tables import ITEM_COLUMNS, USER_COLUMNS, FeatureTables
from reckg.ranking.user_scores import UserScores
from reckg.retrieval.scored_items import ScoredItems

# Scores of the candidate by one source each: they enter as they are, and standardised over the user's candidates.
SOURCE_SCORES: tuple[str, ...] = (
    "retrieval_score",  # inner product of the vectors
    "graph_score",  # the graph model's part of it
    "cooccurrence",  # summed over the history
    "cooccurrence_recent",  # the same, the latest items counting most; histories that are ahead only
    "cooccurrence_last",  # the same, the last item counting most; histories that are ahead only
    "walk",  # two steps: item, user, item
    "linear",  # EASE; small catalogues only
    "factors",  # weighted matrix factorisation
    "profile_similarity",  # of the graph's vectors: the candidate with the history's sum, the latest counting most
    "profile_similarity_last",  # the same, the last item counting most; histories that are ahead only
    "closest_similarity",  # cosine with the three closest of the latest items of the history
    "shared_entities",  # mean rarity-weighted entities shared with an item of the history
    "shared_entities_recent",  # the same, the latest items counting most; histories that are ahead only
    "entity_similarity",  # cosine of the entities' weights, summed over the history
    "text_similarity",  # of the text vectors: the candidate with the history's sum, the latest counting most
    "text_similarity_last",  # the same, the last item counting most; histories that are ahead only
    "popular_score",  # log popularity by which the most popular items are given: recent where times are known
)
FEATURES: tuple[str, ...] = (
    *SOURCE_SCORES,
    *(f"{name}_z" for name in SOURCE_SCORES),
    "retrieval_rank",  # 0 is the best candidate
    *ITEM_COLUMNS,
    *USER_COLUMNS,
    "popularity_near",  # log ratio of the item's rate about the time of the history to its overall one; "between" only
    "attribute_affinity",  # mean log lift of the item among users with the user's attributes
    "number_distance",  # standardised number columns: mean distance from the user's mean
)
CLOSEST_OF, CLOSEST = 50, 3  # the latest items that are looked at, and how many of them count
NEAR = 30 * 86_400  # seconds around the history that count as its time
CELLS_AT_ONCE = 2**22  # cells of a block's working arrays


def block_users(tables: FeatureTables, candidates: int) -> int:
    """Users whose scores are held at once."""
    widest = max(len(tables.items), tables.entities.shape[1], candidates * len(FEATURES), 1)
    return max(1, CELLS_AT_ONCE // widest)


def extract_features(
    tables: FeatureTables,
    history: History,
    user_idx: np.ndarray,
    candidates: ScoredItems,
    vectors: np.ndarray,
    item_vectors: Array,
) -> np.ndarray:
    """The features of every candidate of every user.

    A row depends on its user and the user's candidates alone, not on the rest of the batch.

    Args:
        history: the same that the tables were built of.
        user_idx: (n,) int64.
        candidates: (n, c) in retrieval order, with the inner products of the vectors as scores.
        vectors, item_vectors: (n, d), (n_items, d) float32: of these users and of all items.
    Returns:
        (n * c, F) float32, user by user; columns as FEATURES. Rows of padding are NaN throughout.
    Raises:
        DataError: user_idx and candidates differ in length, or a user or an item is not in the tables.
    """
    user_idx = np.asarray(user_idx, dtype=np.int64)
    n, c = candidates.item_idx.shape
    check_request(tables, history, user_idx, candidates)
    features = np.empty((n, c, len(FEATURES)), dtype=np.float32)
    block = block_users(tables, c)
    for start in range(0, n, block):
        rows = slice(start, start + block)
        scores = UserScores(tables, history, user_idx[rows], vectors[rows], item_vectors)
        part = ScoredItems(candidates.item_idx[rows], candidates.score[rows])
        features[rows] = candidate_features(scores, part)
    return features.reshape(n * c, len(FEATURES))


def check_request(tables: FeatureTables, history: History, user_idx: np.ndarray, candidates: ScoredItems) -> None:
    shape = candidates.item_idx.shape
    if shape != candidates.score.shape or shape[:1] != user_idx.shape:
        raise DataError(f"features of {len(user_idx)} users for candidates of the shape {shape}: they do not fit.")
    if history.n_users != len(tables.users):
        raise DataError(f"history of {history.n_users} users, tables of {len(tables.users)}: from different runs?")
    for name, values, size, low in (
        ("user", user_idx, len(tables.users), 0),
        ("item", candidates.item_idx, len(tables.items), -1),
    ):
        if values.size and not low <= values.min() <= values.max() < size:
            raise DataError(f"{name}_idx {values.min()} to {values.max()}: the tables have {size} {name}s.")


def candidate_features(scores: UserScores, candidates: ScoredItems) -> np.ndarray:
    """(n, c, F) float32 of the users of ``scores`` and their (n, c) candidates in retrieval order."""
    shape = (*candidates.item_idx.shape, len(FEATURES))
    out = np.full(shape, np.nan, dtype=np.float32)
    if not out.size or not len(scores.tables.items):
        return out
    pairs = Pairs(scores, candidates)
    for name, column in _COLUMNS.items():
        values = column(pairs)
        if values is not None:
            out[:, :, _PLACE[name]] = values
    n_scores = len(SOURCE_SCORES)
    out[:, :, n_scores : 2 * n_scores] = standardised_scores(out[:, :, :n_scores], pairs.real)
    out[~pairs.real] = np.nan
    return out


def standardised_scores(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(n, c, s): each of (n, c, s) scores less the mean over its user's real candidates, over the standard deviation.

    0 where all are equal; NaN counts for nothing and stays NaN.
    """
    known = np.isfinite(values) & real[:, :, None]
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    value = np.where(known, values, 0).astype(np.float64)
    off = np.where(known, value - _total(value) / count, 0)
    spread = np.sqrt(_total(off**2) / count)
    return np.where(known, off / np.where(spread > 0, spread, 1), np.nan)


def _total(values: np.ndarray) -> np.ndarray:
    """(n, 1, s): sums over the candidates, which NumPy adds one by one, as always but along an array's fast axis: so
    zeros of padding change no bit."""
    return values.sum(axis=1, keepdims=True)


def retrieval_score(pairs: Pairs) -> np.ndarray:
    return pairs.score


def graph_score(pairs: Pairs) -> np.ndarray:
    """(n, c): inner product of the graph model's part of the vectors."""
    dim, scores = pairs.tables.graph_dim, pairs.scores
    return np.einsum("bd,bcd->bc", scores.vectors[:, :dim], scores.item_vectors[pairs.item_idx, :dim])


def cooccurrence(pairs: Pairs) -> np.ndarray:
    return pairs.scores.cooccurrence.at(0, pairs.item_idx)


def cooccurrence_recent(pairs: Pairs) -> np.ndarray | None:
    return pairs.scores.cooccurrence.at(1, pairs.item_idx) if pairs.scores.ahead else None


def cooccurrence_last(pairs: Pairs) -> np.ndarray | None:
    return pairs.scores.cooccurrence.at(2, pairs.item_idx) if pairs.scores.ahead else None


def walk(pairs: Pairs) -> np.ndarray:
    return pairs.scores.walk.at(0, pairs.item_idx)


def linear(pairs: Pairs) -> np.ndarray | None:
    return None if pairs.tables.linear is None else pairs.scores.linear.at(0, pairs.item_idx)


def factors(pairs: Pairs) -> np.ndarray | None:
    if not pairs.tables.factors.shape[1]:
        return None
    return _products(pairs.scores.factors, pairs.tables.factors[pairs.item_idx])


def profile_similarity(pairs: Pairs) -> np.ndarray:
    return _products(pairs.scores.profiles[0], pairs.vectors)


def profile_similarity_last(pairs: Pairs) -> np.ndarray | None:
    return _products(pairs.scores.profiles[1], pairs.vectors) if pairs.scores.ahead else None


def text_similarity(pairs: Pairs) -> np.ndarray | None:
    return _products(pairs.scores.text_profiles[0], pairs.texts) if pairs.tables.text.shape[1] else None


def text_similarity_last(pairs: Pairs) -> np.ndarray | None:
    if not pairs.scores.ahead or not pairs.tables.text.shape[1]:
        return None
    return _products(pairs.scores.text_profiles[1], pairs.texts)


def _products(users: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(n, c): inner products of (n, d) users' vectors and (n, c, d) candidates'."""
    return np.einsum("bd,bcd->bc", users, candidates)


def closest_similarity(pairs: Pairs) -> np.ndarray:
    """(n, c): mean cosine of the candidate and the CLOSEST most similar of the latest CLOSEST_OF items; NaN without."""
    scores = pairs.scores
    result = np.full(pairs.item_idx.shape, np.nan)
    for user in np.flatnonzero(scores.length):
        stop = scores.start[user] + scores.length[user]
        latest = scores.item[max(scores.start[user], stop - CLOSEST_OF) : stop]
        own = pairs.tables.vectors[latest].astype(np.float32)
        few = pairs.real[user]  # the product's shape, and with it its bits, is the user's own
        cosines = pairs.vectors[user, few] @ own.T
        result[user, few] = np.sort(cosines, axis=1)[:, -CLOSEST:].mean(axis=1)
    return result


def shared_entities(pairs: Pairs) -> np.ndarray:
    return _shared(pairs, 0, pairs.scores.ones)


def shared_entities_recent(pairs: Pairs) -> np.ndarray | None:
    return _shared(pairs, 1, pairs.scores.recent) if pairs.scores.ahead else None


def _shared(pairs: Pairs, weighting: int, weights: np.ndarray) -> np.ndarray:
    """(n, c): rarity of the entities that the candidate shares with an item of the history, in the weighted mean."""
    total = np.bincount(pairs.scores.query, weights, minlength=pairs.scores.n)
    return _entity_sums(pairs, weighting, squared=False) / np.where(total > 0, total, 1)[:, None]


def entity_similarity(pairs: Pairs) -> np.ndarray:
    """(n, c): cosine of the weights of the candidate's and an item's entities, summed over the history."""
    return _entity_sums(pairs, 2, squared=True) / pairs.tables.entity_length[pairs.item_idx]


def _entity_sums(pairs: Pairs, weighting: int, squared: bool) -> np.ndarray:
    """(n, c): the history's weights of the candidate's entities, summed; NaN without entities or history."""
    n, c = pairs.item_idx.shape
    pair, entity, rarity = pairs.entities
    found = pairs.scores.entities.of(weighting, pair // c, entity)
    sums = np.bincount(pair, found * rarity if squared else found, minlength=n * c).reshape(n, c)
    some = np.bincount(pair, minlength=n * c).reshape(n, c) > 0
    some &= (pairs.scores.length > 0)[:, None]
    return np.where(some, sums, np.nan)


def popular_score(pairs: Pairs) -> np.ndarray:
    return pairs.tables.popular_score[pairs.item_idx]


def retrieval_rank(pairs: Pairs) -> np.ndarray:
    return np.arange(pairs.item_idx.shape[1])


def popularity_near(pairs: Pairs) -> np.ndarray | None:
    """(n, c): log of the item's interactions within 30 days of the history against what its popularity promises."""
    keys, scores = pairs.tables.event_keys, pairs.scores
    if not len(keys):
        return None
    some = np.flatnonzero(scores.length)
    times = scores.history.timestamp[scores.positions]
    ends = scores.start[some] + scores.length[some]
    low, high = np.minimum.reduceat(times, scores.start[some]) - NEAR, times[ends - 1] + NEAR
    low, high = np.maximum(low, 0)[:, None], np.minimum(high, EVENT_SPAN - 1)[:, None]
    item = pairs.item_idx[some] * EVENT_SPAN
    there = np.searchsorted(keys, item + high, side="right") - np.searchsorted(keys, item + low)
    all_times = pairs.tables.event_times
    share = (np.searchsorted(all_times, high, side="right") - np.searchsorted(all_times, low)) / len(all_times)
    popularity = pairs.tables.items[pairs.item_idx[some], ITEM_COLUMNS.index("popularity")]
    overall = np.expm1(popularity.astype(np.float64))
    result = np.full(pairs.item_idx.shape, np.nan)
    result[some] = np.log((1 + there) / (1 + overall * share))
    return result


def attribute_affinity(pairs: Pairs) -> np.ndarray:
    """(n, c): mean log lift of the item among users with one of the user's attributes; NaN without any."""
    lift, total = pairs.tables.attribute_lift, np.zeros(pairs.item_idx.shape)
    indptr, indices, data = lift.indptr, lift.indices, lift.data
    wanted = pairs.item_idx.astype(indices.dtype)
    query, entity, _ = row_entries(pairs.tables.user_entities, pairs.scores.user_idx)
    for user, row in zip(query.tolist(), entity.tolist(), strict=True):  # a user has few; an attribute's row is long
        part = slice(indptr[row], indptr[row + 1])
        columns = indices[part]
        if len(columns):
            place = np.minimum(np.searchsorted(columns, wanted[user]), len(columns) - 1)
            total[user] += np.where(columns[place] == wanted[user], data[part][place], 0)
    count = pairs.scores.n_attributes[:, None]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def number_distance(pairs: Pairs) -> np.ndarray:
    """(n, c): |candidate - mean of the user's history| of the standardised numbers, averaged over the known columns."""
    scores = pairs.scores
    total, count = np.zeros(pairs.item_idx.shape), np.zeros(pairs.item_idx.shape)
    numbers = pairs.tables.numbers
    for column in range(numbers.shape[1]):
        value = numbers[scores.item, column]
        known = np.isfinite(value)
        weight = np.bincount(scores.query[known], minlength=scores.n)
        mean = np.bincount(scores.query[known], value[known], minlength=scores.n) / np.maximum(weight, 1)
        distance = np.abs(numbers[pairs.item_idx, column] - mean[:, None])
        usable = np.isfinite(distance) & (weight > 0)[:, None]
        total += np.where(usable, distance, 0)
        count += usable
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _item_column(place: int) -> Callable[[Pairs], np.ndarray]:
    return lambda pairs: pairs.tables.items[pairs.item_idx, place]


def _user_column(place: int) -> Callable[[Pairs], np.ndarray]:
    return lambda pairs: pairs.tables.users[pairs.scores.user_idx, place][:, None]


_PLACE = {name: place for place, name in enumerate(FEATURES)}
_COLUMNS: dict[str, Callable[[Pairs], np.ndarray | None]] = {
    function.__name__: function
    for function in (
        retrieval_score,
        graph_score,
        cooccurrence,
        cooccurrence_recent,
        cooccurrence_last,
        walk,
        linear,
        factors,
        profile_similarity,
        profile_similarity_last,
        closest_similarity,
        shared_entities,
        shared_entities_recent,
        entity_similarity,
        text_similarity,
        text_similarity_last,
        popular_score,
        retrieval_rank,
        popularity_near,
        attribute_affinity,
        number_distance,
    )
}
_COLUMNS |= {name: _item_column(place) for place, name in enumerate(ITEM_COLUMNS)}
_COLUMNS |= {name: _user_column(place) for place, name in enumerate(USER_COLUMNS)}
