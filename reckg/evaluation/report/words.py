"""Words of the report that its pages share: names of metrics, and the meaning of the figures beside accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reckg.evaluation.comparison import SystemSection
from reckg.evaluation.protocol import SystemSettings
from reckg.evaluation.report.contents import Report
from reckg.metrics.significance import Interval

UPPER = ("ndcg", "mrr", "map")
TITLES = 9  # most titles of a sample user's later items

# figure -> its name, its meaning, whether more is usually better (0: neither), and the format of a value.
BEYOND: dict[str, tuple[str, str, int, str]] = {
    "coverage": ("coverage", "share of the catalogue that is in anybody's list", 1, "{:.1%}"),
    "gini": ("Gini index", "0: all items have equally many places; 1: one item has all", -1, "{:.3f}"),
    "novelty": ("novelty", "how unlikely it is that a user has met the item, in bits", 1, "{:.2f}"),
    "popularity": ("popularity", "training users of the listed items", 0, "{:.1f}"),
    "popularity_lift": ("popularity lift", "popularity of the list against that of the user's history", 0, "{:+.0%}"),
    "tail": (
        "long tail",
        "places that items of the long tail have (a fifth of all training interactions)",
        0,
        "{:.1%}",
    ),
    "diversity": ("diversity", "how unlike the items of a list are: 1 minus their cosine", 1, "{:.3f}"),
    "serendipity": ("serendipity", "places with a hit that is not among the most popular items", 1, "{:.2%}"),
    "miscalibration": ("miscalibration", "distance of the list's mix from the history's; 0 is the same", -1, "{:.3f}"),
}


def metric_label(metric: str) -> str:
    """Formats a metric: "ndcg@10" -> "NDCG@10", "recall@10" -> "Recall@10"."""
    name, _, k = metric.partition("@")
    return f"{name.upper() if name in UPPER else name.capitalize()}@{k}"


def choose_plotted_metrics(report: Report) -> list[str]:
    """Lists NDCG and recall at the first two cut-offs."""
    ks = report["protocol"]["k"]
    wanted = [k for k in (10, 20) if k in ks] or sorted(ks)[:2]
    return [f"{name}@{k}" for k in wanted for name in ("ndcg", "recall")]


def headline_metrics(report: Report) -> list[str]:
    """Lists the few metrics of the first table: the primary one, and the most common ones."""
    primary = report["protocol"]["primary_metric"]
    k, ks = primary.split("@")[1], report["protocol"]["k"]
    longer = 20 if 20 in ks else max(ks)
    return list(dict.fromkeys([primary, f"recall@{longer}", f"hit@{k}", f"mrr@{k}", f"map@{k}"]))


def beyond_figure(system: SystemSection, name: str) -> Interval | None:
    """Returns a figure of BEYOND of a system; None if it has none."""
    found = system.get("beyond", {}).get(name)
    return None if isinstance(found, float) else found


def settings_words(settings: SystemSettings) -> SystemSettings:
    """Shortens a system's settings for readers: the tried settings as a number, without the ranker's reasons."""
    words: SystemSettings = {}
    for name, value in settings.items():
        if name == "tried":
            value = f"{len(value)} settings"
        elif isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if key != "why"}
        words[name] = value
    return words


def first_titles(titles: Sequence[str]) -> list[str]:
    """Lists a few titles, and the number of others."""
    more = len(titles) - TITLES
    return [*titles[:TITLES], f"and {more:,} more"] if more > 1 else list(titles)


def p_words(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def value_words(value: Any) -> str:
    """Formats a setting or a count as text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{str(k).replace('_', ' ')} {value_words(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(value_words(entry) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
