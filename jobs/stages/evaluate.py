"""Stage evaluate: full-ranking figures of what is served, of its parts and of the baselines, on the test part."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

import reckg
from jobs.run.folder import n_threads, read_embeddings, read_text_vectors
from jobs.run.held_out import asked, new_items
from jobs.run.state import peak_memory_mb
from jobs.run.test_data import RunData, read_run
from jobs.stages.diversity_price import diversity_price
from jobs.stages.evaluate_sections import (
    beyond_sections,
    check_columns,
    data_section,
    filter_words,
    index_figures,
    read_lines,
    read_object,
    read_timing,
    samples_section,
    shap_section,
    slices_section,
)
from jobs.stages.index import index_of
from jobs.stages.table_inputs import feature_tables
from reckg.arrays.ragged_rows import take_rows
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.errors import ArtifactError, DataError
from reckg.evaluation.baselines import Popularity, fit_popularity, recommend_by_scores
from reckg.evaluation.cold_items import (
    RandomOrder,
    Scores,
    cold_items_section,
    evaluate_among,
    fit_text_knn,
    order_as_scores,
)
from reckg.evaluation.leakage import checks_from_preparation, leakage_checks
from reckg.evaluation.protocol import HeldOut, ItemGroups, Recommend, SystemResult, evaluate_system
from reckg.evaluation.report.write import (
    best_baseline,
    primary_metric,
    protocol_section,
    systems_and_comparisons,
    write_report,
)
from reckg.evaluation.slices import popularity_groups, worst_slices
from reckg.evaluation.tuning import tune_als, tune_ease, tune_item_knn, tune_recent_popularity, usual_budget
from reckg.recommend.by_source import recommend_by_source
from reckg.recommend.golden import open_bundle
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted
from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems

System = tuple[Recommend, dict[str, Any]]  # what makes the lists, and the settings that the report prints


@dataclass
class Measured:
    """What has been measured so far, by the system's name; among: over the new items alone, where items are split."""

    results: dict[str, SystemResult] = field(default_factory=dict)
    among: dict[str, SystemResult] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


def evaluate(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes report/ with report.json, .md and .html. ``data`` is not read: the run folder holds all it needs.

    Raises:
        ArtifactError: an earlier stage's output is missing or damaged.
        ConfigError: a column that the configuration names does not exist.
        DataError: the test part asks for nothing.
    """
    began = perf_counter()
    test = read_run(config, run)
    check_columns(config, test)
    popularity = fit_popularity(test.history, test.n_items)
    groups = popularity_groups(fit_popularity(test.train, test.n_items).count)
    bundle = bundle_at_test_time(config, run, test)
    measured = measure_all(config, run, test, bundle, popularity, groups)
    report = build_report(config, run, test, bundle, measured, popularity, groups)
    if test.new_items is not None:
        report["cold_items"] = new_items_section(config, test, measured)
    mine = {"seconds": round(perf_counter() - began, 3), "peak_memory_mb": round(peak_memory_mb(), 1)}
    report["timing"] = read_timing(run) | {"evaluate": mine}
    return stage_counts(write_report(report, run / "report"))


def measure_all(
    config: Config, run: Path, test: RunData, bundle: Bundle, popularity: Popularity, groups: ItemGroups
) -> Measured:
    """Every system over the test part: reckg and its parts, then the baselines, one in memory at a time."""
    ks, n_items, new = config.evaluate.k, test.n_items, test.new_items
    primary_k = int(primary_metric(ks).split("@")[1])
    chance = RandomOrder(n_items, config.run.seed)
    measured = Measured()

    def measure(name: str, recommend: Recommend, scores: Scores, described: dict[str, Any]) -> None:
        with tqdm(total=len(test.held.users), desc=name, unit="user", leave=False) as bar:
            measured.results[name] = evaluate_system(
                recommend,
                test.held.users,
                test.held.relevant,
                ks,
                n_items=n_items,
                excluded=test.held.excluded,
                groups=groups,
                group_k=primary_k,
                watched=new,
                keep=primary_k,
                block_users=config.evaluate.block_users,
                progress=bar.update,
            )
        measured.settings[name] = described
        if new is not None and name != "retrieval":  # which is what is served, for lack of a ranker
            measured.among[name] = evaluate_among(scores, new, test.held, ks, chance)

    whole = own_systems(bundle, test.held, n_items)
    for name, (recommend, described) in own_systems(bundle, test.held, max(ks)).items():
        measure(name, recommend, order_as_scores(whole[name][0], n_items), described)
    for name, fit in baseline_fits(config, run, test, popularity).items():
        fitting = perf_counter()
        model = fit()
        described = {**model.settings, "fit_seconds": round(perf_counter() - fitting, 1)}
        recommend = recommend_by_scores(model, test.history, test.held, n_items, max(ks))
        measure(name, recommend, partial(model.scores, test.history), described)
    return measured


def bundle_at_test_time(config: Config, run: Path, test: RunData) -> Bundle:
    """The run's bundle with the vectors, index, history and features of test time in place of the serving ones."""
    bundle = open_bundle(run / "bundle")
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
    )


def own_systems(bundle: Bundle, held: HeldOut, k: int) -> dict[str, System]:
    """reckg as served and its parts alone, k places each; what the report calls them is in report.SYSTEMS."""

    def excluded(user_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return take_rows(held.excluded, np.searchsorted(held.users, user_idx))

    def two_stage(user_idx: np.ndarray) -> ScoredItems:
        return recommend_batch(bundle, user_idx, Wanted(k, exclude_seen=False, left_out=excluded(user_idx)))

    def retrieval(user_idx: np.ndarray) -> ScoredItems:
        return recommend_batch(
            bundle, user_idx, Wanted(k, exclude_seen=False, left_out=excluded(user_idx), rerank=False)
        )

    def model(user_idx: np.ndarray) -> ScoredItems:
        return exact_search(bundle.user_vectors[user_idx], bundle.item_vectors, k, seen=excluded(user_idx))

    def source(name: str, user_idx: np.ndarray) -> ScoredItems:
        return recommend_by_source(bundle, name, user_idx, k, excluded(user_idx))

    ranker = bundle.manifest.get("ranker", "served" if bundle.ranker is not None else "none")
    index = {"index": bundle.index.kind, "candidates": bundle.candidates}
    return {
        "reckg": (two_stage, {**index, "ranker": ranker}),
        "model": (model, {"embedding_dim": bundle.item_vectors.shape[1]}),
        "retrieval": (retrieval, index),
        **{
            f"source_{name}": (partial(source, name), {"candidates": depth})
            for name, depth in own_sources(bundle).items()
        },
    }


def own_sources(bundle: Bundle) -> dict[str, int]:
    """The sources in use beside the vectors, which the report shows as retrieval, and the candidates of each."""
    depths = {} if bundle.ranker is None else bundle.ranker.depths
    return {name: depth for name, depth in depths.items() if name != "vectors"}


def baseline_fits(config: Config, run: Path, test: RunData, popularity: Popularity) -> dict[str, Callable[[], Any]]:
    """The baselines, each fitted and tuned when called, so that one large model is held at a time.

    Settings are chosen on validation by fits over training; what is measured is fitted over all that is known at test
    time, as reckg's own parts are.

    Where the items are split, the others find no new item with any setting: they are not tuned; and a random order
    and, where the run has texts, the text kNN join them.
    """
    seed, n_items, train = config.run.seed, test.n_items, test.train
    valid = None if test.prepared.cold_items else tuning_part(test)
    known, most = test.history, config.evaluate.linear_items
    common: dict[str, Any] = {"budget": tuning_budget(config, test), "seed": seed, "track": settings_bar()}
    fits: dict[str, Callable[[], Any]] = {"popularity": lambda: popularity}
    if test.prepared.info["time"] == "utc" and "timestamp" in test.prepared.interactions.columns:
        fits["popularity_recent"] = lambda: tune_recent_popularity(train, known, n_items, valid, **common)
    fits |= {
        "item_knn": lambda: tune_item_knn(train, known, n_items, valid, **common),
        "ease": lambda: tune_ease(train, known, n_items, valid, max_items=most, **common),
        "als": lambda: tune_als(train, known, n_items, valid, threads=n_threads(config), **common),
    }
    if test.prepared.cold_items:
        fits["random"] = lambda: RandomOrder(n_items, seed)
        texts = read_text_vectors(run)
        if texts is not None:
            fits["text_knn"] = lambda: fit_text_knn(texts)
    return fits


def tuning_part(test: RunData) -> HeldOut | None:
    """The validation part, where it asks for anything."""
    with suppress(DataError):
        return asked(test.prepared, "valid")
    return None


def tuning_budget(config: Config, test: RunData) -> int:
    """Settings that every baseline may try."""
    return config.evaluate.tuning_settings or usual_budget(test.n_items)


def settings_bar() -> Callable[[str, int], None]:
    """Shows how many of a baseline's settings have been tried."""
    bars: dict[str, Any] = {}

    def track(name: str, total: int) -> None:
        if name not in bars:
            bars[name] = tqdm(total=total, desc=f"{name}, settings", unit="setting", leave=False)
        bars[name].update()
        if bars[name].n == total:
            bars.pop(name).close()

    return track


def build_report(
    config: Config,
    run: Path,
    test: RunData,
    bundle: Bundle,
    measured: Measured,
    popularity: Popularity,
    groups: ItemGroups,
) -> dict[str, Any]:
    """Everything measured and everything the run folder tells of how it was made, but for the timing."""
    samples, seed, ks = config.evaluate.bootstrap_samples, config.run.seed, config.evaluate.k
    metric, results = primary_metric(ks), measured.results
    systems, comparisons = systems_and_comparisons(results, measured.settings, metric, samples, seed)
    best, k = best_baseline(systems, metric), int(metric.split("@")[1])
    figures, beyond = beyond_sections(config, run, test, results, groups, popularity.count, k, bundle.item_vectors)
    for name, found in figures.items():
        systems[name]["beyond"] = found
    slices = slices_section(config, test, results, groups, best, [metric, f"recall@{k}"])
    split = test.prepared.info.get("split", {})
    triples = run / "graph" / "triples.parquet"
    tuned = any("tried" in settings for settings in measured.settings.values())
    return {
        "name": test.prepared.info.get("name", ""),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": f"reckg {reckg.__version__}",
        "systems": systems,
        "comparisons": comparisons,
        "beyond": beyond,
        "slices": slices,
        "worst": worst_slices(slices, metric, best, systems["reckg"]["test"][metric]["mean"]),
        "protocol": protocol_section(
            test.held,
            test.parts,
            str(split.get("kind", "unknown")),
            test.n_items,
            ks,
            samples,
            seed,
            budget=tuning_budget(config, test) if tuned else 0,
            systems=len(comparisons),
            filters=filter_words(test),
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
        "samples": samples_section(config, test, results, bundle, ("reckg", best)),
        "ranker": read_object(run / "ranker" / "ranker.json").get("info", {}),
        "shap": shap_section(run, bundle, test, max(ks), seed),
        "index": index_figures(bundle, test, seed),
        "diversity": diversity_price(bundle, test.held, config),
        "training": read_lines(run / "model" / "log.jsonl"),
        "data": data_section(run, test, bundle),
        "configuration": config.model_dump(mode="json"),
    }


def new_items_section(config: Config, test: RunData, measured: Measured) -> dict[str, Any]:
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
    return cold_items_section(measured.among, measured.results, measured.settings, test.held, counts, ks, samples, seed)


def stage_counts(report: dict[str, Any]) -> dict[str, Any]:
    """What the log line of the stage says."""
    metric = report["protocol"]["primary_metric"]
    systems = report.get("cold_items", report)["systems"]
    return {
        "users": report["protocol"]["test"]["users"],
        **{f"{name} {metric}": round(s["test"][metric]["mean"], 4) for name, s in systems.items()},
    }
