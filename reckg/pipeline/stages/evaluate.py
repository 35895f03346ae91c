"""Stage evaluate: full-ranking figures of the served system, its parts and the baselines, on the test part."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from reckg.config.run_config import Config
from reckg.evaluation.baselines import fit_popularity
from reckg.evaluation.report.contents import Report, Timing
from reckg.evaluation.report.write import write_report
from reckg.evaluation.slices import popularity_groups
from reckg.pipeline.report.beyond import check_columns
from reckg.pipeline.report.build import build_report, new_items_section
from reckg.pipeline.report.sections import read_timing
from reckg.pipeline.report.systems import bundle_at_test_time, measure_all
from reckg.pipeline.run.state import StageCounts, peak_memory_mb
from reckg.pipeline.run.test_data import read_run


def evaluate(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes report/ with report.json, .md and .html. ``data`` is not read: the run folder holds all it needs.

    Raises:
        ArtifactError: an earlier stage's output is missing or damaged.
        ConfigError: a column that the configuration names does not exist.
        DataError: the test part is empty.
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
    mine: Timing = {"seconds": round(perf_counter() - began, 3), "peak_memory_mb": round(peak_memory_mb(), 1)}
    report["timing"] = read_timing(run) | {"evaluate": mine}
    return stage_counts(write_report(report, run / "report"))


def stage_counts(report: Report) -> StageCounts:
    """Picks the figures for the stage's line of the log."""
    metric = report["protocol"]["primary_metric"]
    systems = report.get("cold_items", report)["systems"]
    return {
        "users": report["protocol"]["test"]["users"],
        **{f"{name} {metric}": round(s["test"][metric]["mean"], 4) for name, s in systems.items()},
    }
