"""report.md: the report for a terminal, a wiki or a pull request; the plots are in report.html."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reckg.evaluation.comparison import SystemSection
from reckg.evaluation.report.contents import DiversityFigure, Ranking, WrittenReport
from reckg.evaluation.report.words import (
    BEYOND,
    beyond_figure,
    first_titles,
    headline_metrics,
    metric_label,
    p_words,
    settings_words,
    value_words,
)
from reckg.metrics.significance import Interval


def render_markdown(report: WrittenReport) -> str:
    """Renders the verdict first, then the report's sections.

    Args:
        report: as `report.write_report` completes it.
    """
    made = ", ".join(str(report[key]) for key in ("created", "version") if report.get(key))
    name = report.get("name", "")
    parts = [
        report["verdict"],
        report["protocol"]["words"][0],
        f"# Evaluation{f': {_plain(name)}' if name else ''}" + (f"\n\n{made}" if made else ""),
        *_new_items(report),
        *_systems(report["systems"], headline_metrics(report), "Accuracy"),
        *_differences(report),
        *_worst(report),
        *_beyond(report),
        *_diversity(report),
        *_slices(report),
        *_samples(report),
        *_ranker(report),
        *_index(report),
        *_checks(report),
        "## Protocol",
        _list(report["protocol"]["words"]),
        *_settings(report),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_plain(cell) for cell in head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows)])


def _plain(text: Any) -> str:
    """Escapes a text so that no table and no formatting breaks."""
    for sign in "\\`*_[]<>|#":
        text = str(text).replace(sign, "\\" + sign)
    return " ".join(str(text).split())


def _list(words: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(word)}" for word in words)


def _cell(values: Interval | None, form: str = "{:.4f}") -> str:
    if values is None:
        return ""
    mean, low, high = (form.format(values[name]) for name in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def _systems(
    systems: Mapping[str, SystemSection], metrics: Sequence[str], title: str, where: Ranking = "test"
) -> list[str]:
    shown = [m for m in metrics if m in next(iter(systems.values()))[where]]
    rows = [[s["label"], *(_cell(s[where][m]) for m in shown)] for s in systems.values()]
    return [f"## {title}", _table(["system", *(metric_label(m) for m in shown)], rows), "Means with 95% intervals."]


def _new_items(report: WrittenReport) -> list[str]:
    part = report.get("cold_items")
    if part is None:
        return []
    places = [f"exposure@{k}" for k in report["protocol"]["k"]]
    among = _systems(part["systems"], headline_metrics(report), "New items")
    everywhere = _systems(part["systems"], places, "New items among all", "all")
    return [*among, *everywhere, _list(part["words"])]


def _differences(report: WrittenReport) -> list[str]:
    metrics, primary = headline_metrics(report)[:2], report["protocol"]["primary_metric"]
    rows = [
        [
            report["systems"][name]["label"],
            *(_cell(found[m], "{:+.4f}") for m in metrics),
            p_words(found[primary]["p_holm"]) if "p_holm" in found[primary] else "",
        ]
        for name, found in report["comparisons"].items()
    ]
    note = f"Paired over the same users. p of {metric_label(primary)}: paired t-test, corrected by Holm's method."
    return [
        "## Paired differences",
        _table(["reckg minus", *(metric_label(m) for m in metrics), "corrected p"], rows),
        note,
    ]


def _worst(report: WrittenReport) -> list[str]:
    rows = [
        [
            f"{row['slice']}: {row['name']}",
            f"{row['users']:,}",
            _cell(row["difference"], "{:+.4f}"),
            _cell(row["reckg"]),
            f"{row['baseline']:.4f}",
        ]
        for row in report.get("worst") or []
    ]
    label = report["systems"][report["best_baseline"]]["label"]
    note = f"Groups by the lower end of the difference to {label}; a few look bad by chance."
    return (
        ["## Where it fails worst", note, _table(["group", "users", "difference", "reckg", label], rows)]
        if rows
        else []
    )


def _beyond(report: WrittenReport) -> list[str]:
    systems = [s for s in report["systems"].values() if "beyond" in s]
    if not systems:
        return []
    section = report["beyond"]
    names = [n for n in BEYOND if any(n in s["beyond"] for s in systems)]
    rows = [[s["label"], *(_cell(beyond_figure(s, n), BEYOND[n][3]) for n in names)] for s in systems]
    parts = [
        "## Beside accuracy",
        f"Of the first {section['k']} places. Likeness of items: {_plain(section['likeness'])}."
        + (f" The mix of a list: {_plain(section['column'])}." if section.get("column") else ""),
        _table(["system", *(BEYOND[n][0] for n in names)], rows),
        _list(f"{BEYOND[n][0]}: {BEYOND[n][1]}" for n in names),
    ]
    if section.get("exposure"):
        best = report["best_baseline"]
        head = [
            section["provider_column"],
            "of the catalogue",
            "of what was taken",
            "reckg",
            report["systems"][best]["label"],
        ]
        body = [
            [row["name"], f"{row['catalogue']:.1%}", f"{row['held_out']:.1%}"]
            + [_cell(row["systems"][s], "{:.1%}") for s in ("reckg", best)]
            for row in section["exposure"]
        ]
        parts += ["### Exposure of providers", _table(head, body)]
    return parts


def _diversity(report: WrittenReport) -> list[str]:
    section = report.get("diversity")
    if not section:
        return []
    forms: dict[DiversityFigure, str] = {
        "ndcg": "{:.4f}",
        "price": "{:+.4f}",
        "diversity": "{:.3f}",
        "miscalibration": "{:.3f}",
        "exposure": "{:.3f}",
    }
    rows = [
        [row["strategy"], value_words(row.get("settings", "")), *(_cell(row.get(n), form) for n, form in forms.items())]
        for row in section["rows"]
    ]
    table = _table(["strategy", "settings", f"NDCG@{section.get('k', 10)}", "price in NDCG", *list(forms)[2:]], rows)
    return ["## Diversity and its price", _list(section.get("words", [])), table]


def _slices(report: WrittenReport) -> list[str]:
    best = report["best_baseline"]
    parts = []
    for part in (report.get("slices") or {}).values():
        if not part["rows"]:
            continue
        metric = next(iter(part["rows"][0]["systems"]["reckg"]))
        rows = [
            [
                row["name"],
                f"{row['users']:,}",
                _cell(row["systems"]["reckg"][metric]),
                _cell(row["systems"][best][metric]),
                _cell(row["difference"], "{:+.4f}"),
            ]
            for row in part["rows"]
        ]
        head = ["group", "users", f"{metric_label(metric)} of reckg", report["systems"][best]["label"], "difference"]
        parts += [f"### {_plain(part['title'])}", _plain(part["explanation"]), _table(head, rows)]
    return ["## Groups of users and items", *parts] if parts else []


def _samples(report: WrittenReport) -> list[str]:
    parts = []
    for user in report.get("samples") or []:
        rows = [
            [system, "; ".join(e["title"] + (" ✓" if e["hit"] else "") for e in shown)]
            for system, shown in ((report["systems"][name]["label"], shown) for name, shown in user["lists"].items())
        ]
        history = [f"history, the latest last ({user['history_length']:,} in all)", "; ".join(user["history"])]
        parts += [
            f"### {_plain(user['name'])}",
            _table(["", ""], [history, ["took later", "; ".join(first_titles(user["held_out"]))], *rows]),
        ]
    return ["## Sample users", "Drawn by chance. ✓: the user took it later.", *parts] if parts else []


def _ranker(report: WrittenReport) -> list[str]:
    info = report.get("ranker") or {}
    if not info:
        return []
    state = "served" if info.get("served") else "not served"
    parts = ["## Ranker", _plain(f"It is {state}: {info.get('why', 'no reason is given')}.")]
    features = (report.get("shap") or {}).get("features", [])
    if features:
        rows = [[f["name"].replace("_", " "), f"{f['mean_abs']:.3f}"] for f in features]
        parts.append(_table(["feature", "mean |SHAP| on test candidates"], rows))
    return parts


def _index(report: WrittenReport) -> list[str]:
    curve = report.get("index")
    if not curve:
        return []
    rows = [
        [
            (value_words(p["effort"]) or "exact") + (" (this run)" if p["own"] else ""),
            f"{p['recall']:.4f}",
            f"{p['p50_ms']:.3f}",
            f"{p['p95_ms']:.3f}",
        ]
        for p in curve["points"]
    ]
    return [f"## Index: {curve['kind']}", _table(["effort", f"recall@{curve['k']}", "median ms", "95% ms"], rows)]


def _checks(report: WrittenReport) -> list[str]:
    outcome = {True: "passed", False: "FAILED", None: "note"}
    rows = [[outcome[c["passed"]], c["name"], c["detail"]] for c in report.get("leakage_checks") or []]
    return ["## Leakage checks", _table(["", "check", "numbers"], rows)] if rows else []


def _settings(report: WrittenReport) -> list[str]:
    rows = [[s["label"], value_words(settings_words(s["settings"]))] for s in report["systems"].values()]
    parts = ["## Settings of the systems", _table(["system", "settings"], rows)]
    data = report.get("data") or {}
    if data:
        parts += ["## Data", _table(["", "value"], [[n.replace("_", " "), value_words(v)] for n, v in data.items()])]
    timing = report.get("timing") or {}
    if timing:
        body = [
            [
                n.replace("_", " "),
                f"{t['seconds']:,.1f}",
                f"{t['peak_memory_mb']:,.0f}" if t.get("peak_memory_mb") else "",
            ]
            for n, t in timing.items()
        ]
        parts += ["## Time and memory", _table(["stage", "seconds", "peak MB"], body)]
    return parts
