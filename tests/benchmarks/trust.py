"""Figures of trust: attributes, items and times without a meaning move nothing, and simple rivals are not better.

Generated logs and grocery orders, at default settings but without texts. All figures are means over the seeds with an
interval of Student's t (_low, _high); NDCG@10 of the test part.

- untouched_share_N: share of the first ten places that N items without an interaction have.
- untouched_cost_N: NDCG@10 without these items, minus that with them.
- ties_gain: NDCG@10 of the served system minus that of popularity on random baskets whose events have equal times;
  0 is right.
- any_over_personal_frequency_LOG, new_over_best_LOG: the served system minus personal frequency with the target any,
  and minus the best baseline with the target new; LOG is bookshop (with repeats) or bigbasket.
- group_NAME_difference: the served system minus the best of popularity and recent popularity, for users by the length
  of their history, on a log by time in which most test users are new.
- graph_over_none: the vectors with a graph of noise attributes minus those without a graph.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl
from scipy import special

import reckg
from reckg.data.bookshop.write import generate_bookshop
from tests.benchmarks.measure import Result, beside, finish, parser
from tests.benchmarks.trust_worlds import bigbasket, late_comers, with_noise

UNTOUCHED = (1, 2, 100, 2000)
ITEMS, USERS, GENRES, EVENTS = 60, 120, 6, 12
PARTS = ("untouched", "ties", "repeats", "groups", "graph")
FEWEST_USERS = 10  # test users of a group at least
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


def evaluated(events: pl.DataFrame, items: pl.DataFrame | None, seed: int, epochs: int, **sections: Any) -> Any:
    """Fits a model and returns its report."""
    config = {"run": {"seed": seed}, "text": {"encoder": "none"}, "train": {"epochs": epochs}}
    config |= {"evaluate": {"bootstrap_samples": 100, "tuning_settings": 5}, **sections}
    with tempfile.TemporaryDirectory() as folder:
        return reckg.fit(events, items, config=config, folder=Path(folder) / "fit").evaluate()


def ndcg(report: Any, system: str) -> float:
    return float(report["systems"][system]["test"]["ndcg@10"]["mean"])


def repeat_figures(seed: int, n_users: int, epochs: int, small: bool) -> dict[str, float]:
    """Compares with the strongest simple rivals on logs with repeats."""
    shop = generate_bookshop(users=n_users, items=n_users // 2, seed=seed, repeats=True)
    logs = {"bookshop": (shop.interactions.collect(), shop.items.collect())}
    orders = None if small else bigbasket()
    if orders is not None:
        logs["bigbasket"] = orders, None
    found: dict[str, float] = {}
    for name, (events, items) in logs.items():
        report = evaluated(events, items, seed, epochs, task={"target": "any"})
        found[f"any_over_personal_frequency_{name}"] = ndcg(report, "reckg") - ndcg(report, "personal_frequency")
        report = evaluated(events, items, seed, epochs, task={"target": "new"})
        best = max(ndcg(report, system) for system, part in report["systems"].items() if part["baseline"])
        found[f"new_over_best_{name}"] = ndcg(report, "reckg") - best
    return found


def group_figures(seed: int, n_users: int, epochs: int) -> dict[str, float]:
    """Compares with the best simple order by the length of the history."""
    report = evaluated(*late_comers(seed, n_users), seed, epochs)
    found = {}
    for row in report["slices"]["history_length"]["rows"]:
        means = {name: figures["ndcg@10"]["mean"] for name, figures in row["systems"].items()}
        simple = max(means["popularity"], means["popularity_recent"])
        if row["users"] >= FEWEST_USERS:
            found[f"group_{row['name'].replace(' ', '_')}_difference"] = means["reckg"] - simple
    return found


def graph_figure(seed: int, n_users: int, epochs: int) -> dict[str, float]:
    events, items = tasteful_log(seed, 0, n_users)
    noisy = with_noise(items, seed)
    with_graph, without = (
        ndcg(evaluated(events, noisy, seed, epochs, rank={"enabled": False}, graph={"attributes": on}), "model")
        for on in (True, False)
    )
    return {"graph_over_none": with_graph - without}


def with_intervals(by_seed: list[dict[str, float]]) -> dict[str, float]:
    """Averages the figures of the seeds, with 95% intervals if there are several. Not every seed has every figure."""
    figures = {}
    for name in dict.fromkeys(name for found in by_seed for name in found):
        values = [found[name] for found in by_seed if name in found]
        figures[name] = mean(values)
        if len(values) > 1:
            half = -special.stdtrit(len(values) - 1, 0.025) * stdev(values) / np.sqrt(len(values))
            figures[f"{name}_low"], figures[f"{name}_high"] = figures[name] - half, figures[name] + half
    return figures


def main(arguments: list[str] | None = None) -> Result:
    words = parser("Figures that must not move with what says nothing.")
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--only", choices=PARTS, action="append", help="parts to measure; default: all")
    given = words.parse_args(arguments)
    if given.beside:
        return beside("trust", given, arguments)
    counts, n_users, epochs, seeds, scale = UNTOUCHED, USERS, 20, given.seeds, 10
    if given.small:
        counts, n_users, epochs, seeds, scale = (1,), 60, 1, 1, 6
    parts: dict[str, Callable[[int], dict[str, float]]] = {
        "untouched": lambda seed: untouched_figures(seed, counts, n_users, epochs),
        "ties": lambda seed: ties_figure(seed, 2 * n_users, epochs),
        "repeats": lambda seed: repeat_figures(seed, scale * n_users, epochs, given.small),
        "groups": lambda seed: group_figures(seed, scale * n_users, epochs),
        "graph": lambda seed: graph_figure(seed, 2 * n_users, epochs),
    }
    by_seed: list[dict[str, float]] = []
    for seed in range(given.seed, given.seed + seeds):
        by_seed.append({})
        for name in given.only or PARTS:
            by_seed[-1] |= parts[name](seed)
            print(f"seed {seed}, {name} done", flush=True)
    figures = with_intervals(by_seed)
    for name, value in figures.items():
        print(f"  {name:28} {value:10.4g}")
    settings = {"seeds": seeds, "users": n_users, "items": ITEMS, "epochs": epochs, "small": given.small}
    packages = ["dgl", "faiss-cpu", "numpy", "polars", "torch"]
    return finish("trust", figures, settings, packages=packages, seed=given.seed, out=given.out)


if __name__ == "__main__":
    main()
