"""The report of everything measured: its verdict, and report.json, report.md and report.html."""

from __future__ import annotations

import json
from pathlib import Path

from reckg.evaluation.comparison import Comparison, best_baseline, judgement
from reckg.evaluation.report.contents import Report, WrittenReport
from reckg.evaluation.report.html import render_html
from reckg.evaluation.report.markdown import render_markdown
from reckg.evaluation.report.words import metric_label
from reckg.files.atomic_folder import write_atomically

FORMAT = 2
FEW_USERS = 30  # test users below which the verdict warns


def verdict(report: Report) -> str:
    """Writes a plain sentence: does reckg beat the best baseline? A failed leakage check comes first.

    If the items are split, it is about the ranking among new items.
    """
    metric = report["protocol"]["primary_metric"]
    new_items = report.get("cold_items")
    part = new_items or report
    systems = part["systems"]
    best = best_baseline(systems, metric)
    found = part["comparisons"][best][metric]
    ours, theirs = systems["reckg"]["test"][metric]["mean"], systems[best]["test"][metric]["mean"]
    name = systems[best]["label"]
    opening = {
        1: f"reckg beats the best baseline, {name}",
        -1: f"reckg is worse than the best baseline, {name}",
        0: f"No clear difference between reckg and the best baseline, {name}",
    }[judgement(found)]
    users = report["protocol"]["test"]["users"]
    among = f", among {new_items['new_items']:,} new items" if new_items else ""
    sentence = (
        f"{opening}: {metric_label(metric)} {ours:.4f} against {theirs:.4f}, a difference of {found['mean']:+.4f} "
        f"({_interval(found)}, paired over {users:,} users{among})."
    )
    if users < FEW_USERS:
        sentence += f" Of so few users ({users:,}) the figures say little."
    failed = [check["name"] for check in report.get("leakage_checks", []) if check["passed"] is False]
    if failed:
        sentence = (
            f"Do not trust these figures: {len(failed)} leakage check(s) failed ({'; '.join(failed)}). {sentence}"
        )
    return sentence


def _interval(found: Comparison) -> str:
    """Describes the interval that the judgement goes by."""
    if "corrected_low" in found:
        ends = f"{found['corrected_low']:+.4f} to {found['corrected_high']:+.4f}"
        return f"95% interval {ends}, corrected for the number of systems"
    return f"95% interval {found['low']:+.4f} to {found['high']:+.4f}"


def mood(report: Report) -> int:
    """Gives the judgement of the verdict; -1 after a failed leakage check."""
    if any(check["passed"] is False for check in report.get("leakage_checks") or []):
        return -1
    part, metric = report.get("cold_items", report), report["protocol"]["primary_metric"]
    return judgement(part["comparisons"][best_baseline(part["systems"], metric)][metric])


def write_report(report: Report, folder: Path) -> WrittenReport:
    """Writes report.json, report.md and the self-contained report.html, each beside and renamed into place.

    Args:
        folder: made if missing.
    Returns:
        The report as written: with ``format``, ``verdict``, ``mood`` and ``best_baseline`` in front.
    Raises:
        ValueError: a number is NaN or infinite.
    """
    best = best_baseline(report["systems"], report["protocol"]["primary_metric"])
    complete: WrittenReport = {
        "format": FORMAT,
        "verdict": verdict(report),
        "mood": mood(report),
        "best_baseline": best,
        **report,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False)
    read = json.loads(text)
    written = {"report.json": text + "\n", "report.md": render_markdown(read), "report.html": render_html(read)}
    for name, content in written.items():
        write_atomically(folder / name, content)
    return complete
