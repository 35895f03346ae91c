"""Ten million generated events of a million users through the feature jobs: seconds, memory, and the same in pandas.

The work of both: of repeated events the last one, the 5-core, the split by global time, interactions by index in order
of user and time, the training histories, and of them popularity overall and in the latest tenth, its trend, the age of
items, the length and the recency of histories. Both read one CSV file, by Polars' and pandas' readers, and turn ids
into numbers first (pandas: into categories). speedup_vs_pandas is from the file to the features,
speedup_vs_pandas_in_memory leaves out the reading of pandas alone. Every run is a process of its own, so that a peak is
that run's; the events come from another one. Results are compared before anything is timed. The stage build-graph,
which reads Parquet and checks, writes and makes the graph besides, is measured alone.
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

from jobs.build_graph import build_graph, indexed_interactions, places_in, taken
from reckg.config import parse_config
from reckg.data.clean import clean_interactions
from reckg.data.history import History
from reckg.data.ids import code_ids
from reckg.data.split import split_interactions
from reckg.ranking.tables import DAY, RECENT_SHARE, item_age, item_popularity, user_recency
from tests.benchmarks.events import write_events
from tests.benchmarks.measure import Result, finish, in_a_process, parser, peak_gb

K_CORE, VALID, TEST = 5, 0.1, 0.1
COMPARED = 300_000  # events of the comparison
Features = dict[str, np.ndarray]


def reckg_features(folder: Path) -> Features:
    coded = code_ids(pl.scan_csv(folder / "events.csv"))
    cleaned, _ = clean_interactions(coded.frame.lazy(), duplicates="last", k_core=K_CORE)
    split = split_interactions(cleaned, kind="global-time", valid=VALID, test=TEST, time="utc", seed=0)
    interactions = split.frame.collect(engine="streaming")
    users, items = taken(interactions["user_id"], coded.user_id), taken(interactions["item_id"], coded.item_id)
    indexed = indexed_interactions(interactions, (places_in(coded.user_id, users), places_in(coded.item_id, items)))
    history = History.from_interactions(indexed.filter(pl.col("split") == "train"), len(users))
    now = int(history.timestamp.max())
    popularity = item_popularity(history, len(items), now)
    return {
        "user_idx": indexed["user_idx"].to_numpy(),
        "item_idx": indexed["item_idx"].to_numpy(),
        "indptr": history.indptr,
        "history": history.item_idx,
        **dict(zip(("popularity", "recent_popularity", "trend"), popularity, strict=True)),
        "age": item_age(history, len(items), now),
        "recency": user_recency(history, now),
        "length": np.log1p(np.diff(history.indptr)),
    }


def pandas_features(events: pd.DataFrame) -> Features:
    for name in ("user_id", "item_id"):
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
        user_idx=events["user_id"].cat.remove_unused_categories().cat.codes.astype("int64"),
        item_idx=events["item_id"].cat.remove_unused_categories().cat.codes.astype("int64"),
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
    latest = train[train["timestamp"] >= train["timestamp"].quantile(1 - RECENT_SHARE)]
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


def run_reckg(folder: Path, keep: Path | None) -> None:
    _timed(lambda: reckg_features(folder), folder / "reckg.npz", keep)


def run_pandas(folder: Path, keep: Path | None) -> None:
    began = time.perf_counter()
    events = [pd.read_csv(folder / "events.csv")]
    read = time.perf_counter() - began
    _timed(lambda: pandas_features(events.pop()), folder / "pandas.npz", keep, read)


def run_stage(folder: Path, keep: Path | None) -> None:
    config = parse_config({"data": {"duplicates": "last", "k_core": K_CORE}}, "the benchmark")

    def stage() -> Features:
        build_graph(config, folder, folder / "run")
        return {}

    _timed(stage, folder / "stage.npz", keep)


def _timed(work: Callable[[], Features], out: Path, keep: Path | None, read: float = 0) -> None:
    """Leaves seconds, CPU seconds of the process so far, GiB, and the seconds of ``read``, which are in the first."""
    began = time.perf_counter()
    found = work()
    told = [read + time.perf_counter() - began, time.process_time(), peak_gb(), read]
    np.savez(out, told=told, **(found if keep else {}))


def write_csv(folder: Path) -> None:
    pl.scan_parquet(folder / "interactions.parquet").sink_csv(folder / "events.csv", maintain_order=True)


def check_equal(folder: Path) -> None:
    """Raises AssertionError where reckg and pandas find different features."""
    in_a_process(run_reckg, folder, folder)
    in_a_process(run_pandas, folder, folder)
    ours, theirs = np.load(folder / "reckg.npz"), np.load(folder / "pandas.npz")
    for name in ours.files:
        if name != "told":
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, err_msg=name)
    print(f"the same in pandas: {len(ours['user_idx']):,} interactions, {len(ours['indptr']) - 1:,} users")


def measured(folder: Path, rounds: int) -> dict[str, float]:
    """Figures over rounds in which reckg and pandas take turns."""
    told: dict[str, list[np.ndarray]] = {"reckg": [], "pandas": [], "stage": []}
    for turn in range(rounds):
        pair = [("reckg", run_reckg), ("pandas", run_pandas)]
        for name, work in pair if turn % 2 == 0 else pair[::-1]:
            in_a_process(work, folder, None)
            told[name].append(np.load(folder / f"{name}.npz")["told"])
            seconds, cpu, peak, read = told[name][-1]
            print(f"{name:8} {seconds:7.2f} s ({read:.2f} to read), {cpu:7.2f} CPU s, {peak:.2f} GB", flush=True)
    in_a_process(run_stage, folder, None)
    told["stage"].append(np.load(folder / "stage.npz")["told"])
    figures: dict[str, float] = {}
    for name, each in told.items():
        for what, values in zip(("seconds", "cpu_seconds", "peak_rss_gb"), zip(*each, strict=True), strict=False):
            figures[f"{name}_{what}"] = max(values) if what == "peak_rss_gb" else statistics.median(values)
    pairs = list(zip(told["reckg"], told["pandas"], strict=True))
    for what, ratios in (
        ("speedup_vs_pandas", [theirs[0] / ours[0] for ours, theirs in pairs]),
        ("speedup_vs_pandas_cpu", [theirs[1] / ours[1] for ours, theirs in pairs]),
        ("speedup_vs_pandas_in_memory", [(theirs[0] - theirs[3]) / ours[0] for ours, theirs in pairs]),
    ):
        figures[what] = statistics.median(ratios)
    figures["peak_rss_gb"] = max(figures["reckg_peak_rss_gb"], figures["stage_peak_rss_gb"])
    return {name: float(value) for name, value in figures.items()}


def main(arguments: list[str] | None = None) -> Result:
    words = parser("The feature jobs beside the same in pandas.")
    words.add_argument("--events", type=int, default=10_000_000)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--folder", type=Path, help="keeps the events there, and uses what is there")
    given = words.parse_args(arguments)
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
