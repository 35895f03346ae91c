"""Figures that must not move with what says nothing: items that nobody took, and the order of equal times.

Generated logs of users with a taste for a genre, at default settings but without texts. All figures are of the vectors
alone, a mean over the seeds with an interval of Student's t (_low, _high).

- untouched_share_N: share of the first ten places that N items without an interaction have.
- untouched_cost_N: NDCG@10 without these items, minus that with them.
- ties_gain: NDCG@10 of the served system minus that of popularity on random baskets whose events have equal times;
  0 is right.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import polars as pl
from scipy import special

import reckg
from tests.benchmarks.measure import Result, beside, finish, parser

UNTOUCHED = (1, 2, 100, 2000)
ITEMS, USERS, GENRES, EVENTS = 60, 120, 6, 12
FAST = {"text": {"encoder": "none"}, "rank": {"enabled": False}, "evaluate": {"bootstrap_samples": 100}}


def tasteful_log(seed: int, untouched: int, n_users: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generates events of users who mostly take items of one genre, and items, ``untouched`` of them not taken."""
    rng = np.random.default_rng(seed)
    genre = np.arange(ITEMS) % GENRES
    rows = []
    for user in range(n_users):
        chance = np.where(genre == user % GENRES, 8.0, 1.0) * rng.gamma(2.0, size=ITEMS)
        taken = rng.choice(ITEMS, EVENTS, replace=False, p=chance / chance.sum())
        times = 1_600_000_000 + np.sort(rng.integers(0, 10_000_000, EVENTS))
        rows += [(f"u{user}", f"i{item}", int(time)) for item, time in zip(taken.tolist(), times, strict=True)]
    names = [f"i{item}" for item in range(ITEMS)] + [f"cold{item}" for item in range(untouched)]
    genres = [f"g{number}" for number in [*genre, *rng.integers(0, GENRES, untouched)]]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return events, pl.DataFrame({"item_id": names, "genre": genres})


def tied_baskets(seed: int, n_users: int) -> pl.DataFrame:
    """Generates random baskets; all events of a user have one time."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{item:03}", 1_600_000_000 + user)
        for user in range(n_users)
        for item in rng.choice(120, 8, replace=False).tolist()
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def untouched_figures(seed: int, counts: tuple[int, ...], n_users: int, epochs: int) -> dict[str, float]:
    found: dict[str, float] = {}
    alone = 0.0
    for untouched in (0, *counts):
        events, items = tasteful_log(seed, untouched, n_users)
        config = FAST | {"run": {"seed": seed}, "train": {"epochs": epochs}}
        with tempfile.TemporaryDirectory() as folder:
            fitted = reckg.fit(events, items, config=config, folder=Path(folder) / "fit")
            ndcg = fitted.evaluate()["systems"]["model"]["test"]["ndcg@10"]["mean"]
            listed = fitted.recommend_many([f"u{user}" for user in range(n_users)], k=10)["item_id"]
        if not untouched:
            alone = ndcg
            continue
        found[f"untouched_share_{untouched}"] = listed.str.starts_with("cold").mean()
        found[f"untouched_cost_{untouched}"] = alone - ndcg
    return found


def ties_figure(seed: int, n_users: int, epochs: int) -> dict[str, float]:
    config = FAST | {"run": {"seed": seed}, "train": {"epochs": epochs}, "split": {"kind": "leave-last-out"}}
    with tempfile.TemporaryDirectory() as folder:
        systems = reckg.fit(tied_baskets(seed, n_users), config=config, folder=Path(folder) / "fit").evaluate()[
            "systems"
        ]
    ours, rival = (systems[name]["test"]["ndcg@10"]["mean"] for name in ("reckg", "popularity"))
    return {"ties_gain": ours - rival}


def with_intervals(by_seed: list[dict[str, float]]) -> dict[str, float]:
    """Averages the figures of the seeds, with 95% intervals if there are several."""
    figures = {}
    for name in by_seed[0]:
        values = [found[name] for found in by_seed]
        figures[name] = mean(values)
        if len(values) > 1:
            half = -special.stdtrit(len(values) - 1, 0.025) * stdev(values) / np.sqrt(len(values))
            figures[f"{name}_low"], figures[f"{name}_high"] = figures[name] - half, figures[name] + half
    return figures


def main(arguments: list[str] | None = None) -> Result:
    words = parser("Figures that must not move with what says nothing.")
    words.add_argument("--seeds", type=int, default=5)
    given = words.parse_args(arguments)
    if given.beside:
        return beside("trust", given, arguments)
    counts, n_users, epochs, seeds = UNTOUCHED, USERS, 20, given.seeds
    if given.small:
        counts, n_users, epochs, seeds = (1,), 60, 1, 1
    by_seed = [
        untouched_figures(seed, counts, n_users, epochs) | ties_figure(seed, 2 * n_users, epochs)
        for seed in range(given.seed, given.seed + seeds)
    ]
    figures = with_intervals(by_seed)
    for name, value in figures.items():
        print(f"  {name:28} {value:10.4g}")
    settings = {"seeds": seeds, "users": n_users, "items": ITEMS, "epochs": epochs, "small": given.small}
    packages = ["dgl", "faiss-cpu", "numpy", "polars", "torch"]
    return finish("trust", figures, settings, packages=packages, seed=given.seed, out=given.out)


if __name__ == "__main__":
    main()
