"""The report of a run, put together of the measured systems and of the run's files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.evaluation.baselines import Popularity
from reckg.evaluation.cold_items import ColdItems, NewItemCounts, cold_items_section
from reckg.evaluation.comparison import best_baseline, primary_metric, systems_and_comparisons
from reckg.evaluation.leakage import Check, checks_from_preparation, leakage_checks
from reckg.evaluation.protocol import ItemGroups
from reckg.evaluation.report.contents import Protocol, Report
from reckg.evaluation.report.protocol_words import protocol_section
from reckg.evaluation.slices import worst_slices
from reckg.pipeline.report.beyond import beyond_sections
from reckg.pipeline.report.diversity_price import diversity_price
from reckg.pipeline.report.event_choices import event_words
from reckg.pipeline.report.sections import (
    data_section,
    filter_words,
    index_figures,
    read_lines,
    read_object,
    samples_section,
    shap_section,
)
from reckg.pipeline.report.slices import slices_section
from reckg.pipeline.report.systems import Measured, tuning_budget
from reckg.pipeline.run.held_out import new_items
from reckg.pipeline.run.test_data import RunData
from reckg.version import __version__


def build_report(
    config: Config,
    run: Path,
    test: RunData,
    bundle: Bundle,
    measured: Measured,
    popularity: Popularity,
    groups: ItemGroups,
) -> Report:
    """Puts the report together, without its timing.

    Args:
        run: run folder with the records of training and ranking.
        bundle: as of test time.
        measured: results of every system.
        popularity: counts of the known interactions at test time.
        groups: the items by popularity.
    """
    samples, seed, ks = config.evaluate.bootstrap_samples, config.run.seed, config.evaluate.k
    metric, results = primary_metric(ks), measured.results
    systems, comparisons = systems_and_comparisons(results, measured.settings, metric, samples, seed)
    best, k = best_baseline(systems, metric), int(metric.split("@")[1])
    figures, beyond = beyond_sections(config, run, test, results, groups, popularity.count, k, bundle.item_vectors)
    for name, found in figures.items():
        systems[name]["beyond"] = found
    slices = slices_section(config, test, results, groups, best, [metric, f"recall@{k}"])
    return {
        "name": test.prepared.info.get("name", ""),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": f"reckg {__version__}",
        "systems": systems,
        "comparisons": comparisons,
        "beyond": beyond,
        "slices": slices,
        "worst": worst_slices(slices, metric, best, systems["reckg"]["test"][metric]["mean"]),
        "protocol": _protocol(config, test, measured, len(comparisons)),
        "leakage_checks": _leakage(run, test, measured),
        "samples": samples_section(config, test, results, bundle, ("reckg", best)),
        "ranker": read_object(run / "ranker" / "ranker.json").get("info", {}),
        "shap": shap_section(run, bundle, test, max(ks), seed),
        "index": index_figures(bundle, test, seed),
        "diversity": diversity_price(bundle, test.held, config),
        "training": read_lines(run / "model" / "log.jsonl"),
        "data": data_section(run, test, bundle),
        "configuration": config.model_dump(mode="json"),
    }


def _protocol(config: Config, test: RunData, measured: Measured, systems: int) -> Protocol:
    tuned = any("tried" in settings for settings in measured.settings.values())
    return protocol_section(
        test.held,
        test.parts,
        str(test.prepared.info.get("split", {}).get("kind", "unknown")),
        test.n_items,
        config.evaluate.k,
        config.evaluate.bootstrap_samples,
        config.run.seed,
        budget=tuning_budget(config, test) if tuned else 0,
        systems=systems,
        filters=[*filter_words(test), *event_words(config, test.prepared)],
        events=test.prepared.info["task"]["target_events"] if "task" in test.prepared.info else (),
    )


def _leakage(run: Path, test: RunData, measured: Measured) -> list[Check]:
    triples = run / "graph" / "triples.parquet"
    return checks_from_preparation(test.prepared.info.get("checks")) + leakage_checks(
        test.prepared.interactions,
        pl.read_parquet(triples, columns=["head", "tail"]) if triples.is_file() else None,
        test.held,
        test.parts,
        measured.results,
        test.n_users,
        test.n_items,
    )


def new_items_section(config: Config, test: RunData, measured: Measured) -> ColdItems:
    """Builds the report's section on new items, for a split that keeps whole items out of training."""
    assert test.new_items is not None
    counts: NewItemCounts = {
        "new_items": len(test.new_items),
        "other_new_items": len(new_items(test.prepared, "valid")),
        "items": test.n_items,
        "new_interactions": int((test.prepared.interactions["split"] == "test").sum()),
        "interactions": len(test.prepared.interactions),
    }
    samples, seed, ks = config.evaluate.bootstrap_samples, config.run.seed, config.evaluate.k
    return cold_items_section(measured.among, measured.results, measured.settings, test.held, counts, ks, samples, seed)
