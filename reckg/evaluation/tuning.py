"""Settings of the baselines, chosen on validation: every baseline may try the same number of settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from reckg.data.history import History
from reckg.evaluation.als import Als, fit_als
from reckg.evaluation.baselines import (
    Baseline,
    Ease,
    ItemKnn,
    Neighbours,
    Popularity,
    fit_ease,
    fit_item_knn,
    fit_popularity,
    fit_recent_popularity,
    knn_of,
    nearest,
    recommend_by_scores,
)
from reckg.evaluation.personal_frequency import PersonalFrequency, fit_personal_frequency
from reckg.evaluation.protocol import HeldOut, SystemSettings, evaluate_system
from reckg.ranking.tables.ease import user_item_matrix

SMALL_CATALOG = 4_000  # most items for the larger default budget
SETTINGS, SETTINGS_LARGE = 10, 6
TUNING_USERS = 5_000  # most validation users that choose the settings

Setting = dict[str, float]
Grid = Mapping[str, Sequence[float]]
Track = Callable[[str, int], object]  # called before each setting with the baseline's name and the number of settings

GRIDS: dict[str, tuple[Grid, Setting]] = {
    "popularity_recent": (
        {"share": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)},
        {"share": 0.1},
    ),
    "personal_frequency": (
        {"fading": (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.985, 0.995, 1.0)},
        {"fading": 0.9},
    ),
    "item_knn": (
        {"shrink": (0.0, 10.0, 50.0, 100.0, 200.0), "neighbours": (10, 20, 50, 100, 200, 400)},
        {"shrink": 10.0, "neighbours": 100},
    ),
    "ease": (
        {"regularisation": (10.0, 25.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 750.0, 1000.0)},
        {"regularisation": 200.0},
    ),
    "als": (
        {
            "alpha": (1.0, 2.0, 5.0, 10.0, 20.0, 50.0),
            "factors": (32, 64, 128),
            "regularisation": (0.1, 1.0, 3.0, 10.0, 35.0, 100.0),
        },
        {"alpha": 5.0, "factors": 64, "regularisation": 35.0},
    ),
}
LARGE: dict[str, tuple[Grid, Setting]] = {
    "als": (
        {**GRIDS["als"][0], "factors": (64, 128, 256)},
        {"alpha": 5.0, "factors": 128, "regularisation": 35.0},
    ),
}


def usual_budget(n_items: int) -> int:
    """Chooses the number of settings that every baseline may try by default: fewer in large catalogs."""
    return SETTINGS if n_items <= SMALL_CATALOG else SETTINGS_LARGE


def search(
    grid: Grid, start: Setting, budget: int, score: Callable[[Setting], float], seed: int = 0
) -> list[tuple[Setting, float]]:
    """Tries settings of a grid, each once, until the budget is spent or none is left; in the order of trial.

    From the start it goes along one axis after another, up and down, as long as the score improves. If no neighbour is
    better, the rest of the budget goes to the settings with the fewest steps to the best one, ties broken at random.

    Args:
        budget: settings to try.
        score: higher is better.
    Raises:
        ValueError: budget < 1, or the start is not in the grid.
    """
    if budget < 1 or any(value not in grid[name] for name, value in start.items()) or start.keys() != grid.keys():
        raise ValueError(f"a search needs a budget >= 1 and a start in the grid, got {budget} and {start}")
    tried: dict[tuple[float, ...], float] = {}

    def value(place: tuple[float, ...]) -> float:
        if place not in tried and len(tried) < budget:
            tried[place] = score(dict(zip(grid, place, strict=True)))
        return tried.get(place, -np.inf)

    best = tuple(start[name] for name in grid)
    value(best)
    moved = True
    while moved and len(tried) < budget:
        moved = False
        for axis, direction in itertools.product(range(len(best)), (1, -1)):
            for place in _along(grid, best, axis, direction):
                if value(place) <= tried[best]:
                    break
                best, moved = place, True
    places = list(itertools.product(*grid.values()))
    chance = dict(zip(places, np.random.default_rng(seed).random(len(places)).tolist(), strict=True))
    while len(tried) < min(budget, len(places)):
        best = max(tried, key=lambda place: tried[place])
        value(min((p for p in places if p not in tried), key=lambda place: (_steps(grid, place, best), chance[place])))
    return [(dict(zip(grid, place, strict=True)), found) for place, found in tried.items()]


def _steps(grid: Grid, a: tuple[float, ...], b: tuple[float, ...]) -> int:
    """Counts steps along the axes from one place to another."""
    return sum(abs(values.index(x) - values.index(y)) for values, x, y in zip(grid.values(), a, b, strict=True))


def _along(grid: Grid, place: tuple[float, ...], axis: int, direction: int) -> Iterator[tuple[float, ...]]:
    """Lists the places after a place, in one direction of an axis."""
    values = list(grid.values())[axis]
    at = list(values).index(place[axis]) + direction
    while 0 <= at < len(values):
        yield (*place[:axis], values[at], *place[axis + 1 :])
        at += direction


def tune(
    name: str,
    fit: Callable[[Setting], Baseline],
    train: History,
    n_items: int,
    valid: HeldOut,
    budget: int,
    seed: int,
    track: Track | None,
) -> tuple[Setting, SystemSettings]:
    """Finds the setting with the best NDCG@10 on validation, and the report's words on the choice.

    The grid is GRIDS[name], or LARGE[name] for a large catalog.
    """
    sample = valid.sample(TUNING_USERS, seed)
    grid, start = LARGE[name] if name in LARGE and n_items > SMALL_CATALOG else GRIDS[name]
    most = min(budget, len(list(itertools.product(*grid.values()))))

    def score(setting: Setting) -> float:
        if track is not None:
            track(name, most)
        return validation_ndcg(fit(setting), train, sample, n_items)

    tried = search(grid, start, budget, score, seed)
    best, ndcg = max(tried, key=lambda pair: pair[1])
    return best, {
        "tried": [setting | {"ndcg@10": round(value, 6)} for setting, value in tried],
        "valid_ndcg@10": ndcg,
        "validation_users": len(sample.users),
    }


def tune_recent_popularity(
    train: History,
    known: History,
    n_items: int,
    valid: HeldOut | None,
    *,
    budget: int = SETTINGS,
    seed: int = 0,
    track: Track | None = None,
) -> Popularity:
    """Fits popularity among the latest interactions of ``known``, their share chosen on validation."""
    if valid is None:
        return fit_recent_popularity(known, n_items)
    best, trials = tune(
        "popularity_recent",
        lambda setting: fit_recent_popularity(train, n_items, **setting),
        train,
        n_items,
        valid,
        budget,
        seed,
        track,
    )
    model = fit_recent_popularity(known, n_items, **best)
    return replace(model, settings=model.settings | trials)


def tune_personal_frequency(
    train: History,
    known: History,
    n_items: int,
    valid: HeldOut | None,
    *,
    budget: int = SETTINGS,
    seed: int = 0,
    track: Track | None = None,
) -> PersonalFrequency:
    """Fits personal frequency over ``known``, its fading chosen on validation."""
    if valid is None:
        return fit_personal_frequency(known, n_items)

    def fit(setting: Setting, history: History = train) -> PersonalFrequency:
        return fit_personal_frequency(history, n_items, **setting)

    best, trials = tune("personal_frequency", fit, train, n_items, valid, budget, seed, track)
    model = fit(best, known)
    return replace(model, settings=model.settings | trials)


def tune_item_knn(
    train: History,
    known: History,
    n_items: int,
    valid: HeldOut | None,
    *,
    budget: int = SETTINGS,
    seed: int = 0,
    track: Track | None = None,
) -> ItemKnn:
    """Fits item-kNN over ``known``, its settings chosen on validation; without validation, the defaults."""
    if valid is None:
        return fit_item_knn(known, n_items)
    matrix, count = user_item_matrix(train, n_items), fit_popularity(train, n_items).count
    most = int(max(GRIDS["item_knn"][0]["neighbours"]))
    tables: dict[float, Neighbours] = {}  # of the latest shrink alone: what is kept of it depends on the neighbours

    def fit(setting: Setting) -> ItemKnn:
        if setting["shrink"] not in tables:
            tables.clear()
            tables[setting["shrink"]] = nearest(matrix, most, setting["shrink"])
        return knn_of(tables[setting["shrink"]], count, int(setting["neighbours"]), setting["shrink"])

    best, trials = tune("item_knn", fit, train, n_items, valid, budget, seed, track)
    model = fit_item_knn(known, n_items, neighbours=int(best["neighbours"]), shrink=best["shrink"])
    return replace(model, settings=model.settings | trials)


def tune_ease(
    train: History,
    known: History,
    n_items: int,
    valid: HeldOut | None,
    *,
    max_items: int = 20_000,
    budget: int = SETTINGS,
    seed: int = 0,
    track: Track | None = None,
) -> Ease:
    """Fits EASE over ``known``, lambda chosen on validation. One model is in memory at a time."""
    if valid is None:
        return fit_ease(known, n_items, max_items=max_items)

    def fit(setting: Setting, history: History = train) -> Ease:
        return fit_ease(history, n_items, max_items=max_items, **setting)

    best, trials = tune("ease", fit, train, n_items, valid, budget, seed, track)
    model = fit(best, known)
    return replace(model, settings=model.settings | trials)


def tune_als(
    train: History,
    known: History,
    n_items: int,
    valid: HeldOut | None,
    *,
    budget: int = SETTINGS,
    seed: int = 0,
    threads: int = 0,
    track: Track | None = None,
) -> Als:
    """Fits ALS over ``known``, its settings chosen on validation; without validation, the defaults."""
    if valid is None:
        return fit_als(known, n_items, seed=seed, threads=threads)

    def fit(setting: Setting, history: History = train) -> Als:
        return fit_als(
            history,
            n_items,
            factors=int(setting["factors"]),
            regularisation=setting["regularisation"],
            alpha=setting["alpha"],
            seed=seed,
            threads=threads,
        )

    best, trials = tune("als", fit, train, n_items, valid, budget, seed, track)
    model = fit(best, known)
    return replace(model, settings=model.settings | trials)


def validation_ndcg(model: Baseline, history: History, held: HeldOut, n_items: int) -> float:
    """Computes the mean NDCG@10 of a baseline over held-out users."""
    recommend = recommend_by_scores(model, history, held, n_items, 10)
    result = evaluate_system(recommend, held.users, held.relevant, (10,), n_items=n_items)
    return float(result.per_user["ndcg@10"].mean())
