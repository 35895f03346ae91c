"""The evaluation report: a dictionary of everything measured, written as report.json, report.md and report.html.

The dictionary, as `write_report` takes it; every interval is {"mean", "low", "high"}, 95% over users:

    systems       name -> label, does, baseline, settings, seconds, short_lists; test: metric@k -> interval;
                  beyond: figure -> interval with "users" (see beyond_accuracy.user_figures), gini, coverage, entropy
    comparisons   name -> metric@k -> interval of reckg minus the system, p; p_holm for the primary metric
    protocol      from `protocol_section`
    beyond        k, likeness, column; exposure: from `exposure_section`, with a provider column
    slices        name -> slice of evaluation.slices; worst: from slices.worst_slices
    cold_items    from cold_items.cold_items_section, if the items are split
    samples       from samples.sample_section
    ranker        the ranker's info; shap: from ranker_explained.explain_ranker
    index         from index_curve.index_section
    leakage_checks, data, training, timing, configuration

    diversity     optional: the price of reranking for diversity. words: list of sentences; k; rows: a list of
                  {"strategy", "settings": text or {name: value}, "ndcg": interval, "price": interval of the strategy's
                  NDCG minus that of the list as ranked (paired), "diversity": interval, "miscalibration": interval or
                  None, "exposure": interval or None (of the providers' Gini index, or the share that the limit is on)},
                  in the order of display; the first is the list as ranked.

``systems``, ``protocol`` and ``comparisons`` are required, all else is optional.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reckg.evaluation.comparison import best_baseline, judgement
from reckg.evaluation.report.html import render_html
from reckg.evaluation.report.markdown import render_markdown
from reckg.evaluation.report.words import metric_label
from reckg.files.atomic_folder import write_atomically

FORMAT = 2


def verdict(report: Mapping[str, Any]) -> str:
    """Writes a plain sentence: does reckg beat the best baseline? A failed leakage check comes first.

    If the items are split, it is about the ranking among new items.
    """
    metric = report["protocol"]["primary_metric"]
    part = report.get("cold_items", report)
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
    among = f", among {part['new_items']:,} new items" if "cold_items" in report else ""
    sentence = (
        f"{opening}: {metric_label(metric)} {ours:.4f} against {theirs:.4f}, a difference of {found['mean']:+.4f} "
        f"(95% interval {found['low']:+.4f} to {found['high']:+.4f}, paired over {users:,} users{among})."
    )
    failed = [check["name"] for check in report.get("leakage_checks", []) if check["passed"] is False]
    if failed:
        sentence = (
            f"Do not trust these figures: {len(failed)} leakage check(s) failed ({'; '.join(failed)}). {sentence}"
        )
    return sentence


def mood(report: Mapping[str, Any]) -> int:
    """Gives the judgement of the verdict; -1 after a failed leakage check."""
    if any(check["passed"] is False for check in report.get("leakage_checks") or []):
        return -1
    part, metric = report.get("cold_items", report), report["protocol"]["primary_metric"]
    return judgement(part["comparisons"][best_baseline(part["systems"], metric)][metric])


def write_report(report: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Writes report.json, report.md and the self-contained report.html, each beside and renamed into place.

    Args:
        report: the dictionary that this module's docstring describes.
        folder: made if missing.
    Returns:
        The report as written: with ``format``, ``verdict``, ``mood`` and ``best_baseline`` in front.
    Raises:
        ValueError: a number is NaN or infinite.
    """
    best = best_baseline(report["systems"], report["protocol"]["primary_metric"])
    first = {"format": FORMAT, "verdict": verdict(report), "mood": mood(report), "best_baseline": best}
    complete = {**first, **report}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False)
    read = json.loads(text)
    written = {"report.json": text + "\n", "report.md": render_markdown(read), "report.html": render_html(read)}
    for name, content in written.items():
        write_atomically(folder / name, content)
    return complete
