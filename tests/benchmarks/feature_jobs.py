"""Ten million generated events of a million users through the feature jobs: seconds, memory, and the same in pandas.

The work of both: of repeated events the last one, the 5-core, the split by global time, interactions by index in order
of user and time, the training histories, and their features: popularity overall and in the latest tenth, trend, age
of items, length and the recency of histories. Both read one CSV file, by Polars' and pandas' readers. In pandas the
ids stay the strings that they are (speedup_vs_pandas), or are made categories first (speedup_vs_pandas_categories).
Every run is a process of its own, so that a peak is that run's; the events come from another one. Results are compared
before anything is timed. The stage build-graph, which reads Parquet and checks, writes and makes the graph besides, is
measured alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from reckg.config.run_config import parse_config
from reckg.data.clean import clean_interactions
from reckg.data.history import History
from reckg.data.ids import code_ids
from reckg.data.split import split_interactions
from reckg.pipeline.stages.build_graph import build_graph, index_interactions, places_in, taken
from reckg.ranking.tables.columns import DAY, RECENT_SHARES, item_age, item_popularity, user_recency
from tests.benchmarks.events import write_events
from tests.benchmarks.measure import Result, beside, finish, in_a_process, parser, peak_gb

K_CORE, VALID, TEST = 5, 0.1, 0.1
COMPARED = 300_000  # events of the comparison
RIVALS = ("pandas", "pandas_categories")
Features = dict[str, np.ndarray]


def reckg_features(folder: Path) -> Features:
    coded = code_ids(pl.scan_csv(folder / "events.csv"))
    cleaned, _ = clean_interactions(coded.frame.lazy(), duplicates="last", k_core=K_CORE)
    split = split_interactions(cleaned, kind="global-time", valid=VALID, test=TEST, time="utc", seed=0)
    interactions = split.frame.collect(engine="streaming")
    users, items = taken(interactions["user_id"], coded.user_id), taken(interactions["item_id"], coded.item_id)
    indexed = index_interactions(interactions, (places_in(coded.user_id, users), places_in(coded.item_id, items)))
    history = History.from_interactions(indexed.filter(pl.col("split") == "train"), len(users))
    now = int(history.timestamp.max())
    overall, recent, _, trend = item_popularity(history, len(items), now)
    return {
        "user_idx": indexed["user_idx"].to_numpy(),
        "item_idx": indexed["item_idx"].to_numpy(),
        "indptr": history.indptr,
        "history": history.item_idx,
        "popularity": overall,
        "recent_popularity": recent,
        "trend": trend,
        "age": item_age(history, len(items), now),
        "recency": user_recency(history, now),
        "length": np.log1p(np.diff(history.indptr)),
    }


def pandas_features(file: Path, categories: bool) -> Features:
    events = pd.read_csv(file)
    for name in ("user_id", "item_id") if categories else ():
        events[name] = events[name].astype("category")
    events = events.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "item_id"], keep="last")
    while True:
        enough = [
            events.groupby(name, observed=True)[name].transform("size") >= K_CORE for name in ("user_id", "item_id")
        ]
        if (enough[0] & enough[1]).all():
            break
        events = events[enough[0] & enough[1]]
    rows = events["timestamp"].value_counts().sort_index()
    before, total = rows.cumsum() - rows, len(events)  # events earlier than a moment
    first_valid = 1 + (before.iloc[1:-1] - (1 - VALID - TEST) * total).abs().to_numpy().argmin()
    first_test = first_valid + 1 + (before.iloc[first_valid + 1 :] - (1 - TEST) * total).abs().to_numpy().argmin()
    events = events.assign(
        user_idx=_numbered(events["user_id"]),
        item_idx=_numbered(events["item_id"]),
    ).sort_values(["user_idx", "timestamp", "item_idx"])
    n_users, n_items = events["user_idx"].max() + 1, events["item_idx"].max() + 1
    part = np.where(
        events["timestamp"] < rows.index[first_valid],
        "train",
        np.where(events["timestamp"] < rows.index[first_test], "valid", "test"),
    )
    events["split"] = pd.Categorical(part, ["train", "valid", "test"])
    train = events[events["split"] == "train"]
    now, by_item, by_user = train["timestamp"].max(), train.groupby("item_idx"), train.groupby("user_idx")
    overall = by_item.size().reindex(range(n_items), fill_value=0)
    latest = train[train["timestamp"] >= train["timestamp"].quantile(1 - RECENT_SHARES[0])]
    recent = latest.groupby("item_idx").size().reindex(range(n_items), fill_value=0)
    length = by_user.size().reindex(range(n_users), fill_value=0)
    age = (now - by_item["timestamp"].min().reindex(range(n_items))) / DAY
    recency = (now - by_user["timestamp"].last().reindex(range(n_users))) / DAY
    return {
        "user_idx": events["user_idx"].to_numpy(),
        "item_idx": events["item_idx"].to_numpy(),
        "indptr": np.concatenate([[0], length.cumsum().to_numpy()]),
        "history": train["item_idx"].to_numpy(),
        "popularity": np.log1p(overall).to_numpy(),
        "recent_popularity": np.log1p(recent).to_numpy(),
        "trend": np.log((1 + recent) / (1 + overall * (len(latest) / len(train)))).to_numpy(),
        "age": np.log1p(age).to_numpy(),
        "recency": np.log1p(recency).to_numpy(),
        "length": np.log1p(length).to_numpy(),
    }


def _numbered(ids: pd.Series) -> pd.Series:
    category = ids.cat.remove_unused_categories() if ids.dtype == "category" else ids.astype("category")
    return category.cat.codes.astype("int64")


def run_reckg(folder: Path, keep: Path | None) -> None:
    _timed(lambda: reckg_features(folder), folder / "reckg.npz", keep)


def run_pandas(folder: Path, keep: Path | None) -> None:
    _timed(lambda: pandas_features(folder / "events.csv", False), folder / "pandas.npz", keep)


def run_pandas_categories(folder: Path, keep: Path | None) -> None:
    _timed(lambda: pandas_features(folder / "events.csv", True), folder / "pandas_categories.npz", keep)


def run_stage(folder: Path, keep: Path | None) -> None:
    config = parse_config({"data": {"duplicates": "last", "k_core": K_CORE}}, "the benchmark")

    def stage() -> Features:
        build_graph(config, folder, folder / "run")
        return {}

    _timed(stage, folder / "stage.npz", keep)


def _timed(work: Callable[[], Features], out: Path, keep: Path | None) -> None:
    """Leaves seconds, CPU seconds and GiB in ``out``, and, where they are to be kept, the features."""
    began, cpu = time.perf_counter(), time.process_time()
    found = work()
    measured = [time.perf_counter() - began, time.process_time() - cpu, peak_gb()]
    np.savez(out, measured=measured, **(found if keep else {}))


def write_csv(folder: Path) -> None:
    pl.scan_parquet(folder / "interactions.parquet").sink_csv(folder / "events.csv", maintain_order=True)


def check_equal(folder: Path) -> None:
    """Raises AssertionError where reckg and pandas find different features."""
    for work in (run_reckg, run_pandas, run_pandas_categories):
        in_a_process(work, folder, folder)
    ours = np.load(folder / "reckg.npz")
    for rival in RIVALS:
        theirs = np.load(folder / f"{rival}.npz")
        for name in ours.files:
            if name != "measured":
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, err_msg=name)
    print(f"the same in pandas: {len(ours['user_idx']):,} interactions, {len(ours['indptr']) - 1:,} users")


def measured(folder: Path, rounds: int) -> dict[str, float]:
    """Figures over rounds in which reckg and pandas take turns."""
    runs = {"reckg": run_reckg, "pandas": run_pandas, "pandas_categories": run_pandas_categories}
    measured: dict[str, list[np.ndarray]] = {name: [] for name in (*runs, "stage")}

    def run(name: str, work: Callable[..., None]) -> None:
        in_a_process(work, folder, None)
        measured[name].append(np.load(folder / f"{name}.npz")["measured"])
        print("{:18} {:7.2f} s, {:7.2f} CPU s, {:.2f} GB".format(name, *measured[name][-1]), flush=True)

    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            run(name, runs[name])
    run("stage", run_stage)
    figures: dict[str, float] = {}
    for name, each in measured.items():
        for measure, values in zip(("seconds", "cpu_seconds", "peak_rss_gb"), zip(*each, strict=True), strict=True):
            figures[f"{name}_{measure}"] = max(values) if measure == "peak_rss_gb" else statistics.median(values)
    for rival in RIVALS:
        for suffix, column in (("", 0), ("_cpu", 1)):
            ratios = [
                theirs[column] / ours[column] for ours, theirs in zip(measured["reckg"], measured[rival], strict=True)
            ]
            figures[f"speedup_vs_{rival}{suffix}"] = statistics.median(ratios)
    figures["peak_rss_gb"] = max(figures["reckg_peak_rss_gb"], figures["stage_peak_rss_gb"])
    return {name: float(value) for name, value in figures.items()}


def main(arguments: list[str] | None = None) -> Result:
    words = parser("The feature jobs beside the same in pandas.")
    words.add_argument("--events", type=int, default=10_000_000)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--folder", type=Path, help="keeps the events there, and uses what is there")
    given = words.parse_args(arguments)
    if given.beside:
        return beside("feature_jobs", given, arguments)
    if given.small:
        given.events, given.rounds = 20_000, 1
    with tempfile.TemporaryDirectory() as temporary:
        figures = _figures(given, given.folder or Path(temporary))
    for name, value in figures.items():
        print(f"  {name:24} {value:10.4g}")
    settings = {name: getattr(given, name) for name in ("events", "rounds", "small")} | {"users": given.events // 10}
    packages = ["numpy", "pandas", "polars"]
    return finish("feature_jobs", figures, settings, packages=packages, seed=given.seed, out=given.out)


def _figures(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    for events in (min(COMPARED, given.events), given.events):
        data = folder / f"events-{events}"
        if not (data / "dataset.toml").is_file():
            sizes = {"events": events, "users": events // 10, "items": events // 100}
            in_a_process(write_events, data, **sizes, seed=given.seed)
            in_a_process(write_csv, data)
        if events <= COMPARED:
            check_equal(data)
    return measured(folder / f"events-{given.events}", given.rounds)


if __name__ == "__main__":
    main()
