"""What every benchmark shares: paired timing in interleaved rounds, the machine, and the JSON line it ends with.

A benchmark is run as ``python -m tests.benchmarks.NAME``. It prints what a person reads and, as its last line, one
JSON object with the keys of ``Result``; ``--out FILE`` writes that object too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import torch

ROOT = Path(__file__).resolve().parents[2]

Times = dict[str, list[float]]


class Result(TypedDict):
    """The JSON line. figures: names to numbers; settings: what was run; seed: of everything random in it."""

    benchmark: str
    figures: dict[str, float]
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    seed: int
    commit: str


def parser(description: str, seed: int = 0) -> argparse.ArgumentParser:
    """A command line with what all benchmarks have: --small, --seed and --out."""
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--small", action="store_true", help="a size that takes seconds; its figures mean nothing")
    out.add_argument("--seed", type=int, default=seed)
    out.add_argument("--out", type=Path, help="a file that gets the JSON object too")
    return out


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1, device: str = "cpu"
) -> Times:
    """Seconds of every contender in every round, after warm-up rounds that are not counted.

    A round runs each contender once, so that what else the machine does meets all of them alike; every round starts
    with another one. On CUDA a run ends when the device has finished.
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
    line = json.dumps(result, allow_nan=False)
    if out is not None:
        out.write_text(line + "\n", encoding="utf-8")
    print(line, flush=True)
    return result


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores this process may use, torch's threads, memory, and the CUDA device if that is what ran."""
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
    """The most memory (GiB) that this process had. ru_maxrss would start from the size of what started it."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def commit() -> str:
    """The commit that is checked out, with "+changes" if tracked files differ from it; "unknown" outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout

    try:
        name = git("rev-parse", "HEAD").strip()
        return name + ("+changes" if git("status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
