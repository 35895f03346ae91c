"""Stage evaluate: full-ranking figures of what is served, of its stages and of the baselines, on the test part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

import reckg
from jobs.bundle import recent_popularity
from jobs.index import index_of
from jobs.questions import asked, new_items
from jobs.rank_files import feature_tables
from jobs.run_folder import Prepared, read_embeddings, read_prepared, read_text_vectors
from reckg.bundle import Bundle, load_bundle
from reckg.compressed_rows import take_rows
from reckg.config import Config
from reckg.data.history import History
from reckg.errors import ArtifactError, DataError
from reckg.evaluation.baselines import (
    Popularity,
    fit_popularity,
    recommend_by_scores,
    tune_ease,
    tune_item_knn,
)
from reckg.evaluation.cold_items import (
    RandomOrder,
    Scores,
    cold_items_section,
    evaluate_among,
    fit_text_knn,
    order_as_scores,
)
from reckg.evaluation.leakage import checks_from_preparation, leakage_checks
from reckg.evaluation.protocol import (
    HeldOut,
    Recommend,
    SystemResult,
    evaluate_system,
)
from reckg.evaluation.report import (
    comparison_section,
    history_slices,
    popularity_groups,
    popularity_slices,
    primary_metric,
    protocol_section,
    system_section,
    write_report,
)
from reckg.recommend import recommend_batch
from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems


@dataclass(frozen=True)
class RunData:
    """A run's data as of test time: what is known, and what is asked."""

    prepared: Prepared
    parts: tuple[str, ...]  # split parts in a user's history at test time
    train: History
    history: History
    held: HeldOut
    new_items: np.ndarray | None  # (c,) item_idx of the test part's items, where the items are split

    @property
    def n_users(self) -> int:
        return len(self.prepared.users)

    @property
    def n_items(self) -> int:
        return len(self.prepared.items)


def evaluate(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes report/report.json and report/report.html. ``data`` is not read: the run folder holds all it needs.

    Raises:
        ArtifactError: an earlier stage's output is missing or damaged.
        DataError: the test part asks for nothing.
    """
    began = perf_counter()
    test = read_run(config, run)
    popularity = fit_popularity(test.train, test.n_items)
    groups = popularity_groups(popularity.count)
    k = max(config.evaluate.k)
    results: dict[str, SystemResult] = {}
    among: dict[str, SystemResult] = {}
    settings: dict[str, dict[str, Any]] = {}
    new, chance = test.new_items, RandomOrder(test.n_items, config.run.seed)

    def measure(name: str, recommend: Recommend, scores: Scores, described: dict[str, Any]) -> None:
        with tqdm(total=len(test.held.users), desc=name, unit="user", leave=False) as bar:
            results[name] = evaluate_system(
                recommend,
                test.held.users,
                test.held.relevant,
                config.evaluate.k,
                n_items=test.n_items,
                excluded=test.held.excluded,
                groups=groups,
                group_k=int(primary_metric(config.evaluate.k).split("@")[1]),
                watched=new,
                block_users=config.evaluate.block_users,
                progress=bar.update,
            )
        settings[name] = described
        if new is not None and name != "retrieval":  # which is what is served, for lack of a ranker
            among[name] = evaluate_among(scores, new, test.held, config.evaluate.k, chance)

    bundle = bundle_at_test_time(config, run, test)
    whole = own_systems(bundle, test.held, test.n_items)
    for name, (recommend, described) in own_systems(bundle, test.held, k).items():
        measure(name, recommend, order_as_scores(whole[name][0], test.n_items), described)
    for name, fit in baseline_fits(config, run, test, popularity).items():
        fitting = perf_counter()
        model = fit()
        described = {**model.settings, "fit_seconds": round(perf_counter() - fitting, 1)}
        recommend = recommend_by_scores(model, test.history, test.held, test.n_items, k)
        measure(name, recommend, partial(model.scores, test.history), described)
    report = build_report(config, run, test, results, settings, groups)
    if new is not None:
        report["cold_items"] = new_items_section(config, test, among, results, settings)
    report["timing"] = read_timing(run) | {"evaluate": {"seconds": round(perf_counter() - began, 3)}}
    written = write_report(report, run / "report")
    return stage_counts(written)


def read_run(config: Config, run: Path) -> RunData:
    """What prepared/ holds, as of test time. Raises ArtifactError or DataError."""
    prepared = read_prepared(run)
    return RunData(
        prepared=prepared,
        parts=prepared.parts("test", config),
        train=prepared.history("train", config),
        history=prepared.history("test", config),
        held=asked(prepared, "test"),
        new_items=new_items(prepared, "test") if prepared.cold_items else None,
    )


def bundle_at_test_time(config: Config, run: Path, test: RunData) -> Bundle:
    """The run's bundle with the vectors, index, history and features of test time in place of the serving ones."""
    bundle = load_bundle(run / "bundle")
    if (len(bundle.user_ids), len(bundle.item_ids)) != (test.n_users, test.n_items):
        raise ArtifactError(
            f"{run / 'bundle'} has {len(bundle.user_ids)} users and {len(bundle.item_ids)} items, prepared/ "
            f"{test.n_users} and {test.n_items}: built from different runs. Run 'reckg bundle' again."
        )
    users, items = read_embeddings(run, "test")
    return replace(
        bundle,
        user_vectors=users,
        item_vectors=items,
        index=index_of(users, items, config),
        history=test.history,
        features=feature_tables(config, run, test.prepared, "test"),
        popularity=recent_popularity(replace(test.prepared, interactions=test.prepared.known("test", config))),
    )


def own_systems(bundle: Bundle, held: HeldOut, k: int) -> dict[str, tuple[Recommend, dict[str, Any]]]:
    """reckg as served, the embeddings alone, and the candidates in retrieval order, with their settings."""

    def excluded(user_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return take_rows(held.excluded, np.searchsorted(held.users, user_idx))

    def two_stage(user_idx: np.ndarray) -> ScoredItems:
        return recommend_batch(bundle, user_idx, k, exclude=excluded(user_idx))

    def retrieval(user_idx: np.ndarray) -> ScoredItems:
        return recommend_batch(bundle, user_idx, k, exclude=excluded(user_idx), rerank=False)

    def model(user_idx: np.ndarray) -> ScoredItems:
        return exact_search(bundle.user_vectors[user_idx], bundle.item_vectors, k, seen=excluded(user_idx))

    ranker = bundle.manifest.get("ranker", "served" if bundle.ranker is not None else "none")
    index = {"index": bundle.index.kind, "candidates": bundle.candidates}
    return {
        "reckg": (two_stage, {**index, "ranker": ranker}),
        "model": (model, {"embedding_dim": bundle.item_vectors.shape[1]}),
        "retrieval": (retrieval, index),
    }


def baseline_fits(config: Config, run: Path, test: RunData, popularity: Popularity) -> dict[str, Callable[[], Any]]:
    """The baselines, each fitted and tuned when called, so that one large model is held at a time.

    Where the items are split, item-kNN and EASE find no new item with any setting: they are not tuned; and a random
    order and, where the run has texts, the text kNN join them.
    """
    seed = config.run.seed
    valid: HeldOut | None = None
    more: dict[str, Callable[[], Any]] = {}
    if test.prepared.cold_items:
        more["random"] = lambda: RandomOrder(test.n_items, seed)
        texts = read_text_vectors(run)
        if texts is not None:
            more["text_knn"] = lambda: fit_text_knn(texts)
    else:
        with suppress(DataError):
            valid = asked(test.prepared, "valid")
    most = config.evaluate.linear_items
    return {
        "popularity": lambda: popularity,
        "item_knn": lambda: tune_item_knn(test.train, test.n_items, valid, seed=seed, track=settings_bar("item_knn")),
        "ease": lambda: tune_ease(
            test.train, test.n_items, valid, max_items=most, seed=seed, track=settings_bar("ease")
        ),
        **more,
    }


def settings_bar(name: str) -> Callable[[Sequence[float]], Iterable[float]]:
    """Shows how many of a baseline's settings have been tried."""
    return lambda values: tqdm(values, desc=f"{name}, settings", unit="setting", leave=False)


def build_report(
    config: Config,
    run: Path,
    test: RunData,
    results: dict[str, SystemResult],
    settings: dict[str, dict[str, Any]],
    groups: Any,
) -> dict[str, Any]:
    """Everything measured and everything the run folder tells of how it was made, but for the timing."""
    samples, seed, ks = config.evaluate.bootstrap_samples, config.run.seed, config.evaluate.k
    metric = primary_metric(ks)
    length = np.diff(test.history.indptr)[test.held.users]
    sliced = (metric, metric.replace("ndcg", "recall"))
    split = test.prepared.info.get("split", {})
    triples = run / "graph" / "triples.parquet"
    return {
        "name": test.prepared.info.get("name", ""),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": f"reckg {reckg.__version__}",
        "systems": {n: system_section(n, result, settings[n], samples, seed) for n, result in results.items()},
        "comparisons": comparison_section(results, samples, seed),
        "slices": {
            "history_length": history_slices(results, length, sliced, samples, seed),
            "item_popularity": popularity_slices(results, groups, samples, seed),
        },
        "protocol": protocol_section(
            test.held, test.parts, str(split.get("kind", "unknown")), test.n_items, ks, samples, seed
        ),
        "leakage_checks": checks_from_preparation(test.prepared.info.get("checks"))
        + leakage_checks(
            test.prepared.interactions,
            pl.read_parquet(triples, columns=["head", "tail"]) if triples.is_file() else None,
            test.held,
            test.parts,
            results,
            test.n_users,
            test.n_items,
        ),
        "data": data_section(run, test),
        "training": read_lines(run / "model" / "log.jsonl"),
        "ranker": read_object(run / "ranker" / "ranker.json").get("info", {}),
    }


def new_items_section(
    config: Config,
    test: RunData,
    among: dict[str, SystemResult],
    everywhere: dict[str, SystemResult],
    settings: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The report's section on new items."""
    assert test.new_items is not None
    counts = {
        "new_items": len(test.new_items),
        "other_new_items": len(new_items(test.prepared, "valid")),
        "items": test.n_items,
        "new_interactions": int((test.prepared.interactions["split"] == "test").sum()),
        "interactions": len(test.prepared.interactions),
    }
    samples, seed, ks = config.evaluate.bootstrap_samples, config.run.seed, config.evaluate.k
    return cold_items_section(among, everywhere, settings, test.held, counts, ks, samples, seed)


def data_section(run: Path, test: RunData) -> dict[str, Any]:
    """What the data are: source, split and counts of the preparation and the graph."""
    size = test.prepared.interactions.group_by("split").len()
    parts = dict(zip(size["split"].to_list(), size["len"].to_list(), strict=True))
    known = ("source", "licence", "time", "split", "counts", "data_hash")
    graph = read_object(run / "graph" / "graph.json")
    return {
        "users": test.n_users,
        "items": test.n_items,
        "interactions": {part: parts.get(part, 0) for part in ("train", "valid", "test")},
        **{name: test.prepared.info[name] for name in known if test.prepared.info.get(name) not in (None, "")},
        **{f"graph_{name}": graph[name] for name in ("n_entities", "counts") if name in graph},
    }


def read_timing(run: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of the stages that are done, from state.json; empty without one."""
    stages = read_object(run / "state.json").get("stages", {})
    return {
        name: {"seconds": stage["seconds"], "peak_memory_mb": stage.get("peak_memory_mb", 0.0)}
        for name, stage in stages.items()
        if stage.get("seconds") and name != "evaluate"
    }


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file. Raises ArtifactError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
    return value if isinstance(value, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line; empty where there is no such file."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error


def stage_counts(report: dict[str, Any]) -> dict[str, Any]:
    """What the log line of the stage says."""
    metric = report["protocol"]["primary_metric"]
    systems = report.get("cold_items", report)["systems"]
    return {
        "users": report["protocol"]["test"]["users"],
        **{f"{name} {metric}": round(s["test"][metric]["mean"], 4) for name, s in systems.items()},
    }
