"""The content of a folder in words: a dataset, a run, or a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reckg.errors import ArtifactError, DataError
from reckg.evaluation.ablation import AblationReport
from reckg.evaluation.cold_items import ColdItems
from reckg.evaluation.comparison import SystemSection
from reckg.evaluation.report.ablation import cautions
from reckg.evaluation.report.contents import Report, WrittenReport
from reckg.pipeline.run.stage_table import STAGES, dataset_files
from reckg.pipeline.run.state import STATE_FILE, RunState


def describe(path: Path) -> str:
    """Describes a dataset folder, a run folder or a bundle.

    Raises:
        DataError: the folder is none of these.
        ArtifactError: a file in it is damaged.
    """
    if (path / STATE_FILE).is_file():
        return describe_run(path)
    if (path / "manifest.json").is_file():
        return describe_bundle(path)
    if path.is_dir():
        try:
            dataset_files(path)
        except DataError:
            pass
        else:
            return describe_dataset(path)
    raise DataError(f"{path} is no dataset folder, no run folder and no bundle of reckg.")


def describe_dataset(path: Path) -> str:
    """Lists the tables with their row counts and columns."""
    import polars as pl

    from reckg.data.log_summary import summarize_log
    from reckg.data.read import read_dataset

    dataset, notes = read_dataset(path)
    lines = [f"dataset {dataset.name or path.name!r} in {path}"]
    if dataset.source:
        lines.append(f"  source: {dataset.source}")
    if dataset.licence:
        lines.append(f"  licence: {dataset.licence}")
    lines.append(f"  time: {dataset.time}")
    lines += [f"  {line}" for line in summarize_log(dataset.interactions, dataset.time).lines()]
    for name in ("interactions", "items", "users", "triples", "links"):
        frame = getattr(dataset, name)
        if frame is not None:
            rows = frame.select(pl.len()).collect().item()
            lines.append(f"  {name}: {rows:,} rows; columns {', '.join(frame.collect_schema().names())}")
    for owner, kinds in (("items", dataset.item_columns), ("users", dataset.user_columns)):
        named = [
            f"{kind} {', '.join(getattr(kinds, kind))}"
            for kind in ("text", "categorical", "number", "list")
            if getattr(kinds, kind)
        ]
        if named:
            lines.append(f"  attributes of {owner}: {'; '.join(named)}")
    lines += [f"  note: {note}" for note in notes]
    return "\n".join(lines)


def describe_run(path: Path) -> str:
    """Lists the stages with their state, and the summary of the report."""
    state = RunState.read(path)
    lines = [f"run in {path}, data from {state.data}"]
    for stage in STAGES:
        record = state.stages.get(stage.name)
        if record is None:
            lines.append(f"  {stage.command:12} has not run")
        elif record.status == "started":
            lines.append(f"  {stage.command:12} was interrupted, or is at work now")
        else:
            note = "" if record.status == "done" else ", to be replaced"
            lines.append(f"  {stage.command:12} done {record.finished} in {record.seconds:.1f} s{note}")
    if (path / "report" / "report.json").is_file():
        lines += ["", summary(path, state)]
    return "\n".join(lines)


def describe_bundle(path: Path) -> str:
    """The manifest's version, counts and files; hashes are checked when the bundle is loaded."""
    manifest = _read_json(path / "manifest.json")
    lines = [f"bundle {manifest.get('version', '?')} in {path}"]
    for key, value in manifest.items():
        if key not in ("version", "files", "config"):
            lines.append(f"  {key}: {_short(value)}")
    files = manifest.get("files", {})
    if isinstance(files, dict):
        size = sum(entry.get("bytes", 0) for entry in files.values() if isinstance(entry, dict))
        lines.append(f"  files: {len(files)}, {size / 1e6:,.1f} MB")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def summary(run: Path, state: RunState) -> str:
    """Summarizes a finished run.

    Args:
        run: run folder with report/.
        state: of the run folder.
    Returns:
        The table of systems, the verdict, the places of the results and the seconds of every stage.
    """
    path = run / "report" / "report.json"
    report: WrittenReport = _read_json(path)
    try:
        title = "among all items" if "cold_items" in report else "test accuracy"
        table, verdict = [*new_items_table(report), *systems_table(report, title)], report["verdict"]
    except (KeyError, TypeError, AttributeError, StopIteration, IndexError) as error:
        raise ArtifactError(f"{path} is damaged ({error!r}). Run 'reckg evaluate' again.") from error
    protocol = report.get("protocol", {})
    question = [f"q{protocol['words'][0][1:]}"] if "target" in protocol else []  # not in reports of an older reckg
    seconds = ", ".join(f"{name.replace('_', '-')} {record.seconds:.1f}" for name, record in state.stages.items())
    total = sum(record.seconds for record in state.stages.values())
    peak = max((record.peak_memory_mb for record in state.stages.values()), default=0.0)
    return "\n".join(
        [
            *table,
            "",
            *question,
            f"verdict: {verdict}",
            f"report: {run / 'report' / 'report.html'}",
            f"bundle: {run / 'bundle'}",
            f"seconds: {seconds}; together {total:.1f}, peak memory {peak:,.0f} MB",
        ]
    )


def ablation_summary(out: Path, report: AblationReport) -> str:
    """Summarizes an ablation.

    Args:
        out: folder of the ablation.
        report: content of ablation.json.
    Returns:
        Test NDCG@10 of every variant over every slice, and the conclusions in words.
    """
    parts = list(report["slices"])
    lines = [f"{'test NDCG@10':26}" + "".join(f"{name:>18}" for name in parts)]
    for name, variant in report["variants"].items():
        lines.append(f"{name:26}" + "".join(f"{variant['test'][part]['ndcg@10']['mean']:>18.4f}" for part in parts))
    lines += ["", *(f"verdict: {sentence}" for sentence in report["verdict"]), *cautions(report)]
    seconds = sum(t["seconds"] for variant in report["variants"].values() for t in variant["training"])
    return "\n".join([*lines, f"report: {out / 'ablation.md'}", f"seconds of training: {seconds:.0f}"])


def new_items_table(report: WrittenReport) -> list[str]:
    """Where the items were split: accuracy among the new ones, and their share of places; else nothing."""
    part = report.get("cold_items")
    if part is None:
        return []
    metric = report["protocol"]["primary_metric"].replace("ndcg", "exposure")
    systems = part["systems"].values()
    shares = ", ".join(f"{system['label']} {system['all'][metric]['mean']:.1%}" for system in systems)
    return [
        *systems_table(part, f"among {part['new_items']:,} new items"),
        "",
        f"their share of the first {metric.split('@')[1]} places among all items, of which they are "
        f"{part['share_of_catalogue']:.1%}, with {part['share_of_interactions']:.1%} of the interactions:",
        shares,
        "",
    ]


def systems_table(report: Report | ColdItems, title: str = "test accuracy") -> list[str]:
    """Lists the test accuracy of every system, best first, with 95% intervals.

    Args:
        report: content of report.json, or of its section on new items.
        title: head of the first column.
    """
    systems = report["systems"]
    metrics = _choose_metrics(systems)
    head = f"{title:24}" + "".join(f"{_title(metric):>26}" for metric in metrics)
    lines = [head]
    order = sorted(systems, key=lambda name: -systems[name]["test"][metrics[0]]["mean"])
    for name in order:
        cells = [systems[name]["test"][metric] for metric in metrics]
        lines.append(
            f"{systems[name].get('label', name):24}"
            + "".join(f"{cell['mean']:>10.4f} [{cell['low']:.4f}, {cell['high']:.4f}]".rjust(26) for cell in cells)
        )
    return lines


def _choose_metrics(systems: dict[str, SystemSection]) -> list[str]:
    """NDCG@10 and Recall@20, or the report's nearest cut-offs."""
    known = list(next(iter(systems.values()))["test"])
    shown = []
    for name, k in (("ndcg", 10), ("recall", 20)):
        cutoffs = [int(metric.split("@")[1]) for metric in known if metric.startswith(f"{name}@")]
        if cutoffs:
            shown.append(f"{name}@{min(cutoffs, key=lambda cutoff: abs(cutoff - k))}")
    return shown


def _title(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{name.upper() if name == 'ndcg' else name.capitalize()}@{k}"


def _read_json(path: Path) -> Any:
    """Reads a JSON object. Raises ArtifactError if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} holds no JSON object.")
    return values
