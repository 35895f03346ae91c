"""How long an epoch takes and how much memory, at a million users, and how both grow on the way there.

Generates the bookshop at 0.1, 0.3 and 1 times 1,000,000 users, 200,000 items, 10 interactions a user and 2,000,000
triples, builds the graph, and runs the stage ``train`` for one epoch at 64 dimensions without a text encoder: every
scale in a process of its own, so that a peak is that scale's. Data is kept in ``--folder`` and used again.
loss, beside that of guessing, and NDCG@10 of the graph's vectors, beside popularity's, say whether it learned.
epoch_s: seconds of the epoch's steps at the largest scale; peak_rss_gb: the most memory (GiB) that its process had.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reckg.config.run_config import Config, parse_config
from reckg.data.bookshop.write import write_bookshop
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.sparse.message_passing import propagate
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.stages.build_graph import build_graph
from reckg.pipeline.stages.train import train
from reckg.pipeline.training.model_inputs import load_graph
from reckg.pipeline.training.validation import validation_score
from tests.benchmarks.measure import ROOT, Result, beside, finish, parser

USERS, ITEMS, INTERACTIONS_PER_USER = 1_000_000, 200_000, 10.23  # 10.2 are left after readers that take no more
COLUMNS = ("scale", "users", "items", "interactions", "triples", "epoch_s", "peak_rss_gb", "plan")


def config(args: argparse.Namespace) -> Config:
    """All settings are defaults but for those in the docstring. Attribute values that over 13% of the books or readers
    have are no entities: that leaves 2,000,000 triples of 3,700,000. Nearly all interactions are training's."""
    return parse_config(
        {
            "run": {"seed": args.seed, "threads": args.threads, "device": args.device},
            "text": {"encoder": "none"},
            "split": {"valid": 0.001, "test": 0.001},
            "graph": {"max_entity_share": 0.13},
            "model": {"embedding_dim": 64},
            "train": {
                "epochs": 1,
                "loss": "sampled-softmax",
                "propagation": args.propagation,
                "batch_size": args.batch_size,
                "memory_gb": args.memory_gb,
            },
        },
        "the benchmark",
    )


def prepare(args: argparse.Namespace, scale: float) -> None:
    """Writes the data and the run's graph, if they are not there."""
    data, run = args.folder / f"data-{scale:g}", args.folder / f"run-{scale:g}"
    if not (data / "dataset.toml").is_file():
        write_bookshop(
            data,
            users=round(USERS * scale),
            items=round(ITEMS * scale),
            seed=args.seed,
            interactions_per_user=INTERACTIONS_PER_USER,
            overwrite=True,
        )
    if not (run / "graph" / "graph.json").is_file():
        build_graph(config(args), data, run)


def measure(args: argparse.Namespace, scale: float) -> None:
    """Trains for an epoch and leaves its time and memory in the run's folder."""
    data, run = args.folder / f"data-{scale:g}", args.folder / f"run-{scale:g}"
    shutil.rmtree(run / "model", ignore_errors=True)
    settings = config(args)
    began, cpu = time.perf_counter(), time.process_time()
    with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
        counts = train(settings, data, run)
    row = json.loads((run / "model" / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    prepared = json.loads((run / "prepared" / "prepared.json").read_text(encoding="utf-8"))["counts"]
    found = {
        "scale": scale,
        "users": prepared["users"],
        "items": prepared["items"],
        "interactions": prepared["train"],
        "triples": prepared["triples"],
        "epoch_s": round(row["train_seconds"], 2),
        "stage_s": round(time.perf_counter() - began, 2),
        "stage_cpu_s": round(time.process_time() - cpu, 2),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "plan": counts["plan"],
        "loss": row["loss"]["sampled-softmax"],
        "loss_of_guessing": math.log(1 + prepared["items"]),
        "valid_ndcg@10": counts["valid_ndcg@10_graph_alone"],
        "popularity_ndcg@10": popularity_ndcg(settings, run),
    }
    if args.device == "cuda":
        found["peak_cuda_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        found["peak_cuda_reserved_gb"] = round(torch.cuda.max_memory_reserved() / 2**30, 3)
    tensors = GraphTensors(load_graph(run, read_prepared(run), settings, "train"), torch.device(args.device))
    found |= bandwidth(tensors, settings.model.embedding_dim)
    (run / "large_training.json").write_text(json.dumps(found), encoding="utf-8")


def popularity_ndcg(settings: Config, run: Path) -> float:
    """Scores the most popular items on the validation part."""
    prepared = read_prepared(run)
    counts = np.bincount(prepared.history("train", settings).item_idx, minlength=len(prepared.items))
    users, items = np.ones((len(prepared.users), 1), np.float32), counts[:, None].astype(np.float32)
    return round(float(validation_score(prepared, settings)(Embeddings(users, items, items[:0])).mean()), 5)


def bandwidth(tensors: GraphTensors, dim: int, rounds: int = 5) -> dict[str, float]:
    """propagation_share: the bytes a second that one product over the graph moves at least (a row read for every edge,
    with its index and weight; a row written for every node), as a share of a plain copy's rate."""
    device, n = tensors.head.device, tensors.graph.n_nodes
    nodes = torch.randn(n, dim, device=device)
    moved = len(tensors.head) * (4 * dim + 8) + n * 4 * dim

    def seconds(run: Any) -> float:
        taken = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
        return sorted(taken[1:])[rounds // 2]

    target = torch.empty_like(nodes)
    copied = 2 * 4 * nodes.numel() / seconds(lambda: target.copy_(nodes))
    product = moved / seconds(lambda: propagate(nodes, tensors.adjacency))
    return {"copy_gb_per_s": copied / 1e9, "propagation_gb_per_s": product / 1e9, "propagation_share": product / copied}


def in_a_process(function: Any, *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} ended with exit code {process.exitcode}: its error is above")


def run(args: argparse.Namespace) -> Result:
    rows = []
    for scale in args.scale:
        in_a_process(prepare, args, scale)
        in_a_process(measure, args, scale)
        found = args.folder / f"run-{scale:g}" / "large_training.json"
        rows.append(json.loads(found.read_text(encoding="utf-8")))
        if len(rows) == 1:
            print("  ".join(f"{name:>12}" for name in COLUMNS))
        print("  ".join(f"{rows[-1][name]:>12,}" if name != "plan" else rows[-1][name] for name in COLUMNS), flush=True)
    figures: dict[str, float] = {"epoch_s": rows[-1]["epoch_s"], "peak_rss_gb": rows[-1]["peak_rss_gb"]}
    for row in rows:
        names = [name for name in row if name not in ("scale", "plan")]
        figures |= {f"{name}_at_{row['scale']:g}": row[name] for name in names}
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "folder", "seed")}
    settings["plans"] = {f"{row['scale']:g}": row["plan"] for row in rows}
    return finish(
        "large_training",
        figures,
        settings,
        packages=("torch", "dgl", "numpy", "polars"),
        seed=args.seed,
        out=args.out,
        device=args.device,
    )


def main(words: list[str] | None = None) -> Result:
    command = parser(__doc__ or "")
    command.add_argument("--scale", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    command.add_argument("--folder", type=Path, default=ROOT / "build" / "large_training")
    command.add_argument("--propagation", choices=("auto", "full", "sampled"), default="auto")
    command.add_argument("--batch-size", type=int, default=0)
    command.add_argument("--memory-gb", type=float, default=12.0)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    args = command.parse_args(words)
    if args.beside:
        return beside("large_training", args, words)
    if not args.small:
        return run(args)
    with tempfile.TemporaryDirectory() as folder:
        args.folder, args.scale = Path(folder), [0.001, 0.002]
        return run(args)


if __name__ == "__main__":
    main()
