"""The systems that the report compares: reckg as served, its parts alone, and the baselines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from reckg.arrays.ragged_rows import take_rows
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.errors import ArtifactError, DataError
from reckg.evaluation.baselines import Popularity, recommend_by_scores
from reckg.evaluation.cold_items import RandomOrder, Scores, evaluate_among, fit_text_knn, order_as_scores
from reckg.evaluation.comparison import primary_metric
from reckg.evaluation.protocol import HeldOut, ItemGroups, Recommend, SystemResult, SystemSettings, evaluate_system
from reckg.evaluation.tuning import (
    tune_als,
    tune_ease,
    tune_item_knn,
    tune_personal_frequency,
    tune_recent_popularity,
    usual_budget,
)
from reckg.pipeline.ranking.index_choice import index_of
from reckg.pipeline.ranking.table_inputs import feature_tables
from reckg.pipeline.run.folder import n_threads, read_embeddings, read_text_vectors
from reckg.pipeline.run.held_out import held_out_part
from reckg.pipeline.run.test_data import RunData
from reckg.recommend.by_source import recommend_by_source
from reckg.recommend.golden import open_bundle
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted
from reckg.retrieval.scored_items import ScoredItems

System = tuple[Recommend, SystemSettings]  # the function that makes the lists, and the settings that the report prints


@dataclass
class Measured:
    """Results by the system's name. ``among``: over the new items alone, if the split keeps items out of training."""

    results: dict[str, SystemResult] = field(default_factory=dict)
    among: dict[str, SystemResult] = field(default_factory=dict)
    settings: dict[str, SystemSettings] = field(default_factory=dict)


def measure_all(
    config: Config, run: Path, test: RunData, bundle: Bundle, popularity: Popularity, groups: ItemGroups
) -> Measured:
    """Measures every system over the test part: reckg and its parts, then the baselines, one in memory at a time.

    Args:
        bundle: as of test time.
        popularity: counts of the known interactions at test time.
        groups: the items by popularity.
    """
    ks, n_items, new = config.evaluate.k, test.n_items, test.new_items
    primary_k = int(primary_metric(ks).split("@")[1])
    chance = RandomOrder(n_items, config.run.seed)
    measured = Measured()

    def measure(name: str, recommend: Recommend, scores: Scores, described: SystemSettings) -> None:
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
        if new is not None and name != "retrieval":  # without a ranker retrieval is the served system
            measured.among[name] = evaluate_among(scores, new, test.held, ks, chance)

    whole = list_own_systems(bundle, test.held, n_items)
    for name, (recommend, described) in list_own_systems(bundle, test.held, max(ks)).items():
        measure(name, recommend, order_as_scores(whole[name][0], n_items), described)
    for name, fit in baseline_fits(config, run, test, popularity).items():
        fitting = perf_counter()
        model = fit()
        described = {**model.settings, "fit_seconds": round(perf_counter() - fitting, 1)}
        recommend = recommend_by_scores(model, test.history, test.held, n_items, max(ks))
        measure(name, recommend, partial(model.scores, test.history), described)
    return measured


def bundle_at_test_time(config: Config, run: Path, test: RunData) -> Bundle:
    """Opens the run's bundle with the vectors, index, history and features of test time.

    Args:
        run: run folder.
        test: data as of test time.
    Raises:
        ArtifactError: the bundle is of another run.
    """
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


def list_own_systems(bundle: Bundle, held: HeldOut, k: int) -> dict[str, System]:
    """Lists reckg as served and its parts alone, by the names of the report.

    Args:
        bundle: as of test time.
        k: places of a list.
    """

    def excluded(user_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return take_rows(held.excluded, np.searchsorted(held.users, user_idx))

    def two_stage(user_idx: np.ndarray) -> ScoredItems:
        return recommend_batch(bundle, user_idx, Wanted(k, exclude_seen=False, left_out=excluded(user_idx)))

    def retrieval(user_idx: np.ndarray) -> ScoredItems:
        return recommend_batch(
            bundle, user_idx, Wanted(k, exclude_seen=False, left_out=excluded(user_idx), rerank=False)
        )

    def model(user_idx: np.ndarray) -> ScoredItems:
        asked = held.take(np.searchsorted(held.users, user_idx))
        return asked.nearest_items(bundle.user_vectors[user_idx], bundle.item_vectors, k)

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
            for name, depth in count_own_sources(bundle).items()
        },
    }


def count_own_sources(bundle: Bundle) -> dict[str, int]:
    """Counts the candidates of every source in use but the vectors, which the report calls retrieval."""
    depths = {} if bundle.ranker is None else bundle.ranker.depths
    return {name: depth for name, depth in depths.items() if name != "vectors"}


def baseline_fits(config: Config, run: Path, test: RunData, popularity: Popularity) -> dict[str, Callable[[], Any]]:
    """The baselines, each fitted and tuned when called, so that one large model is held at a time.

    Settings are chosen on validation by fits over training; the measured fit is over all that is known at test
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
    if test.held.target != "new":
        fits["personal_frequency"] = lambda: tune_personal_frequency(train, known, n_items, valid, **common)
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
    """Collects the validation part; None if it is empty."""
    with suppress(DataError):
        return held_out_part(test.prepared, "valid")
    return None


def tuning_budget(config: Config, test: RunData) -> int:
    """Returns the number of settings that every baseline may try."""
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
