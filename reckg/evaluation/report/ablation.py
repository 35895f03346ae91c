"""Findings of an ablation, in words and in Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reckg.evaluation.ablation import (
    LEVEL,
    METRIC,
    RECALL,
    AblationReport,
    SeedInterval,
    VariantComparison,
    interval,
    sentences,
)

HEADINGS = {
    "graph": "The graph",
    "graph without text": "The graph, where the model has no texts",
    "text": "The texts",
}


def verdicts(report: AblationReport) -> list[str]:
    """Writes a sentence for every comparison and judgement: where graph, texts and relations help, and where not."""
    out: list[str] = []
    for subject, other in dict.fromkeys((c["subject"], c["other"]) for c in report["comparisons"]):
        mine = [c for c in report["comparisons"] if (c["subject"], c["other"]) == (subject, other)]
        out += sentences(subject, other, mine)
    relations = report.get("relations", [])
    for judgement, words in (
        ("better", "Relations whose triples make the ranking better for all users"),
        ("no clear difference", "Relations whose triples make no clear difference for all users"),
        ("worse", "Relations whose triples make the ranking worse for all users"),
    ):
        clear = judgement != "no clear difference"
        named = [
            r["relation"] + (f" ({interval(r[METRIC])})" if clear else "")
            for r in relations
            if r["judgement"] == judgement
        ]
        if named:
            out.append(f"{words}: {', '.join(named)}.")
    return out


def cautions(report: AblationReport) -> list[str]:
    """Writes cautions for the reader of the verdict: omissions and their reasons, and misleading figures.

    Args:
        report: as ablate returns it.
    """
    reasons = report["skipped"].values()
    names = {why: [name for name, other in report["skipped"].items() if other == why] for why in reasons}
    words = [f"Left out: {', '.join(some)}: {why}." for why, some in names.items()]
    unknown = [f"{name} {count:,}" for name, count in report["items_without_vector"].items() if count]
    if unknown:
        words.append(
            f"Items of which a variant knows nothing, neither interaction nor triple nor text: {', '.join(unknown)}. "
            "They have one score for every user, and stand in the order of the catalogue. Where new items are what "
            "users take, that alone finds cold items."
        )
    families = [[c for c in report["comparisons"] if c["name"] == name] for name in HEADINGS]
    largest = max(len(report.get("relations", [])), *(len(family) for family in families))
    smallest = 2 / (report["bootstrap_samples"] + 1)
    if largest * smallest >= LEVEL:
        words.append(
            f"With {report['bootstrap_samples']:,} bootstrap samples no p-value is below {smallest:.4f}, too coarse "
            f"for {largest} comparisons: raise evaluate.bootstrap_samples."
        )
    return words


def ablation_markdown(report: AblationReport) -> str:
    """Renders the page ablation.md.

    Args:
        report: as ablate returns it.
    """
    lines = [f"# What the graph is worth: {report['name'] or 'ablation'}", ""]
    lines += [f"- {sentence}" for sentence in report["verdict"]]
    lines += [f"- {sentence}" for sentence in cautions(report)]
    lines += ["", "## Figures", "", *_figures(report)]
    for name, heading in HEADINGS.items():
        mine = [c for c in report["comparisons"] if c["name"] == name]
        if mine:
            lines += ["", f"## {heading}", "", *_differences(mine)]
    if report.get("relations"):
        lines += ["", "## Relations", "", *_relations(report)]
    lines += ["", "## Trainings", "", *_trainings(report)]
    if report["shuffle"]:
        lines += ["", "## The shuffled graph", "", *_shuffle(report)]
    lines += ["", "## How it was measured", "", *(f"- {sentence}" for sentence in measured(report))]
    return "\n".join(lines) + "\n"


def measured(report: AblationReport) -> list[str]:
    """Describes how the figures were made."""
    seeds, samples = report["seeds"], report["bootstrap_samples"]
    words = [
        f"{report['users']:,} users, {report['items']:,} items, {report['triples']:,} triples; training seeds "
        f"{', '.join(map(str, seeds))}. The same seed makes the initial weights, the batches and the shuffles.",
        "Every variant is trained with the same settings; the validation part chooses its epoch. The vectors alone are "
        "measured, as of test time: full ranking of all items, without the reranker, by the weights of training: what "
        "a run adds over what is known by then (train.refresh_epochs) is left out for all variants alike.",
        "A user's values are averaged over the seeds. Intervals: 95%, "
        f"{samples:,} bootstrap samples over users; differences are paired over the same users.",
        f"Judged is NDCG@10: better or worse if the p-value is below {LEVEL} after Holm's correction for all rows of a "
        "table and the difference has the same sign with every seed. Recall@20 is told without a test.",
        *(f"{name.capitalize()}: {part['does']}." for name, part in report["slices"].items()),
    ]
    if report.get("relations"):
        words.append(
            "A relation's worth is the NDCG@10 of the whole graph less that of the graph without its triples at "
            "inference, the other shares rescaled. The weights were trained with it: a model trained without may do "
            "better than this one masked. Relations are judged over all users; the other columns have no test."
        )
    return words


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Renders a Markdown table.

    Args:
        head: column names.
        rows: cells.
        left: number of first columns aligned to the left; the others are aligned to the right.
    """
    marks = ["---" if place < left else "---:" for place in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in (head, marks, *rows)]


def _figures(report: AblationReport) -> list[str]:
    parts = report["slices"]
    head = ["NDCG@10", *(f"{name} ({part['users']:,} users)" for name, part in parts.items()), "Recall@20, all users"]
    rows = [
        [
            f"`{name}`: {v['does']}",
            *(_with_seeds(v["test"][p][METRIC]) for p in parts),
            _with_seeds(v["test"]["all users"][RECALL]),
        ]
        for name, v in report["variants"].items()
    ]
    return [*table(head, rows), "", "In brackets: 95% interval over users. In parentheses: lowest to highest seed."]


def _with_seeds(found: SeedInterval) -> str:
    cell = f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
    return cell + (f" ({min(found['by_seed']):.4f} to {max(found['by_seed']):.4f})" if found["by_seed"][1:] else "")


def _differences(comparisons: Sequence[VariantComparison]) -> list[str]:
    head = ["comparison", "slice", "NDCG@10", "lift", "seeds", "p, Holm", "judgement", "Recall@20"]
    rows = [
        [
            f"{c['subject']} over {c['other']}",
            c["slice"],
            interval(c[METRIC]),
            "" if c[METRIC]["lift"] is None else f"{c[METRIC]['lift']:+.1%}",
            " ".join(f"{value:+.4f}" for value in c[METRIC]["by_seed"]),
            f"{c['p_holm']:.3f}",
            c["judgement"],
            interval(c[RECALL]),
        ]
        for c in comparisons
    ]
    return table(head, rows, left=2)


def _relations(report: AblationReport) -> list[str]:
    others = list(report["slices"])[1:]
    head = ["relation", "triples", "worth in NDCG@10, all users", "p, Holm", "judgement", *others]
    rows = [
        [
            f"`{r['relation']}`",
            f"{r['triples']:,}",
            interval(r[METRIC]),
            f"{r['p_holm']:.3f}",
            r["judgement"],
            *(interval(r["slices"][name][METRIC]) for name in others),
        ]
        for r in report["relations"]
    ]
    return table(head, rows)


def _trainings(report: AblationReport) -> list[str]:
    head = ["variant", "seed", "epochs", "best epoch", "validation NDCG@10", "seconds"]
    rows = [
        [f"`{name}`", *(str(n) for n in (t["seed"], t["epochs"], t["best_epoch"], t["valid_ndcg@10"], t["seconds"]))]
        for name, variant in report["variants"].items()
        for t in variant["training"]
    ]
    return table(head, rows)


def _shuffle(report: AblationReport) -> list[str]:
    """Lists the counts of the first seed's shuffle, relations with most triples first."""
    head = ["relation", "triples", "the true graph has them too", "there twice", "loops"]
    counts = sorted(report["shuffle"].items(), key=lambda entry: -entry[1]["triples"])
    rows = [
        [f"`{name}`", f"{c['triples']:,}", f"{c['unchanged']:,}", f"{c['repeated']:,}", f"{c['loops']:,}"]
        for name, c in counts
    ]
    return [
        "Of the first seed. Where few values are common, a shuffle cannot change much, and the difference to it is "
        "less than what the relation is worth.",
        "",
        *table(head, rows),
    ]
