"""Findings from a log of served recommendations, in words and in Markdown tables."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from reckg.evaluation.logs.counterfactual import Estimates, NoEstimate
from reckg.evaluation.logs.interleaving import Preference, RewardsApart
from reckg.metrics.significance import Interval

MIN_SAMPLE = 200  # effective rows below which the estimates are unreliable: a rule of thumb
Match = Literal["place", "list"]  # the event of a propensity: the item at its place, or anywhere in the list
TOP_SHARE = 0.5  # share of all weight on the heaviest hundredth of the rows, above which they are unreliable too

ASSUMPTIONS: dict[Match, str] = {
    "place": "What a shown item earns depends on the request, the item and its place, not on the other items of the "
    "list; the propensity is the probability that this item was put at this place (item-position model, Li et al. "
    "2018, arXiv:1804.10488).",
    "list": "What a shown item earns depends on the request and the item, neither on its place nor on the other items; "
    "the propensity is the probability that this item was shown at all.",
}
ALWAYS = (
    "Propensities are the true probabilities of the system that served, given all that it knew of the request.",
    "The system is asked as it would be served for the user now; what happened after its data ended changes nothing "
    "in its answer.",
)
Shown = Literal["logged", "ips", "snips", "dr", "dr_minus_logged"]
ESTIMATES: dict[Shown, str] = {
    "logged": "what the log earned",
    "ips": "IPS",
    "snips": "SNIPS",
    "dr": "doubly robust",
    "dr_minus_logged": "doubly robust minus logged",
}
_COUNTS = {
    "files": "files of the log",
    "rows": "shown items",
    "requests": "requests",
    "repeated": "rows that repeat another word for word; left out",
    "events": "events",
    "events_unmatched": "events of an item that was not shown; they count for nothing",
    "events_outside_window": "events before their request or after the window; they count for nothing",
    "requests_unknown_user": "requests of users that the bundle does not know; left out",
    "requests_too_early": "requests not later than the bundle's last interaction; left out",
    "requests_without_propensity": "requests with a propensity that is missing or 0; left out",
    "requests_used": "requests that the estimates rest on",
    "rows_used": "shown items of these requests",
    "rows_unknown_item": "of these, items that the bundle does not know; the system never shows them",
}


class Counterfactual(TypedDict):
    """Estimated rewards of the run's system, and the rows that they rest on.

    Args:
        matched_rows: rows whose item the system would show.
        cluster: of the bootstrap: request or user.
        clip: greatest weight; None: no bound.
    """

    estimates: Estimates
    rows: int
    matched_rows: int
    items_per_request: float
    cluster: str
    clusters: int
    effective_sample_size: float
    top_weight_share: float
    largest_weight: float
    clip: float | None
    clipped_rows: int
    bootstrap_samples: int
    seed: int


class Interleaving(Preference):
    """Requests that show items of two variants."""

    names: list[str]
    cluster: str


class Variants(RewardsApart):
    """Two variants that served different requests, and the requests of each."""

    names: list[str]
    cluster: str
    requests: list[int]


class LogReport(TypedDict):
    """The content of log.json.

    Args:
        served_by: requests by the bundle's version.
        match: the event of a propensity.
        counts: of _COUNTS.
        time_is_known: whether the run's data has UTC times.
        no_estimate: why ``counterfactual`` is None.
    """

    format: int
    name: str
    created: str
    version: str
    bundle_version: str
    served_by: dict[str, int]
    match: Match
    assumptions: list[str]
    counts: dict[str, int]
    notes: list[str]
    time_is_known: bool
    counterfactual: Counterfactual | None
    interleaving: Interleaving | None
    variants: Variants | None
    no_estimate: NotRequired[str]
    warnings: list[str]
    verdict: str


def log_warnings(report: LogReport) -> list[str]:
    """Writes warnings that a reader needs before believing the figures, a sentence each.

    Args:
        report: as evaluate_log returns it.
    """
    counts, found = report["counts"], report["counterfactual"]
    words = []
    if counts.get("requests_without_propensity"):
        words.append(
            f"{counts['rows_without_propensity']:,} propensities are missing and {counts['rows_zero_propensity']:,} "
            f"are 0, which no shown item can have: {counts['requests_without_propensity']:,} requests were left out. "
            "If they differ from the others, the estimates are biased."
        )
    if counts.get("requests_too_early"):
        words.append(
            f"{counts['requests_too_early']:,} of {counts['requests']:,} requests are not later than the newest "
            "interaction of the bundle: it may have learnt from what they earned. They were left out."
        )
    if counts.get("requests_unknown_user"):
        words.append(
            f"{counts['requests_unknown_user']:,} of {counts['requests']:,} requests are of users that the bundle does "
            "not know (or whose ids were hashed): the estimates say nothing of them."
        )
    if not report["time_is_known"]:
        words.append(
            "The run's data has no UTC times: whether the log is later than what the bundle learnt from could not be "
            "checked. Rewards that the bundle has seen make the estimates meaningless."
        )
    return words if found is None else words + _weight_warnings(found)


def _weight_warnings(found: Counterfactual) -> list[str]:
    words = []
    if found["effective_sample_size"] < MIN_SAMPLE:
        words.append(
            f"The effective sample size is {found['effective_sample_size']:.0f} of {found['rows']:,} shown items, "
            f"below {MIN_SAMPLE}: do not rely on these estimates; their intervals are too narrow. Log more, or let the "
            "serving system explore more."
        )
    if found["top_weight_share"] > TOP_SHARE:
        words.append(
            f"The heaviest 1% of the rows hold {found['top_weight_share']:.0%} of all weight: a few requests decide."
        )
    if not _weights_fit(found):
        words.append(
            f"The mean weight is {value(found['estimates']['mean_weight'])}, and should be 1: the log could not have "
            "shown all that the system would show, or the propensities are wrong or of another kind (--log-match). IPS "
            "and doubly robust are biased."
        )
    if found["clipped_rows"]:
        words.append(
            f"{found['clipped_rows']:,} weights above {found['clip']:g} were clipped to it: less variance, and a bias."
        )
    return words


def _weights_fit(found: Counterfactual) -> bool:
    weight = found["estimates"]["mean_weight"]
    return bool(weight["low"] <= 1 <= weight["high"])


def log_verdict(report: LogReport) -> str:
    """Writes a sentence: whether the system would earn more than the served lists."""
    found = report["counterfactual"]
    if found is None:
        return f"No counterfactual estimate: {report['no_estimate']}."
    if found["effective_sample_size"] < MIN_SAMPLE:
        return f"No verdict: the effective sample size is {found['effective_sample_size']:.0f}, below {MIN_SAMPLE}."
    if not _weights_fit(found):
        return f"No verdict: the mean weight is {value(found['estimates']['mean_weight'])}, and should be 1."
    difference = found["estimates"]["dr_minus_logged"]
    if difference["low"] > 0:
        words = "would earn more than what was served"
    elif difference["high"] < 0:
        words = "would earn less than what was served"
    else:
        words = "shows no clear difference from what was served"
    doubt = " But see the warnings." if report["warnings"] else ""
    return f"The system {words}: {value(difference)} per shown item, doubly robust, 95% interval.{doubt}"


def log_markdown(report: LogReport) -> str:
    """Renders the whole report as Markdown.

    Args:
        report: as evaluate_log returns it.
    """
    lines = [f"# From the log: {report['name'] or report['bundle_version']}", "", report["verdict"], ""]
    if report["warnings"]:
        lines += ["## Warnings", "", *(f"- {warning}" for warning in report["warnings"]), ""]
    if report["counterfactual"] is not None:
        lines += ["## Estimates", "", *estimates_table(report["counterfactual"]), ""]
        lines += [*_weights(report["counterfactual"]), ""]
    for title, lines_of in comparisons(report).items():
        lines += [f"## {title}", "", *(f"- {line}" for line in lines_of), ""]
    lines += ["## Assumptions", "", *(f"- {assumption}" for assumption in report["assumptions"]), ""]
    lines += ["## Counts", "", "| | |", "|---|---|"]
    lines += [
        f"| {words} | {report['counts'][name]:,} |" for name, words in _COUNTS.items() if name in report["counts"]
    ]
    served = ", ".join(f"{version} {requests:,}" for version, requests in report["served_by"].items())
    lines += ["", f"Evaluated: bundle {report['bundle_version']}. Requests by the bundle that served: {served}."]
    lines += [f"- {note}" for note in report["notes"]]
    return "\n".join(lines) + "\n"


def estimates_table(found: Counterfactual) -> list[str]:
    """Lists rewards per shown item, as lines of a Markdown table."""
    lines = ["| reward per shown item | estimate [95% interval] |", "|---|---|"]
    return lines + [f"| {words} | {value(found['estimates'][name])} |" for name, words in ESTIMATES.items()]


def _weights(found: Counterfactual) -> list[str]:
    clip = "not clipped" if found["clip"] is None else f"clipped at {found['clip']:g} ({found['clipped_rows']:,} rows)"
    return [
        f"Effective sample size {found['effective_sample_size']:,.0f} of {found['rows']:,} shown items; the system "
        f"would show {found['matched_rows']:,} of them. Mean weight {value(found['estimates']['mean_weight'])}, "
        f"largest {found['largest_weight']:.4g}, {clip}; the heaviest 1% of the rows hold "
        f"{found['top_weight_share']:.1%} of all weight. Intervals: bootstrap over {found['clusters']:,} "
        f"{found['cluster']}s; a request shows {found['items_per_request']:.1f} items on average."
    ]


def comparisons(report: LogReport) -> dict[str, list[str]]:
    """Describes the comparisons of two variants, a sentence each, by title."""
    found = {}
    if report["interleaving"] is not None:
        found["Interleaving"] = _preference(report["interleaving"])
    if report["variants"] is not None:
        found["Variants"] = _rewards(report["variants"])
    return found


def _rewards(found: Variants) -> list[str]:
    first, second = found["names"]
    asked = found["requests"]
    return [
        f"{first}: {value(found['first'])} a request ({asked[0]:,} requests)",
        f"{second}: {value(found['second'])} a request ({asked[1]:,} requests)",
        f"{second} minus {first}: {value(found['difference'])} a request",
    ]


def _preference(found: Interleaving) -> list[str]:
    first, second = found["names"]
    share = f"; of the decided requests {found['decided_share']:.1%}" if found["decided_share"] is not None else ""
    clear = found["p"] < 0.05
    winner = first if found["clusters_for"] > found["clusters_against"] else second
    return [
        f"{first} against {second}, {found['requests']:,} interleaved requests: {found['wins']:,} won by {first}, "
        f"{found['losses']:,} by {second}, {found['ties']:,} ties, of these {found['nothing_taken']:,} where nothing "
        "was taken",
        f"preference for {first}, ties half: {value(found['preference'])}{share}",
        f"sign test over {found['cluster']}s ({found['clusters_for']:,} for {first}, {found['clusters_against']:,} for "
        f"{second}): p = {found['p']:.3g}; " + (f"{winner} is preferred" if clear else "no clear preference"),
    ]


def value(entry: Interval | NoEstimate) -> str:
    """Formats an estimate with its interval."""
    if entry["mean"] is None:
        return "none (no weight)"
    return f"{entry['mean']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]"
