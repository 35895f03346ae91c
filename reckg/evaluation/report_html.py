"""report.html: one page without anything from the network, for light and dark screens and for phones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from reckg.evaluation.report_svg import Line, Mark, bar_chart, dot_plot, line_chart

Report = Mapping[str, Any]

OWN = ("reckg", "model", "retrieval")

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbf9;--card:#fff;--ink:#1c1c1a;--soft:#62625c;--line:#e4e3de;--ours:#1f6fd0;
--own:#7fb0e8;--base:#86857e;--rival:#d0650f;--good:#18794e;--bad:#c0292c}
@media(prefers-color-scheme:dark){:root{--bg:#161615;--card:#1f1f1d;--ink:#ecebe6;--soft:#a5a49c;--line:#35342f;
--ours:#5aa2f2;--own:#3f6ea6;--base:#8e8d85;--rival:#f0934a;--good:#4cc38a;--bad:#ff6b6b}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1000px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.5rem;margin:0 0 4px}h2{font-size:1.15rem;margin:36px 0 6px}h3{font-size:1rem;margin:20px 0 4px}
p{margin:6px 0;max-width:75ch}.soft{color:var(--soft);font-size:.9rem}
.verdict{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--base);border-radius:8px;
padding:12px 16px;font-size:1.08rem;margin:14px 0;max-width:none}
.verdict.good{border-left-color:var(--good)}.verdict.bad{border-left-color:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:14px;margin:10px 0}
.plots>div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px}
svg{display:block;width:100%;max-width:470px;height:auto;margin:0 auto;font-size:12px}
text{fill:var(--ink)}.title{font-weight:600;font-size:13px}.tick{fill:var(--soft);font-size:11px}
.strong{font-weight:700}.value{font-variant-numeric:tabular-nums}
.grid{stroke:var(--line)}.zero{stroke:var(--soft)}
.span{stroke-width:2.5;stroke-linecap:round}.line{fill:none;stroke-width:2}
.dot{stroke:var(--card);stroke-width:1}
.dot.ours{fill:var(--ours)}.span.ours,.line.ours{stroke:var(--ours)}
.dot.own{fill:var(--own)}.span.own,.line.own{stroke:var(--own)}
.dot.base{fill:var(--base)}.span.base,.line.base{stroke:var(--base)}
.dot.rival{fill:var(--rival)}.span.rival{stroke:var(--rival)}.bar{fill:var(--ours)}
.key{display:inline-flex;align-items:center;gap:6px;margin-right:16px;font-size:.9rem}
.key i{width:11px;height:11px;border-radius:50%;display:inline-block}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;margin:10px 0}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th{font-weight:600;color:var(--soft)}.words th,.words td{text-align:left}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;
background:var(--card)}tr:last-child td{border-bottom:0}td.text{white-space:normal;text-align:left;min-width:14rem}
td small{display:block;color:var(--soft);font-size:.74rem}td.best{font-weight:700}
.ok{color:var(--good);font-weight:600}.no{color:var(--bad);font-weight:700}
"""


def render_html(report: Report) -> str:
    """The page of a report as `report.write_report` completes it; sections that it lacks are left out."""
    name = escape(str(report.get("name", "")))
    sections = [
        _new_items(report),
        _systems(report),
        _differences(report),
        *[_slice(report, part) for part in report.get("slices", {}).values()],
        _training(report.get("training") or []),
        _ranker(report.get("ranker") or {}),
        _checks(report.get("leakage_checks") or []),
        _protocol(report["protocol"]),
        _settings(report["systems"]),
        _data(report.get("data") or {}),
        _timing(report.get("timing") or {}),
    ]
    made = " · ".join(escape(str(report[key])) for key in ("created", "version") if report.get(key))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Evaluation {name}</title><style>{STYLE}</style></head><body><main>"
        f'<p class="verdict {_mood(report)}">{escape(report["verdict"])}</p>'
        f'<h1>Evaluation{": " + name if name else ""}</h1><p class="soft">{made}</p>'
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n"
    )


def metric_label(metric: str) -> str:
    """ "ndcg@10" -> "NDCG@10", "recall@10" -> "Recall@10"."""
    name, _, k = metric.partition("@")
    return f"{name.upper() if name in ('ndcg', 'mrr') else name.capitalize()}@{k}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: bool = False) -> str:
    """An HTML table that scrolls sideways where it is too wide; of words: aligned left, else numbers, aligned right.

    Cells are HTML: a cell may be a whole <td>.
    """
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    kind = "scroll words" if words else "scroll"
    return f'<div class="{kind}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _mood(report: Report) -> str:
    if any(check["passed"] is False for check in report.get("leakage_checks") or []):
        return "bad"
    part = report.get("cold_items", report)  # what the verdict is about
    found = part["comparisons"][part["best_baseline"]][report["protocol"]["primary_metric"]]
    return "good" if found["low"] > 0 else "bad" if found["high"] < 0 else ""


def _kind(system: str) -> str:
    return "ours" if system == "reckg" else "own" if system in OWN else "base"


def _mark(values: Mapping[str, float], kind: str, name: str = "") -> Mark:
    return Mark(values["mean"], values["low"], values["high"], kind, name)


def _plots(plots: Iterable[str]) -> str:
    return '<div class="plots">' + "".join(f"<div>{plot}</div>" for plot in plots if plot) + "</div>"


def _plotted_metrics(report: Report) -> list[str]:
    ks = report["protocol"]["k"]
    wanted = [k for k in (10, 20) if k in ks] or sorted(ks)[:2]
    return [f"{name}@{k}" for k in wanted for name in ("ndcg", "recall")]


def _systems(report: Report) -> str:
    systems = report["systems"]
    plots = [
        dot_plot(
            metric_label(metric),
            [(s["label"], [_mark(s["test"][metric], _kind(name))]) for name, s in systems.items()],
        )
        for metric in _plotted_metrics(report)
    ]
    metrics = list(next(iter(systems.values()))["test"])
    top = {m: max(s["test"][m]["mean"] for s in systems.values()) for m in metrics}
    ks = report["protocol"]["k"]
    tables = []
    for k in ks:
        chosen = [m for m in metrics if m.endswith(f"@{k}")]
        rows = [
            [escape(s["label"]), *(_cell(s["test"][m], s["test"][m]["mean"] == top[m]) for m in chosen)]
            for s in systems.values()
        ]
        tables.append(table(["system", *(metric_label(m) for m in chosen)], rows))
    legend = "".join(
        f'<span class="key"><i style="background:var(--{kind})"></i>{text}</span>'
        for kind, text in (("ours", "reckg, as served"), ("own", "its stages alone"), ("base", "baselines"))
    )
    does = "".join(f"<li><b>{escape(s['label'])}</b>: {escape(s['does'])}</li>" for s in systems.values())
    return (
        f"<h2>Systems on the test part</h2><p>{legend}</p>{_plots(plots)}"
        f'<p class="soft">Dots are means over users, lines 95% intervals.</p>{"".join(tables)}'
        f'<ul class="soft">{does}</ul>'
    )


def _new_items(report: Report) -> str:
    """Systems among the new items alone, and what place these have in the ranking of all."""
    part = report.get("cold_items")
    if part is None:
        return ""
    systems, ks = part["systems"], report["protocol"]["k"]
    shown = [m for m in _plotted_metrics(report) if m in next(iter(systems.values()))["test"]]
    hits = [f"hit@{metric.split('@')[1]}" for metric in shown if metric.startswith("ndcg")]
    places = [f"exposure@{k}" for k in ks]
    plots = [
        dot_plot(title, [(s["label"], [_mark(s[where][metric], _kind(name))]) for name, s in systems.items()])
        for where, metric, title in (
            ("test", shown[0], f"{metric_label(shown[0])} among new items"),
            ("all", places[0], f"{metric_label(places[0])} of new items among all"),
        )
    ]
    tables = []
    for where, metrics in (("test", [*shown, *hits]), ("all", [f"recall@{k}" for k in ks] + places)):
        top = {m: max(s[where][m]["mean"] for s in systems.values()) for m in metrics}
        rows = [
            [escape(s["label"]), *(_cell(s[where][m], s[where][m]["mean"] == top[m]) for m in metrics)]
            for s in systems.values()
        ]
        said = {"test": "Among new items alone:", "all": "In the ranking of all items:"}[where]
        tables.append(f'<p class="soft">{said}</p>' + table(["system", *(metric_label(m) for m in metrics)], rows))
    words = "".join(f"<li>{escape(word)}</li>" for word in part["words"])
    return f"<h2>New items</h2><ul>{words}</ul>{_plots(plots)}{''.join(tables)}"


def _cell(values: Mapping[str, float], best: bool) -> str:
    kind = ' class="best"' if best else ""
    return f"<td{kind}>{values['mean']:.4f}<small>{values['low']:.4f} to {values['high']:.4f}</small></td>"


def _differences(report: Report) -> str:
    systems, comparisons = report["systems"], report["comparisons"]
    metrics = _plotted_metrics(report)
    # Popularity is so far below that its row would squeeze the others; the table has it.
    plotted = [name for name in comparisons if name != "popularity" or report["best_baseline"] == name]
    plots = [
        dot_plot(
            f"{metric_label(metric)}: reckg minus …",
            [(systems[name]["label"], [_mark(comparisons[name][metric], _kind(name))]) for name in plotted],
            signed=True,
            zero=True,
        )
        for metric in (metrics[0], metrics[-1])
    ]
    rows = [
        [
            escape(systems[name]["label"]),
            *(
                f"<td>{found[m]['mean']:+.4f}<small>{found[m]['low']:+.4f} to {found[m]['high']:+.4f}, "
                f"p {found[m]['p']:.3f}</small></td>"
                for m in metrics
            ),
        ]
        for name, found in comparisons.items()
    ]
    return (
        "<h2>Paired differences</h2><p>Both systems on the same users. Where the interval holds zero, these users do "
        f"not tell which of the two is better.</p>{_plots(plots)}"
        + table(["reckg minus", *(metric_label(m) for m in metrics)], rows)
    )


def _slice(report: Report, part: Report) -> str:
    rows = part["rows"]
    if not rows:
        return ""
    systems, best = report["systems"], report["best_baseline"]
    metrics = list(rows[0]["systems"]["reckg"])
    plots = []
    for metric in metrics:
        marks = [
            (
                row["name"].split(" (")[0],
                [
                    _mark(row["systems"]["reckg"][metric], "ours", "reckg"),
                    _mark(row["systems"][best][metric], "rival", systems[best]["label"]),
                ],
            )
            for row in rows
        ]
        plots.append(dot_plot(metric_label(metric), marks))
    body = [
        [
            escape(row["name"]),
            f"<td>{row['users']:,}</td>",
            *(_cell(row["systems"][name][metrics[0]], False) for name in systems),
        ]
        for row in rows
    ]
    legend = (
        '<span class="key"><i style="background:var(--ours)"></i>reckg (value at the right)</span>'
        '<span class="key"><i style="background:var(--rival);border-radius:2px"></i>'
        f"{escape(systems[best]['label'])}, the best baseline</span>"
    )
    return (
        f"<h2>{escape(part['title'])}</h2><p>{escape(part['explanation'])}</p><p>{legend}</p>{_plots(plots)}"
        f'<p class="soft">{metric_label(metrics[0])} of every system:</p>'
        + table(["group", "users", *(s["label"] for s in systems.values())], body)
    )


def _training(log: Sequence[Report]) -> str:
    rows = [_flat(row) for row in log]
    names = [
        n
        for n in dict.fromkeys(n for row in rows for n in row)
        if "loss" in n or "ndcg" in n or "valid" in n or "@" in n
    ]
    plots = []
    for name in sorted(names, key=lambda n: "loss" in n):
        points = [(float(row.get("epoch", i + 1)), row[name]) for i, row in enumerate(rows) if name in row]
        x, y = [p[0] for p in points], [p[1] for p in points]
        if "loss" in name and not any(y):
            continue
        best = None if "loss" in name else max(range(len(y)), key=y.__getitem__)
        label = name.replace("_", " ").replace("ndcg", "NDCG")
        plots.append(line_chart(label, [Line(x, y, "base" if "loss" in name else "ours", best)], "epoch"))
    if not plots:
        return ""
    note = "The marked point is the best epoch on validation: its weights are used."
    return f'<h2>Training</h2><p class="soft">{len(rows)} epochs. {note}</p>{_plots(plots)}'


def _flat(row: Report, before: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[before + name] = float(value)
    return found


def _ranker(info: Report) -> str:
    if not info:
        return ""
    importance = {str(name): float(value) for name, value in (info.get("gain") or {}).items()}
    total = sum(importance.values()) or 1.0
    order = sorted(importance.items(), key=lambda entry: -entry[1])[:15]
    plot = bar_chart("Share of the gain, top features", [(n, v / total) for n, v in order], lambda v: f"{v:.1%}")
    facts = [
        [escape(name.replace("_", " ")), f'<td class="text">{_value(value)}</td>']
        for name, value in info.items()
        if name != "gain"
    ]
    return f"<h2>Ranker</h2>{_plots([plot]) if order else ''}{table(['', 'value'], facts)}"


def _checks(checks: Sequence[Report]) -> str:
    said = {True: '<span class="ok">✓ passed</span>', False: '<span class="no">✗ failed</span>', None: "note"}
    rows = [
        [
            said[check["passed"]],
            f'<td class="text">{escape(check["name"])}</td>',
            f'<td class="text">{escape(check["detail"])}</td>',
        ]
        for check in checks
    ]
    return "<h2>Leakage checks</h2>" + table(["", "check", "numbers"], rows, words=True) if rows else ""


def _protocol(protocol: Report) -> str:
    return "<h2>Protocol</h2><ul>" + "".join(f"<li>{escape(word)}</li>" for word in protocol["words"]) + "</ul>"


def _settings(systems: Report) -> str:
    rows = [
        [escape(s["label"]), f'<td class="text">{_value(s["settings"])}</td>', f"<td>{s['seconds']:.1f} s</td>"]
        for s in systems.values()
    ]
    return "<h2>Settings of the systems</h2>" + table(["system", "settings", "lists made in"], rows, words=True)


def _data(data: Report) -> str:
    rows = [[escape(name.replace("_", " ")), f'<td class="text">{_value(value)}</td>'] for name, value in data.items()]
    return "<h2>Data</h2>" + table(["", "value"], rows, words=True) if rows else ""


def _timing(timing: Report) -> str:
    if not timing:
        return ""
    bars = [(name.replace("_", " "), float(stage["seconds"])) for name, stage in timing.items()]
    rows = [
        [
            escape(name.replace("_", " ")),
            f"<td>{stage['seconds']:,.1f}</td>",
            f"<td>{stage['peak_memory_mb']:,.0f}</td>" if stage.get("peak_memory_mb") else "<td></td>",
        ]
        for name, stage in timing.items()
    ]
    plot = bar_chart("Seconds of each stage", bars, lambda v: f"{v:,.1f}")
    note = "Peak memory is of the process, up to the end of the stage."
    return (
        f"<h2>Time and memory</h2>{_plots([plot])}"
        + table(["stage", "seconds", "peak MB"], rows)
        + f'<p class="soft">{note}</p>'
    )


def _value(value: Any) -> str:
    """A setting or a count as HTML text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{escape(str(k).replace('_', ' '))} {_value(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(entry) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(str(value))
