"""How fast reckg trains beside KGAT: seconds an epoch, and seconds to the quality that KGAT ends with.

    python -m tests.benchmarks.training_speed [--kgat recbole|authors] [--min-entity-degree N]

Both train in one process on the same graph, split and candidates, with 64 dimensions, taking turns epoch by epoch. KGAT
has ``--threads`` threads, by default one per core; reckg as many, by default by ``run.threads = 0``. reckg
trains by the stage ``train`` with jobs/configs/ml-100k.toml; kgat_loop.py describes KGAT. Validation (NDCG@10 over
full rankings, training items left out) is in neither's time. The data is ``ml-100k-split``; where that is not there,
the generated bookshop.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import reckg.pipeline.stages.train
from jobs.commands.import_data import import_data
from reckg.config.run_config import Config, parse_config, read_config
from reckg.data.bookshop.write import write_bookshop
from reckg.evaluation.protocol import held_out
from reckg.metrics.ranking import ranking_metrics
from reckg.model.embeddings import Embeddings
from reckg.model.sparse.dgl_compat import dgl
from reckg.pipeline.run.folder import Prepared, read_prepared
from reckg.pipeline.stages.build_graph import build_graph
from reckg.pipeline.training.model_inputs import load_graph
from reckg.retrieval.exact import exact_search
from tests.benchmarks.kgat_loop import AUTHORS, RECBOLE, KgatLoop, Settings
from tests.benchmarks.measure import ROOT, Result, beside, finish, parser, speedup

KGAT = {"recbole": RECBOLE, "authors": AUTHORS}
PATIENCE = 10  # of the KGAT loop
SHORT = 4  # rounds of the comparisons beside the main one

Changes = dict[str, dict[str, Any]]
LIKE_KGAT: Changes = {
    "model": {
        "layers": 1,
        "aggregator": "bi-interaction",
        "combine": "concat",
        "attention": "transr",
        "relation_dim": 64,
    },
    "train": {"loss": "bpr", "kg_loss": "transr", "batch_size": 2048, "targets": 1, "epochs": SHORT},
}


@dataclass(frozen=True)
class Epoch:
    """Times of an epoch's training (wall clock, and CPU time of all threads), and the NDCG@10 after it."""

    seconds: float
    cpu_seconds: float
    score: float


@dataclass(frozen=True)
class Work:
    """A dataset folder, a run folder in which build-graph has run, and the run's configuration."""

    data: Path
    run: Path
    config: Config


def prepare(folder: Path, small: bool, changes: Changes) -> Work:
    """Imports or generates the data, and builds the graph by the stage build-graph."""
    given = os.environ.get("RECKG_SHARED_DATA")
    source = (Path(given) if given else ROOT.parent / "shared" / "data") / "ml-100k-split"
    name, data, run = "ml-100k", folder / "dataset", folder / "run"
    if source.is_dir() and not small:
        import_data("recbole", source, data, name=name)
    else:
        name, users, items = "bookshop", 100 if small else 2000, 80 if small else 1200
        print(f"generated bookshop, {users} readers and {items} books" + ("" if small else f": there is no {source}"))
        write_bookshop(data, users=users, items=items)
    config = changed(read_config(ROOT / "jobs" / "configs" / f"{name}.toml"), changes)
    counts = build_graph(config, data, run)
    print(", ".join(f"{name} {value:_}" for name, value in counts.items() if isinstance(value, int)))
    return Work(data, run, config)


def changed(config: Config, changes: Changes) -> Config:
    """The configuration with other values: section -> key -> value."""
    values = config.model_dump(mode="json")
    return parse_config(values | {section: values[section] | keys for section, keys in changes.items()}, "benchmark")


def train_reckg(work: Work, after_epoch: Callable[[], object]) -> list[Epoch]:
    """Trains as ``reckg train`` does, from the beginning; after_epoch is called between epochs, outside of their time.

    The CPU time is a little too much: the checkpoint and the vectors for the validation are in it.
    """
    cpu: list[float] = []
    train = reckg.pipeline.stages.train.train_model

    def take_turns(*arguments: Any, validate: Callable[[Embeddings], float], **options: Any) -> Any:
        began = time.process_time()

        def validate_and_wait(embeddings: Embeddings) -> float:
            nonlocal began
            cpu.append(time.process_time() - began)
            score = validate(embeddings)
            print(f"reckg epoch {len(cpu)}: {cpu[-1]:.2f} CPU s, valid NDCG@10 {score:.4f}", flush=True)
            after_epoch()
            began = time.process_time()
            return score

        return train(*arguments, validate=validate_and_wait, **options | {"progress": None})

    shutil.rmtree(work.run / "model", ignore_errors=True)
    with mock.patch.object(reckg.pipeline.stages.train, "train_model", take_turns):
        reckg.pipeline.stages.train.train(work.config, work.data, work.run)
    lines = (work.run / "model" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Epoch(row["train_seconds"], own, row["valid_ndcg@10"]) for row, own in zip(rows, cpu, strict=True)]


def validation(prepared: Prepared) -> Callable[[np.ndarray, np.ndarray], float]:
    """NDCG@10 of the validation part by users' and items' vectors, as the stage train measures it."""
    held = held_out(prepared.interactions, "valid", ("train",), len(prepared.users))

    def validate(users: np.ndarray, items: np.ndarray) -> float:
        found = exact_search(users[held.users], items, 10, seen=held.excluded)
        return float(ranking_metrics(found.item_idx, held.relevant, (10,))["ndcg@10"].mean())

    return validate


class Rival:
    """KGAT with early stopping, at most ``limit`` epochs; trains for one whenever it is its turn."""

    def __init__(
        self, name: str, loop: KgatLoop, validate: Callable[[np.ndarray, np.ndarray], float], limit: int
    ) -> None:
        self.name, self.loop, self.validate, self.limit = name, loop, validate, limit
        self.threads = torch.get_num_threads()
        self.epochs: list[Epoch] = []
        self.parts: list[dict[str, float]] = []  # the loop's figures for each epoch

    @property
    def finished(self) -> bool:
        done = len(self.epochs)
        return done >= self.limit or (done > 0 and done - best(self.epochs) >= PATIENCE)

    def step(self) -> None:
        if self.finished:
            return
        ours = torch.get_num_threads()
        self._use(self.threads)
        began, cpu_began = time.perf_counter(), time.process_time()
        self.parts.append(self.loop.epoch())
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        self.epochs.append(Epoch(seconds, cpu, self.validate(*self.loop.model.vectors())))
        self._use(ours)
        parts = ", ".join(f"{name} {value:.3g}" for name, value in self.parts[-1].items())
        times = f"{seconds:.2f} s, {cpu:.2f} CPU s, valid NDCG@10 {self.epochs[-1].score:.4f} ({parts})"
        print(f"    KGAT ({self.name}) epoch {len(self.epochs)}: {times}", flush=True)

    @staticmethod
    def _use(threads: int) -> None:
        torch.set_num_threads(threads)
        dgl.utils.set_num_threads(threads)


def rival(work: Work, name: str, settings: Settings, limit: int) -> Rival:
    prepared = read_prepared(work.run)
    train = prepared.known("train", work.config)
    graph = load_graph(work.run, prepared, work.config, "train")
    loop = KgatLoop(graph, train["user_idx"].to_numpy(), train["item_idx"].to_numpy(), settings, work.config.run.seed)
    return Rival(name, loop, validation(prepared), limit)


def best(epochs: Sequence[Epoch]) -> int:
    """The number, from 1, of the best epoch; of equals the first."""
    return 1 + int(np.argmax([epoch.score for epoch in epochs]))


def compare(name: str, ours: Sequence[Epoch], theirs: Sequence[Epoch]) -> dict[str, float]:
    """How many times as long their epochs take, the median over the rounds that both were in; wall clock and CPU."""
    rounds = list(zip(ours, theirs, strict=False))
    wall = {"ours": [our.seconds for our, _ in rounds], "theirs": [their.seconds for _, their in rounds]}
    cpu = {"ours": [our.cpu_seconds for our, _ in rounds], "theirs": [their.cpu_seconds for _, their in rounds]}
    return {name: speedup(wall, "ours", "theirs"), f"{name}_cpu": speedup(cpu, "ours", "theirs")}


def to_quality(ours: Sequence[Epoch], theirs: Sequence[Epoch]) -> dict[str, float]:
    """Training time up to their best epoch, and up to our first that is at least as good; speedup 0 without one."""
    until = theirs[: best(theirs)]
    quality = until[-1].score
    seconds, cpu = sum(epoch.seconds for epoch in until), sum(epoch.cpu_seconds for epoch in until)
    figures = {
        "kgat_ndcg@10": quality,
        "kgat_epochs_to_quality": len(until),
        "kgat_seconds_to_quality": seconds,
        "kgat_cpu_seconds_to_quality": cpu,
        "reckg_ndcg@10": max(epoch.score for epoch in ours),
    }
    there = [number for number, epoch in enumerate(ours, 1) if epoch.score >= quality]
    if not there:
        return {"time_to_quality_speedup": 0.0, "time_to_quality_speedup_cpu": 0.0, **figures}
    own = sum(epoch.seconds for epoch in ours[: there[0]])
    own_cpu = sum(epoch.cpu_seconds for epoch in ours[: there[0]])
    return {
        "time_to_quality_speedup": seconds / own,
        "time_to_quality_speedup_cpu": cpu / own_cpu,
        **figures,
        "reckg_epochs_to_quality": there[0],
        "reckg_seconds_to_quality": own,
        "reckg_cpu_seconds_to_quality": own_cpu,
    }


def measure(work: Work, kgat: Rival, other: Rival) -> dict[str, float]:
    """All figures. other: KGAT with its other settings, timed beside our first epochs."""
    print(f"\nreckg with KGAT's model, loss and batches, in turns with KGAT ({kgat.name})")
    like_kgat = train_reckg(replace(work, config=changed(work.config, LIKE_KGAT)), kgat.step)
    earlier = len(kgat.epochs)
    print(f"\nreckg in turns with KGAT ({kgat.name}); in the first rounds also KGAT ({other.name})")
    ours = train_reckg(work, lambda: (kgat.step(), other.step()))
    while not kgat.finished:
        kgat.step()
    beside, passes = kgat.epochs[earlier:], kgat.parts[earlier:]
    ratios = [their.seconds / our.seconds for our, their in zip(ours, beside, strict=False)]
    alone = [part["interactions"] / our.seconds for our, part in zip(ours, passes, strict=False)]
    return {
        **compare("epoch_speedup", ours, beside),
        "epoch_speedup_quartile_1": float(np.quantile(ratios, 0.25)),
        "epoch_speedup_quartile_3": float(np.quantile(ratios, 0.75)),
        "epoch_speedup_without_triples": statistics.median(alone),
        **compare(f"epoch_speedup_{other.name}", ours, other.epochs),
        **compare("epoch_speedup_like_kgat", like_kgat, kgat.epochs),
        "reckg_epoch_seconds": statistics.median(epoch.seconds for epoch in ours),
        "reckg_epoch_cpu_seconds": statistics.median(epoch.cpu_seconds for epoch in ours),
        "kgat_epoch_seconds": statistics.median(epoch.seconds for epoch in kgat.epochs),
        "kgat_epoch_cpu_seconds": statistics.median(epoch.cpu_seconds for epoch in kgat.epochs),
        **to_quality(ours, kgat.epochs),
    }


def main(arguments: Sequence[str] | None = None) -> Result:
    options = _parser().parse_args(arguments)
    if options.beside:
        return beside("training_speed", options, arguments)
    threads = options.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    dgl.utils.set_num_threads(threads)
    changes: Changes = {
        "run": {"seed": options.seed, "threads": options.threads, "device": "cpu"},
        "text": {"encoder": "none"},
        "train": {"validate_every": 1} | ({"epochs": 3} if options.small else {}),
        "graph": {} if options.min_entity_degree is None else {"min_entity_degree": options.min_entity_degree},
    }
    limit = 5 if options.small else options.kgat_epochs
    names = sorted(KGAT, key=lambda name: name != options.kgat)
    settings = [replace(KGAT[name], batch_size=128) if options.small else KGAT[name] for name in names]
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder), options.small, changes)
        kgat = rival(work, names[0], settings[0], limit)
        other = rival(work, names[1], settings[1], SHORT)
        figures = measure(work, kgat, other)
        graph = kgat.loop.model.graph
        settings_used = {
            "data": read_prepared(work.run).info["name"],
            "nodes": graph.num_nodes(),
            "edges": graph.num_edges(),
            "kgat_threads": kgat.threads,
            "kgat": {"name": kgat.name, **asdict(settings[0]), "epochs": limit, "patience": PATIENCE},
            other.name: asdict(settings[1]),
            **{name: getattr(work.config, name).model_dump(mode="json") for name in ("graph", "model", "train")},
        }
    print()
    for name, value in figures.items():
        print(f"{name:40} {value:10.4g}")
    packages = ("dgl", "numpy", "torch")
    return finish("training_speed", figures, settings_used, packages=packages, seed=options.seed, out=options.out)


def _parser() -> argparse.ArgumentParser:
    out = parser("Training time of reckg beside a KGAT loop.")
    out.add_argument("--kgat", choices=tuple(KGAT), default="recbole", help="whose settings KGAT has")
    out.add_argument("--kgat-epochs", type=int, default=60, help="at most; it stops by its validation before")
    out.add_argument("--min-entity-degree", type=int, help="1: the whole graph; default: the configuration's")
    out.add_argument("--threads", type=int, default=0, help="of torch and DGL; 0: one per core, and reckg's default")
    return out


if __name__ == "__main__":
    main()
