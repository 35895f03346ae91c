"""Runs the stages of a run folder in order: skips finished ones, resumes after a kill, asks before it replaces."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reckg.config.run_config import Config
from reckg.errors import ConfigError
from reckg.files.atomic_folder import write_atomically
from reckg.pipeline.run.stage_table import STAGES, Stage, changes, key_of, key_parts
from reckg.pipeline.run.state import KeyParts, RunState, StageCounts, StageRecord, locked_run, peak_memory_mb

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """Whether a stage has to run, and why. ``replaces``: finished results that the user has not given up."""

    runs: bool
    replaces: bool
    why: str


def run_pipeline(
    config: Config,
    data: Path,
    run: Path,
    *,
    stages: Sequence[Stage] = STAGES,
    only: str | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> RunState:
    """Brings a run folder up to date with a dataset folder and a configuration.

    Args:
        config: of the whole run; written to config.toml of the run folder.
        data: dataset folder.
        run: run folder; made if missing.
        stages: all stages, in order.
        only: name of the one stage to run; the stages before it must be up to date.
        overwrite: finished results that no longer fit may be replaced.
        say: receives a line at a time.
    Raises:
        ConfigError: the folder is no run, another process is at work in it, results would be replaced, or a stage
            before ``only`` is not up to date. Nothing has run then.
        ReckgError: from a stage; the stages before it stay done.
    """
    with locked_run(run):
        state = RunState.read(run)
        verdicts = _plan(config, data, state, stages)
        chosen = [stage for stage in stages if only is None or stage.name == only]
        if only is not None:
            _check_earlier(only, stages, verdicts)
        _check_replaced(chosen, verdicts, state, overwrite)
        state.data = str(data.resolve())
        write_atomically(run / "config.toml", config_toml(config))
        state.save()
        for stage in chosen:
            _bring_up_to_date(stage, stages, config, data, state, overwrite, say)
        return state


def _plan(config: Config, data: Path, state: RunState, stages: Sequence[Stage]) -> dict[str, Verdict]:
    """Judges every stage before anything runs."""
    verdicts: dict[str, Verdict] = {}
    for stage in stages:
        verdict = judge(stage, key_parts(stage, config, data, state), state)
        earlier = [other for other in stages if other.name in verdicts and verdicts[other.name].runs]
        causes = [other.command for other in earlier if set(other.outputs) & set(stage.inputs)]
        record = state.stages.get(stage.name)
        if causes and record is not None and record.status != "started":
            verdict = Verdict(True, record.status == "done", f"is built from {', '.join(causes)}")
        verdicts[stage.name] = verdict
    return verdicts


def judge(stage: Stage, parts: KeyParts, state: RunState) -> Verdict:
    """Compares a stage's record and its output files with its present dependencies.

    Args:
        parts: present dependencies, as ``key_parts`` returns them.
    """
    record = state.stages.get(stage.name)
    if record is None:
        return Verdict(True, False, "has not run")
    if record.status == "started":
        return Verdict(True, False, "was interrupted")
    missing = [path for path in record.outputs if not (state.run / path).is_file()]
    present = len(missing) < len(record.outputs)
    differs = changes(record.parts, parts)
    if differs:
        return Verdict(True, record.status == "done" and present, "; ".join(differs))
    if missing:
        return Verdict(True, False, f"lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    now = state.hash_folders(stage.outputs)
    altered = [path for path, value in record.outputs.items() if now.get(path) != value]
    if altered:
        return Verdict(True, record.status == "done", f"{altered[0]} was altered after the stage wrote it")
    return Verdict(False, False, "up to date")


def _check_earlier(only: str, stages: Sequence[Stage], verdicts: dict[str, Verdict]) -> None:
    names = [stage.name for stage in stages]
    for stage in stages[: names.index(only)]:
        if verdicts[stage.name].runs:
            raise ConfigError(
                f"the stage {stage.command} comes before {only.replace('_', '-')} and is not up to date "
                f"({verdicts[stage.name].why}). Run 'reckg {stage.command}' with the same arguments, or 'reckg run'."
            )


def _check_replaced(chosen: Sequence[Stage], verdicts: dict[str, Verdict], state: RunState, overwrite: bool) -> None:
    """Refuses to replace finished results, or notes that the user allows it."""
    replaced = [stage for stage in chosen if verdicts[stage.name].replaces]
    if replaced and not overwrite:
        reasons = "; ".join(f"{stage.command} ({verdicts[stage.name].why})" for stage in replaced)
        raise ConfigError(
            f"{state.run} holds finished results that this would replace: {reasons}. "
            "Choose another folder for --out, or pass --overwrite."
        )
    for stage in replaced:
        state.stages[stage.name].status = "stale"


def _bring_up_to_date(
    stage: Stage, stages: Sequence[Stage], config: Config, data: Path, state: RunState, overwrite: bool, say: Say
) -> None:
    place = f"[{list(stages).index(stage) + 1}/{len(stages)}] {stage.command}"
    parts = key_parts(stage, config, data, state)
    verdict = judge(stage, parts, state)
    record = state.stages.get(stage.name)
    if not verdict.runs and record is not None:
        record.status = "done"
        state.save()
        say(f"{place}: up to date, skipped ({record.seconds:.1f} s when it ran)")
        return
    if verdict.replaces and not overwrite:
        raise ConfigError(
            f"{state.run} holds finished results of {stage.command} that this would replace ({verdict.why}). "
            "Choose another folder for --out, or pass --overwrite."
        )
    say(f"{place}: {stage.does}" + _clear_the_way(stage, parts, record, state))
    state.stages[stage.name] = StageRecord("started", key_of(parts), parts)
    state.save()
    state.stages[stage.name] = _finish(stage, config, data, state, say)
    state.save()


def _clear_the_way(stage: Stage, parts: KeyParts, record: StageRecord | None, state: RunState) -> str:
    """Removes a stage's old or partial outputs, unless it can go on from them; returns a note for the log."""
    present = [folder for folder in stage.outputs if (state.run / folder).exists()]
    if not present:
        return ""
    interrupted = record is not None and record.status == "started"
    if interrupted and record is not None and stage.resumes:
        if record.key == key_of(parts):
            return " (goes on after an interruption)"
        state.remove(present)
        return f" (anew: {'; '.join(changes(record.parts, parts))} since it was interrupted)"
    state.remove(present)
    return " (again after an interruption)" if interrupted else " (replaces the old result)"


def _finish(stage: Stage, config: Config, data: Path, state: RunState, say: Say) -> StageRecord:
    """Runs a stage and returns its finished record."""
    function = stage.load()
    began = time.perf_counter()
    counts = function(config, data, state.run)
    seconds = time.perf_counter() - began
    record = state.stages[stage.name]
    outputs = state.hash_folders(stage.outputs)
    peak = peak_memory_mb()
    for note in [*counts.get("notes", []), *(value for value in counts.values() if _is_sentence(value))]:
        say(f"    - {note}")
    say(f"    {seconds:.1f} s, peak memory {peak:,.0f} MB{_in_words(counts)}")
    return StageRecord(
        status="done",
        key=record.key,
        parts=record.parts,
        outputs=outputs,
        seconds=round(seconds, 3),
        peak_memory_mb=round(peak, 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        counts=counts,
    )


def _in_words(counts: StageCounts) -> str:
    """The numbers and short texts among a stage's counts, for one line of the log."""
    shown = []
    for name, value in counts.items():
        if isinstance(value, bool):
            shown.append(f"{name} {'yes' if value else 'no'}")
        elif isinstance(value, int):
            shown.append(f"{name} {value:,}")
        elif isinstance(value, float):
            shown.append(f"{name} {value:.4g}")
        elif isinstance(value, str) and not _is_sentence(value):
            shown.append(f"{name} {value}")
    return "".join(f", {entry}" for entry in shown[:8])


def _is_sentence(value: Any) -> bool:
    """Whether a count is a text that deserves a line of its own."""
    return isinstance(value, str) and len(value) > 40


def config_toml(config: Config) -> str:
    """Writes a configuration as TOML with its defaults, so that the run can be repeated under other defaults."""
    lines = []
    for section, values in config.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return repr(value)
