"""Does training the text encoder with the graph model place new items better than the frozen encoder does?

Cold items on the generated bookshop and, where the data are there, on ml-100k: NDCG@10 among the new items alone.
Every seed draws other new items; a policy is compared with the frozen encoder seed by seed.
``--part valid`` is for choosing settings, ``--part test`` is read once, with those that were chosen.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from reckg.config.run_config import Config, parse_config
from reckg.metrics.ranking import ranking_metrics
from reckg.pipeline.run.folder import read_embeddings, read_prepared
from reckg.pipeline.run.held_out import held_out_part, new_items
from reckg.pipeline.stages.build_graph import build_graph
from reckg.pipeline.stages.embed import embed
from reckg.pipeline.stages.train import train
from reckg.retrieval.exact import exact_search
from tests.benchmarks.measure import beside, finish, parser
from tests.benchmarks.text_data import datasets, settings

COMMON: dict[str, dict[str, Any]] = {
    "run": {"threads": 2},
    "split": {"kind": "cold-items"},
    "train": {"epochs": 20, "patience": 5},
}
POLICIES: dict[str, dict[str, Any]] = {
    "frozen": {"policy": "frozen"},
    "top-1": {"policy": "top-k", "learning_rate": 5e-5},
    "lora": {"policy": "lora", "learning_rate": 2e-3},
}


def merged(*parts: dict[str, dict[str, Any]]) -> Config:
    """The configuration of these sections, later ones first."""
    values: dict[str, dict[str, Any]] = {}
    for part in parts:
        for section, keys in part.items():
            values[section] = values.get(section, {}) | keys
    return parse_config(values, "joint_text")


def per_user(config: Config, data: Path, run: Path, part: str) -> np.ndarray:
    """(n,) NDCG@10 of the users of a part, among its new items, of a model that is trained here."""
    shutil.rmtree(run / "model", ignore_errors=True)
    train(config, data, run)
    embed(config, data, run)
    prepared = read_prepared(run)
    users, items = read_embeddings(run, "test")
    held, new = held_out_part(prepared, part), new_items(prepared, part)
    place = exact_search(users[held.users], items[new], 10).item_idx
    return np.asarray(ranking_metrics(np.append(new, -1)[place], held.relevant, (10,))["ndcg@10"])


def over_seeds(differences: list[float]) -> dict[str, float]:
    """The mean of the seeds' differences with the 95% interval and the p of Student's t."""
    found = stats.ttest_1samp(differences, 0.0)
    low, high = found.confidence_interval(0.95)
    return {"mean": float(np.mean(differences)), "low": float(low), "high": float(high), "p": float(found.pvalue)}


def measured(name: str, data: Path, folder: Path, seeds: range, part: str) -> dict[str, list[np.ndarray]]:
    """Every policy's users, a row a seed. The outputs of the frozen layers are kept in the folder."""
    found: dict[str, list[np.ndarray]] = {policy: [] for policy in POLICIES}
    (folder / "text-cache").mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        run = folder / f"seed-{seed}"
        run.mkdir(parents=True)
        (run / "text-cache").symlink_to(folder / "text-cache")
        for policy, text in POLICIES.items():
            config = merged(settings(name), COMMON, {"run": {"seed": seed}, "text": text})
            if policy == "frozen":
                build_graph(config, data, run)
            found[policy].append(per_user(config, data, run, part))
            print(f"{name} seed {seed} {policy}: NDCG@10 {found[policy][-1].mean():.4f}", flush=True)
    return found


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--part", choices=("valid", "test"), default="valid")
    arguments.add_argument("--seeds", type=int, default=5)
    options = arguments.parse_args()
    if options.beside:
        beside("joint_text", options)
        return
    torch.set_num_threads(2)
    figures: dict[str, float] = {}
    rows = ["| data | policy | NDCG@10 | minus frozen | 95% interval | p |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        for data, path in datasets(Path(name), options.small).items():
            seeds = range(options.seed, options.seed + options.seeds)
            found = measured(data, path, Path(name) / "runs" / data, seeds, options.part)
            for policy, users in found.items():
                mean = float(np.mean([values.mean() for values in users]))
                gain = over_seeds([float((a - b).mean()) for a, b in zip(users, found["frozen"], strict=True)])
                figures |= {f"{data}/{policy}/ndcg@10": mean}
                if policy == "frozen":
                    rows.append(f"| {data} | {policy} | {mean:.4f} | | | |")
                    continue
                figures |= {f"{data}/{policy}/gain_{key}": value for key, value in gain.items()}
                rows.append(
                    f"| {data} | {policy} | {mean:.4f} | {gain['mean']:+.4f} "
                    f"| {gain['low']:+.4f} to {gain['high']:+.4f} | {gain['p']:.3f} |"
                )
    print("\n".join(rows))
    chosen = {"part": options.part, "seeds": options.seeds, "small": options.small, **COMMON, "policies": POLICIES}
    finish(
        "joint_text", figures, chosen, packages=["torch", "transformers", "peft"], seed=options.seed, out=options.out
    )


if __name__ == "__main__":
    main()
