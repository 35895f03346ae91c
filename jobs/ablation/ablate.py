"""The worth of the graph and of the texts: the same training with the true ones, with shuffled ones, and without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import reckg
from jobs.ablation.measure import (
    MEASURE_RELATIONS,
    MEASURE_TEST,
    ablation_part,
    read_lists,
    read_masked,
    relation_counts,
    relation_groups,
)
from jobs.ablation.variants import Variant, build_base, run_variant, variant_folder
from reckg.config.run_config import Config
from reckg.errors import ConfigError
from reckg.evaluation.ablation import (
    AblationReport,
    RelationWorth,
    Slice,
    Training,
    VariantComparison,
    difference,
    judge,
    slices,
    system_figures,
)
from reckg.evaluation.report.ablation import ablation_markdown, verdicts
from reckg.files.atomic_folder import write_atomically
from reckg.graph.shuffle import ShuffleCounts
from reckg.pipeline.run.folder import Prepared, read_prepared, write_json
from reckg.pipeline.run.pipeline import Say
from reckg.pipeline.run.stage_table import Stage
from reckg.pipeline.training.model_inputs import item_texts

FORMAT = 1
PARTS = ("graph", "text", "relations")
TRUE = Variant("true", "the true graph, texts as configured")
VARIANTS = (
    TRUE,
    Variant("graph-shuffled", "tails shuffled within each relation, every degree kept", graph="shuffled"),
    Variant("graph-none", "no triples: users, items and interactions alone", graph="none"),
    Variant("text-shuffled", "the texts dealt out anew among the items that have one", text="shuffled"),
    Variant("text-off", "the true graph, no texts", settings={"text.encoder": "none"}),
    Variant("graph-shuffled-text-off", "shuffled graph, no texts", graph="shuffled", settings={"text.encoder": "none"}),
    Variant("graph-none-text-off", "no triples, no texts", graph="none", settings={"text.encoder": "none"}),
)


@dataclass(frozen=True)
class Question:
    """``ours`` and ``theirs`` are variants; the words make the sentence "<subject> is better than <other> for ..."."""

    name: str
    part: str
    subject: str
    other: str
    ours: str
    theirs: str


QUESTIONS = (
    Question("graph", "graph", "the true graph", "a shuffled one", "true", "graph-shuffled"),
    Question("graph", "graph", "the true graph", "none", "true", "graph-none"),
    Question(
        "graph without text",
        "graph",
        "without texts, the true graph",
        "a shuffled one",
        "text-off",
        "graph-shuffled-text-off",
    ),
    Question("graph without text", "graph", "without texts, the true graph", "none", "text-off", "graph-none-text-off"),
    Question("text", "text", "the model with the true texts", "one with shuffled texts", "true", "text-shuffled"),
    Question("text", "text", "the model with texts", "one without", "true", "text-off"),
)


def ablate(
    config: Config,
    data: Path,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    only: str | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> AblationReport:
    """Trains every variant with every seed, measures the vectors on the test part, and writes their differences.

    Finished variants in the folder are not computed again. ``out`` may be the folder of a run with the same settings:
    its prepared data and graph are used then.

    Args:
        config: of the run; run.seed makes the split, ``seeds`` the trainings and the shuffles.
        only: "graph", "text" or "relations"; None: all.
        overwrite: finished results that no longer fit may be replaced.
        say: receives a line at a time.
    Returns:
        The content of ``out/ablation.json``; ``out/ablation.md`` has it in tables.
    Raises:
        ConfigError: the folder is something else, a seed is given twice, or nothing is left to compare.
    """
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ConfigError(f"the seeds of an ablation must differ, got {','.join(map(str, seeds)) or 'none'}.")
    build_base(config, data, out, overwrite, say)
    prepared = read_prepared(out)
    skipped = _find_skipped(config, out, prepared)
    questions = [q for q in QUESTIONS if only in (None, q.part) and q.ours not in skipped and q.theirs not in skipped]
    masks = only in (None, "relations") and "relations" not in skipped
    if not questions and not masks:
        raise ConfigError("nothing to compare: " + "; ".join(f"{name}: {why}" for name, why in skipped.items()))
    needed = {TRUE.name, *(name for q in questions for name in (q.ours, q.theirs))}
    chosen = [variant for variant in VARIANTS if variant.name in needed]
    unknown: dict[str, int] = {}
    for variant in chosen:
        after: list[Stage] = [MEASURE_TEST, *([MEASURE_RELATIONS] if masks and variant == TRUE else [])]
        for seed in seeds:
            say(f"{variant.name}, seed {seed}: {variant.does}")
            state = run_variant(config, out, variant, seed, after, overwrite=overwrite, say=say)
            unknown[variant.name] = state.stages[MEASURE_TEST.name].counts["items_without_vector"]
    report = _report(config, out, prepared, chosen, questions, masks, seeds)
    report |= {"skipped": skipped, "items_without_vector": unknown}
    report["verdict"] = verdicts(report)
    write_json(out / "ablation.json", report)
    write_atomically(out / "ablation.md", ablation_markdown(report))
    return report


def _find_skipped(config: Config, out: Path, prepared: Prepared) -> dict[str, str]:
    """Finds the variants without a meaning for this data, and why."""
    why: dict[str, str] = {}
    if not sum(relation_counts(out).values()):
        no_graph = "the graph has no triples"
        why |= {variant.name: no_graph for variant in VARIANTS if variant.graph != "true"} | {"relations": no_graph}
    no_text = "text.encoder is 'none'" if config.text.encoder == "none" else ""
    if not no_text and not any(item_texts(prepared)):
        no_text = "the items have no text"
    if no_text:
        why |= {v.name: no_text for v in VARIANTS if v.text != "true" or "text.encoder" in v.settings}
    return why


def _report(
    config: Config,
    out: Path,
    prepared: Prepared,
    chosen: Sequence[Variant],
    questions: Sequence[Question],
    masks: bool,
    seeds: Sequence[int],
) -> AblationReport:
    """Measures the variants. The caller adds the skipped ones and the verdict."""
    held = ablation_part(prepared, "test")
    train = prepared.known("train", config)
    users = train.select("user_idx", "item_idx").unique()["item_idx"].to_numpy()
    length = np.bincount(train["user_idx"].to_numpy(), minlength=len(prepared.users))[held.users]
    parts = slices(held, length, np.bincount(users, minlength=len(prepared.items)))
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    lists = {v.name: [read_lists(variant_folder(out, v, s), "test") for s in seeds] for v in chosen}
    report: AblationReport = {
        "format": FORMAT,
        "name": prepared.info.get("name", ""),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": f"reckg {reckg.__version__}",
        "seeds": list(seeds),
        "bootstrap_samples": samples,
        "users": len(prepared.users),
        "items": len(prepared.items),
        "triples": sum(relation_counts(out).values()),
        "slices": {p.name: {"does": p.does, "users": len(p.rows), "targets": len(p.relevant[1])} for p in parts},
        "variants": {
            v.name: {
                "does": v.does,
                "test": {p.name: system_figures(p, lists[v.name], samples, seed) for p in parts},
                "training": [_training(variant_folder(out, v, s), s) for s in seeds],
            }
            for v in chosen
        },
        "comparisons": _comparisons(questions, lists, parts, samples, seed),
        "shuffle": _shuffle_counts([variant_folder(out, v, s) for v in chosen for s in seeds]),
        "skipped": {},
        "items_without_vector": {},
        "verdict": [],
    }
    if masks:
        masked = [read_masked(variant_folder(out, TRUE, s)) for s in seeds]
        report["relations"] = _relations(out, lists[TRUE.name], masked, parts, samples, seed)
    return report


def _comparisons(
    questions: Sequence[Question], lists: dict[str, list[np.ndarray]], parts: list[Slice], samples: int, seed: int
) -> list[VariantComparison]:
    """Compares variants for every question and slice.

    Args:
        lists: (n, PLACES) lists of every seed, by variant.
        parts: slices of the test users.
    Returns:
        An entry for each question and slice; p values of a question's name are corrected together.
    """
    out: list[VariantComparison] = [
        {
            "name": q.name,
            "part": q.part,
            "subject": q.subject,
            "other": q.other,
            "ours": q.ours,
            "theirs": q.theirs,
            "slice": p.name,
            **difference(p, lists[q.ours], lists[q.theirs], samples, seed),
        }
        for q in questions
        for p in parts
    ]
    for name in dict.fromkeys(q.name for q in questions):
        judge([comparison for comparison in out if comparison["name"] == name])
    return out


def _relations(
    out: Path,
    whole: list[np.ndarray],
    masked: list[dict[str, np.ndarray]],
    parts: list[Slice],
    samples: int,
    seed: int,
) -> list[RelationWorth]:
    """Measures the worth of each relation: the whole graph minus the graph without it, judged over all users."""
    counts = relation_counts(out)
    found: list[RelationWorth] = []
    for name, relations in relation_groups(out).items():
        lists = [by_name[name] for by_name in masked]
        by_slice = {p.name: difference(p, whole, lists, samples, seed) for p in parts}
        triples = sum(counts[relation] for relation in relations)
        found.append({"relation": name, "triples": triples, **by_slice[parts[0].name], "slices": by_slice})
    judge(found)
    return found


def _training(run: Path, seed: int) -> Training:
    counts = json.loads((run / "model" / "train.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (run / "model" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "seed": seed,
        "epochs": counts["epochs"],
        "best_epoch": counts["best_epoch"],
        "valid_ndcg@10": counts["valid_ndcg@10"],
        "seconds": round(sum(row["train_seconds"] for row in log), 1),
    }


def _shuffle_counts(runs: Sequence[Path]) -> dict[str, ShuffleCounts]:
    """Reads the counts of the first shuffled graph, by relation; empty without a shuffled graph."""
    for run in runs:
        description = json.loads((run / "graph" / "graph.json").read_text(encoding="utf-8"))
        if "shuffle" in description:
            return dict(description["shuffle"])
    return {}


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parses seeds.

    Args:
        text: for instance "0,1,2".
    Raises:
        ConfigError: not numbers from 0, separated by commas.
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = (-1,)
    if min(seeds) < 0:
        raise ConfigError(f"--seeds takes whole numbers from 0 separated by commas, such as 0,1,2; got {text!r}.")
    return seeds
