"""The sections of report.html on the quality of the lists. Each takes the report and returns HTML, or ""."""

from __future__ import annotations

from html import escape

from reckg.evaluation.report.contents import DiversityFigure, Ranking, WrittenReport
from reckg.evaluation.report.page_parts import (
    SYSTEM_LEGEND,
    cell,
    folded,
    kind,
    legend,
    listed,
    mark,
    ours_row,
    plots,
    table,
)
from reckg.evaluation.report.svg import Mark, dot_plot
from reckg.evaluation.report.words import (
    BEYOND,
    beyond_figure,
    choose_plotted_metrics,
    first_titles,
    headline_metrics,
    metric_label,
    p_words,
    value_words,
)
from reckg.evaluation.slices import Slice, SliceRow, WorstRow


def tiles(report: WrittenReport) -> str:
    """Renders the few main figures."""
    part = report.get("cold_items", report)
    systems, metric = part["systems"], report["protocol"]["primary_metric"]
    best = max(
        (name for name in systems if systems[name]["baseline"]), key=lambda n: systems[n]["test"][metric]["mean"]
    )
    ours, theirs = systems["reckg"]["test"], systems[best]["test"]
    k = metric.split("@")[1]
    gain = ours[metric]["mean"] / theirs[metric]["mean"] - 1 if theirs[metric]["mean"] > 0 else None
    tiles = [
        (f"{ours[metric]['mean']:.4f}", f"{metric_label(metric)}: how good the first {k} places are, 1 is perfect"),
        (f"{ours[f'hit@{k}']['mean']:.1%}", f"of the users find something they later took in the first {k} places"),
        (f"{report['protocol']['test']['users']:,}", "users were evaluated"),
    ]
    if gain is not None:
        tiles.insert(
            1, (f"{gain:+.1%}", f"in {metric_label(metric)} against {systems[best]['label']}, the best baseline")
        )
    if f"coverage@{k}" in ours:
        tiles.append((f"{ours[f'coverage@{k}']['mean']:.1%}", f"of the catalogue is in somebody's first {k} places"))
    return (
        '<div class="tiles">' + "".join(f"<div><b>{b}</b><span>{escape(s)}</span></div>" for b, s in tiles) + "</div>"
    )


def systems_section(report: WrittenReport) -> str:
    systems = report["systems"]
    drawn = [
        dot_plot(
            metric_label(metric), [(s["label"], [mark(s["test"][metric], kind(n, s))]) for n, s in systems.items()]
        )
        for metric in choose_plotted_metrics(report)
    ]
    metrics = list(next(iter(systems.values()))["test"])

    def of(chosen: list[str]) -> str:
        top = {m: max(s["test"][m]["mean"] for s in systems.values()) for m in chosen}
        rows = [
            [escape(s["label"]), *(cell(s["test"][m], s["test"][m]["mean"] == top[m]) for m in chosen)]
            for s in systems.values()
        ]
        return table(["system", *(metric_label(m) for m in chosen)], rows, ours=ours_row(systems))

    every = "".join(of([m for m in metrics if m.endswith(f"@{k}")]) for k in report["protocol"]["k"])
    does = "".join(f"<li><b>{escape(s['label'])}</b>: {escape(s['does'])}</li>" for s in systems.values() if s["does"])
    return (
        f"<p>Every system ranks the whole catalogue for each user; what the user took later counts as a hit.</p>"
        f'{legend(SYSTEM_LEGEND)}{plots(drawn)}<p class="soft">Dots are means over users, lines 95% intervals. In the '
        f"tables the best value is bold.</p>{of([m for m in headline_metrics(report) if m in metrics])}"
        f"{folded('All metrics at every cut-off', every)}{folded('What each system does', f'<ul>{does}</ul>')}"
    )


def new_items_section(report: WrittenReport) -> str:
    """Renders the systems among the new items alone, and the new items' places in the ranking of all."""
    part = report.get("cold_items")
    if part is None:
        return ""
    systems, ks = part["systems"], report["protocol"]["k"]
    shown = [m for m in choose_plotted_metrics(report) if m in next(iter(systems.values()))["test"]]
    hits = [f"hit@{metric.split('@')[1]}" for metric in shown if metric.startswith("ndcg")]
    places = [f"exposure@{k}" for k in ks]

    def plot(where: Ranking, metric: str, words: str) -> str:
        marks = [(s["label"], [mark(s[where][metric], kind(name, s))]) for name, s in systems.items()]
        return dot_plot(f"{metric_label(metric)} {words}", marks)

    def of(where: Ranking, metrics: list[str], heading: str) -> str:
        top = {m: max(s[where][m]["mean"] for s in systems.values()) for m in metrics}
        rows = [
            [escape(s["label"]), *(cell(s[where][m], s[where][m]["mean"] == top[m]) for m in metrics)]
            for s in systems.values()
        ]
        head = ["system", *(metric_label(m) for m in metrics)]
        return f'<p class="soft">{heading}</p>' + table(head, rows, ours=ours_row(systems))

    drawn = [plot("test", shown[0], "among new items"), plot("all", places[0], "of new items among all")]
    return f"{listed(part['words'])}{plots(drawn)}{of('test', [*shown, *hits], 'Among new items alone:')}" + of(
        "all", [*(f"recall@{k}" for k in ks), *places], "In the ranking of all items:"
    )


def differences_section(report: WrittenReport) -> str:
    systems, comparisons = report["systems"], report["comparisons"]
    metrics, primary = choose_plotted_metrics(report), report["protocol"]["primary_metric"]
    # A system far below the others would squeeze their rows, and is left to the table.
    level = systems["reckg"]["test"][primary]["mean"]
    plotted = [
        n for n in comparisons if systems[n]["test"][primary]["mean"] > level / 2 or n == report["best_baseline"]
    ]
    drawn = [
        dot_plot(
            f"{metric_label(metric)}: reckg minus …",
            [(systems[n]["label"], [mark(comparisons[n][metric], kind(n, systems[n]))]) for n in plotted],
            signed=True,
            zero=True,
        )
        for metric in dict.fromkeys((primary, metrics[-1]))
    ]
    rows = []
    for name, found in comparisons.items():
        p = found[primary].get("p_holm")
        cells = [cell(found[m], form="{:+.4f}") for m in metrics]
        rows.append([escape(systems[name]["label"]), *cells, p_words(p) if p is not None else ""])
    return (
        "<p>Both systems on the same users: right of zero reckg is better. Where the interval holds zero, these users "
        f"do not tell which of the two is better.</p>{plots(drawn)}"
        + table(["reckg minus", *(metric_label(m) for m in metrics), "corrected p"], rows)
        + f'<p class="soft">Corrected p: the chance of so large a difference in {metric_label(primary)} between '
        f"equally good systems, by a paired t-test, corrected by Holm's method for the {len(comparisons)} comparisons."
        "</p>"
    )


def beyond_section(report: WrittenReport) -> str:
    """Renders coverage, popularity, diversity and similar figures, and the exposure of providers."""
    systems = {name: s for name, s in report["systems"].items() if "beyond" in s}
    if not systems:
        return ""
    section = report["beyond"]
    names = [n for n in BEYOND if any(n in s["beyond"] for s in systems.values())]
    plotted = [n for n in ("coverage", "popularity_lift", "diversity", "miscalibration") if n in names]
    drawn = [
        dot_plot(
            f"{_capital(BEYOND[n][0])}@{section['k']}",
            [(s["label"], [mark(found, kind(x, s))]) for x, s in systems.items() if (found := beyond_figure(s, n))],
            say=BEYOND[n][3].format,
        )
        + f"<p>{escape(_capital(BEYOND[n][1]))}.</p>"
        for n in plotted
    ]
    rows = [
        [escape(s["label"]), *(cell(beyond_figure(s, n), form=BEYOND[n][3]) for n in names)] for s in systems.values()
    ]
    wanted = {1: "more is usually wanted", -1: "less is usually wanted", 0: ""}
    words = [
        f"{_capital(BEYOND[n][0])}: {BEYOND[n][1]}" + (f"; {wanted[BEYOND[n][2]]}." if BEYOND[n][2] else ".")
        for n in names
    ]
    head = ["system", *(BEYOND[n][0] for n in names)]
    return (
        f"<p>Of the first {section['k']} places. Likeness of items: {escape(section['likeness'])}."
        + (f" The mix of a list: {escape(section['column'] or '')}." if section.get("column") else "")
        + f"</p>{legend(SYSTEM_LEGEND)}{plots(drawn)}"
        + folded("All figures", table(head, rows, ours=ours_row(systems)))
        + folded("What they mean", listed(words))
        + _exposure(report)
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _exposure(report: WrittenReport) -> str:
    rows = report["beyond"].get("exposure") or []
    if not rows:
        return ""
    best = report["best_baseline"]
    label = report["systems"][best]["label"]
    drawn = dot_plot(
        f"Share of the places, by {report['beyond']['provider_column']}",
        [
            (row["name"], [mark(row["systems"]["reckg"], "ours", "reckg"), mark(row["systems"][best], "rival", label)])
            for row in rows
        ],
        say="{:.1%}".format,
    )
    body = [
        [
            escape(row["name"]),
            f"{row['catalogue']:.1%}",
            f"{row['held_out']:.1%}",
            cell(row["systems"]["reckg"], form="{:.1%}"),
            cell(row["systems"][best], form="{:.1%}"),
        ]
        for row in rows
    ]
    return (
        "<h3>Exposure of providers</h3><p>What share of the first places each provider's items get, beside its share "
        "of the catalogue and of what the users took.</p>"
        + legend((("ours", "reckg", False), ("rival", label, True)))
        + plots([drawn])
        + table(["provider", "of the catalogue", "of what was taken", "reckg", label], body)
    )


def diversity_section(report: WrittenReport) -> str:
    """Renders the effect and the price of reranking for diversity."""
    section = report.get("diversity")
    if not section:
        return ""
    k = section.get("k", 10)
    forms: dict[DiversityFigure, str] = {
        "ndcg": "{:.4f}",
        "price": "{:+.4f}",
        "diversity": "{:.3f}",
        "miscalibration": "{:.3f}",
        "exposure": "{:.3f}",
    }
    heads: dict[DiversityFigure, str] = {
        "ndcg": f"NDCG@{k}",
        "price": "price in NDCG",
        "diversity": "diversity",
        "miscalibration": "miscalibration",
        "exposure": "exposure",
    }
    shown = [name for name in heads if any(row.get(name) for row in section["rows"])]
    drawn = [
        dot_plot(
            heads[n],
            [
                (row["strategy"], [mark(found, "own" if i else "ours")])
                for i, row in enumerate(section["rows"])
                if (found := row[n])
            ],
            signed=n == "price",
            zero=n == "price",
        )
        for n in ("price", "diversity")
        if n in shown
    ]
    rows = [
        [
            escape(row["strategy"]),
            f'<td class="text">{escape(value_words(row.get("settings", "")))}</td>',
            *(cell(row.get(name), form=forms[name]) for name in shown),
        ]
        for row in section["rows"]
    ]
    return (
        listed(section.get("words", []))
        + plots(drawn)
        + table(["strategy", "settings", *(heads[n] for n in shown)], rows)
    )


def worst_section(report: WrittenReport) -> str:
    worst = report.get("worst") or []
    if not worst:
        return ""
    metric = metric_label(report["protocol"]["primary_metric"])
    label = report["systems"][report["best_baseline"]]["label"]
    drawn = dot_plot(
        f"{metric}: reckg minus {label}",
        [(_group(row), [mark(row["difference"], "ours", f"{row['slice']}: {row['name']}")]) for row in worst],
        signed=True,
        zero=True,
    )
    rows = [
        [
            f'<td class="text">{escape(row["slice"])}: <b>{escape(row["name"])}</b></td>',
            f"{row['users']:,}",
            cell(row["difference"], form="{:+.4f}"),
            cell(row["reckg"]),
            f"{row['baseline']:.4f}",
            f"{row['against_average']:+.4f}",
        ]
        for row in worst
    ]
    return (
        f"<p>The groups of users or items where reckg does worst beside {escape(label)}, the best baseline, ordered by "
        "the lower end of the interval. Among so many groups a few look bad by chance: where the interval holds zero, "
        f"nothing is proven.</p>{plots([drawn])}"
        + table(["group", "users", f"minus {label}", "reckg", label, "reckg minus its average"], rows)
    )


def _group(row: WorstRow) -> str:
    """Describes a group in few words."""
    name = row["name"].split(" (")[0]
    short = {"history_length": f"{name} in history", "item_popularity": f"{name} items", "last_event": f"{name} ago"}
    return short.get(row["key"], f"{row['key'].partition(':')[2]}: {row['name']}")


def slices_section(report: WrittenReport) -> str:
    parts = report.get("slices") or {}
    best = report["systems"][report["best_baseline"]]["label"]
    first = [name for name in parts if ":" not in name]
    shown = "".join(_slice(report, parts[name]) for name in first)
    others = "".join(
        folded(part["title"], _slice(report, part, titled=False)) for name, part in parts.items() if name not in first
    )
    if not shown and not others:
        return ""
    keys = legend((("ours", "reckg (value at the right)", False), ("rival", f"{best}, the best baseline", True)))
    return keys + shown + (f"<h3>By attributes</h3>{others}" if others else "")


def _slice(report: WrittenReport, part: Slice, titled: bool = True) -> str:
    rows = part["rows"]
    if not rows:
        return ""
    systems, best = report["systems"], report["best_baseline"]
    metrics = list(rows[0]["systems"]["reckg"])

    def marks(row: SliceRow, metric: str) -> list[Mark]:
        theirs = row["systems"][best][metric]
        return [mark(row["systems"]["reckg"][metric], "ours", "reckg"), mark(theirs, "rival", systems[best]["label"])]

    drawn = [
        dot_plot(metric_label(metric), [(row["name"].split(" (")[0], marks(row, metric)) for row in rows])
        for metric in metrics
    ]
    body = [
        [
            escape(row["name"]),
            f"<td>{row['users']:,}</td>",
            *(cell(row["systems"].get(name, {}).get(metrics[0])) for name in systems),
        ]
        for row in rows
    ]
    head = ["group", "users", *(s["label"] for s in systems.values())]
    return (
        (f"<h3>{escape(part['title'])}</h3>" if titled else "")
        + f"<p>{escape(part['explanation'])}</p>{plots(drawn)}"
        + folded(f"{metric_label(metrics[0])} of every system, with the number of users", table(head, body))
    )


def samples_section(report: WrittenReport) -> str:
    users = report.get("samples") or []
    if not users:
        return ""
    cards = []
    for user in users:
        columns = [
            f"<div><h4>History, the latest last ({user['history_length']:,} in all)</h4><ul>"
            + "".join(f"<li>{escape(title)}</li>" for title in user["history"])
            + "</ul><h4>Took later</h4><ul>"
            + "".join(f"<li>{escape(title)}</li>" for title in first_titles(user["held_out"]))
            + "</ul></div>"
        ]
        for system, shown in user["lists"].items():
            lines = "".join(
                f'<li class="hit">{escape(entry["title"])} ✓</li>'
                if entry["hit"]
                else f"<li>{escape(entry['title'])}</li>"
                for entry in shown
            )
            columns.append(f"<div><h4>{escape(report['systems'][system]['label'])}</h4><ol>{lines}</ol></div>")
        body = "".join(columns)
        cards.append(f'<div class="user"><h3>{escape(user["name"])}</h3><div class="users">{body}</div></div>')
    return (
        f"<p>{len(users)} users drawn by chance, whatever their lists look like. ✓ and green: the user took it later."
        "</p>" + "".join(cards)
    )
