"""The sections of report.html on how the figures were made. Each takes the report and returns HTML, or ""."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from reckg.evaluation.report.contents import WrittenReport
from reckg.evaluation.report.page_parts import facts, folded, legend, listed, plots, table
from reckg.evaluation.report.svg import Line, bar_chart, beeswarm, line_chart
from reckg.evaluation.report.words import settings_words, value_words


def training_section(report: WrittenReport) -> str:
    log = report.get("training") or []
    rows = [_flat(row) for row in log]
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if "loss" in n or "ndcg" in n or "@" in n]
    drawn = []
    for name in sorted(names, key=lambda n: "loss" in n):
        points = [(float(row.get("epoch", i + 1)), row[name]) for i, row in enumerate(rows) if name in row]
        x, y = [p[0] for p in points], [p[1] for p in points]
        if "loss" in name and not any(y):
            continue
        best = None if "loss" in name else max(range(len(y)), key=y.__getitem__)
        label = name.replace("_", " ").replace("ndcg", "NDCG").replace("valid", "validation")
        drawn.append(line_chart(label, [Line(x, y, "base" if "loss" in name else "ours", best)], "epoch"))
    if not drawn:
        return ""
    note = "The marked point is the best epoch on validation: its weights are used."
    return f"<p>{len(rows)} epochs. {note}</p>{plots(drawn)}"


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[before + name] = float(value)
    return found


def ranker_section(report: WrittenReport) -> str:
    info = report.get("ranker") or {}
    if not info:
        return ""
    importance = {str(name): float(value) for name, value in (info.get("gain") or {}).items()}
    total = sum(importance.values()) or 1.0
    order = sorted(importance.items(), key=lambda entry: -entry[1])[:12]
    drawn = [bar_chart("Share of the gain in training", [(_spaced(n), v / total) for n, v in order], "{:.1%}".format)]
    shap = report.get("shap") or {}
    features = shap.get("features", [])
    words = ""
    if features:
        drawn.insert(
            0,
            bar_chart("Mean |SHAP| on test", [(_spaced(f["name"]), f["mean_abs"]) for f in features], "{:.3f}".format),
        )
        drawn.append(beeswarm("SHAP of single candidates", [(_spaced(f["name"]), f["points"]) for f in features]))
        words = (
            f"<p>SHAP values say by how much a feature moved a candidate's score, up or down, in the ranker's "
            f"{shap['trees']:,} trees; {shap['rows']:,} candidates of test users. The trees add to a blend of the "
            "sources' scores, in which they are not seen.</p>"
            + legend(
                (("low", "low value of the feature", False), ("high", "high value", False), ("base", "missing", False))
            )
        )
    rest = {n: value_words(v) for n, v in info.items() if n not in ("gain", "why", "served")}
    served = "It is served: " if info.get("served") else "It is not served: "
    why = f"<p>{served}{escape(str(info['why']))}.</p>" if info.get("why") else ""
    return (
        why + words + plots(drawn if order or features else []) + folded("Everything known of the ranker", facts(rest))
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def index_section(report: WrittenReport) -> str:
    curve = report.get("index")
    if not curve:
        return ""
    points = curve["points"]
    own = next(p for p in points if p["own"])
    ways = (
        f"<p>A search for the {curve['k']:,} best of {curve['items']:,} items, {curve['queries']:,} users one by one. "
    )
    if len(points) == 1:
        exact = "exact: nothing is missed" if curve["kind"] == "flat" else f"recall {own['recall']:.4f}"
        return (
            f"{ways}The index is {escape(curve['kind'])}, {exact}; half of the searches take up to "
            f"{own['p50_ms']:.2f} ms, 95% up to {own['p95_ms']:.2f} ms.</p>"
        )
    ordered = sorted(points, key=lambda p: p["p50_ms"])
    chart = line_chart(
        f"Recall@{curve['k']} by milliseconds (median)",
        [Line([p["p50_ms"] for p in ordered], [p["recall"] for p in ordered], "ours", ordered.index(own))],
        "milliseconds",
    )
    rows = [
        [
            escape(value_words(p["effort"])) + (" <b>(this run)</b>" if p["own"] else ""),
            f"{p['recall']:.4f}",
            f"{p['p50_ms']:.3f}",
            f"{p['p95_ms']:.3f}",
        ]
        for p in points
    ]
    return (
        f"{ways}Recall: the share of them that the {escape(curve['kind'])} index finds. The marked point is this "
        "run's.</p>" + plots([chart]) + table(["effort", f"recall@{curve['k']}", "median ms", "95% ms"], rows)
    )


def checks_section(report: WrittenReport) -> str:
    outcome = {True: '<span class="ok">✓ passed</span>', False: '<span class="no">✗ failed</span>', None: "note"}
    rows = [
        [
            outcome[check["passed"]],
            f'<td class="text">{escape(check["name"])}</td>',
            f'<td class="text">{escape(check["detail"])}</td>',
        ]
        for check in report.get("leakage_checks") or []
    ]
    return table(["", "check", "numbers"], rows, words=True) if rows else ""


def protocol_section(report: WrittenReport) -> str:
    return listed(report["protocol"]["words"])


def settings_section(report: WrittenReport) -> str:
    rows = [
        [
            escape(s["label"]),
            f'<td class="text">{escape(value_words(settings_words(s["settings"])))}</td>',
            f"<td>{s['seconds']:.1f} s</td>",
        ]
        for s in report["systems"].values()
    ]
    configuration = report.get("configuration") or {}
    return table(["system", "settings", "lists made in"], rows, words=True) + folded(
        "The run's configuration", facts({f"[{name}]": value_words(v) for name, v in configuration.items()})
    )


def data_section(report: WrittenReport) -> str:
    return facts({name: value_words(value) for name, value in (report.get("data") or {}).items()})


def timing_section(report: WrittenReport) -> str:
    timing = report.get("timing") or {}
    if not timing:
        return ""
    bars = [(_spaced(name), float(stage["seconds"])) for name, stage in timing.items()]
    memory = [(_spaced(n), float(s["peak_memory_mb"])) for n, s in timing.items() if s.get("peak_memory_mb")]
    drawn = [
        bar_chart("Seconds of each stage", bars, "{:,.1f}".format),
        bar_chart("Peak memory in MB, up to its end", memory, "{:,.0f}".format),
    ]
    return plots(drawn) + '<p class="soft">Peak memory is of the process, which several stages may share.</p>'
