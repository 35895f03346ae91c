"""Which attention, aggregator, depth and loss earn their keep: a table of validation NDCG@10 for each data set.

    python -m tests.benchmarks.model_variants --on jobs/configs/bookshop.toml build/dataset --out build/variants

Every variant is the configuration with a few settings replaced, trained with the same seeds over the same prepared
data. Finished trainings in the folder are kept. A variant that the configuration refuses, or that is the one
the configuration says already, is skipped with its reason.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.ablation.ablate import parse_seeds
from jobs.ablation.measure import MEASURE_VALID, ablation_part, read_lists
from jobs.ablation.variants import Variant, build_base, run_variant, variant_folder
from reckg.config.run_config import Config, read_config, with_settings
from reckg.errors import ConfigError
from reckg.evaluation.ablation import METRIC, Slice, difference, interval
from reckg.evaluation.report.ablation import table
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.training.plan import FULL_SOFTMAX_ITEMS

DEFAULT = Variant("default", "the configuration")
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (  # name, settings; a line each
    ("uniform weights", {"model.attention": "uniform"}),
    ("TransR attention", {"model.attention": "transr"}),
    ("TransR attention, every 5 epochs", {"model.attention": "transr", "model.attention_every": 5}),
    ("TransR attention, KGAT's TransR loss", {"model.attention": "transr", "train.kg_loss": "transr"}),
    ("TransR attention, relation loss", {"model.attention": "transr", "train.kg_loss": "relation"}),
    ("learned relation weights", {"model.attention": "relation"}),
    ("sum", {"model.aggregator": "sum"}),
    ("gcn", {"model.aggregator": "gcn"}),
    ("bi-interaction", {"model.aggregator": "bi-interaction"}),
    ("bi-interaction, layers concatenated", {"model.aggregator": "bi-interaction", "model.combine": "concat"}),
    ("1 layer", {"model.layers": 1}),
    ("2 layers", {"model.layers": 2}),
    ("3 layers", {"model.layers": 3}),
    ("4 layers", {"model.layers": 4}),
    ("softmax", {"train.loss": "softmax"}),
    ("sampled softmax, corrected", {"train.loss": "sampled-softmax", "train.popularity_correction": True}),
    ("sampled softmax, not corrected", {"train.loss": "sampled-softmax", "train.popularity_correction": False}),
    ("BPR", {"train.loss": "bpr"}),
    ("BPR, temperature 1", {"train.loss": "bpr", "train.temperature": 1.0}),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--on", nargs=2, action="append", required=True, metavar=("CONFIG", "DATA"), type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--seeds", default="0,1,2", help="training seeds (default: 0,1,2)")
    parser.add_argument("--epochs", type=int, help="epochs of a training at most (default: the configuration's)")
    parser.add_argument("--only", help="names of variants, separated by ';' (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="replace finished results that no longer fit")
    options = parser.parse_args(arguments)
    seeds = parse_seeds(options.seeds)
    wanted = options.only.split(";") if options.only else [name for name, _ in CHANGES]
    unknown = set(wanted) - {name for name, _ in CHANGES}
    if unknown:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; known: {'; '.join(n for n, _ in CHANGES)}")
    for path, data in options.on:
        config, base = read_config(path), options.out / path.stem
        if options.epochs is not None:
            epochs = min(options.epochs, config.train.epochs)
            config = with_settings(config, {"train.epochs": epochs}, "--epochs")
        lines = variants_table(config, path.name, data, base, seeds, wanted, options.overwrite)
        print("\n" + "\n".join(lines) + "\n", flush=True)


def variants_table(
    config: Config,
    config_name: str,
    data: Path,
    base: Path,
    seeds: Sequence[int],
    wanted: Sequence[str],
    overwrite: bool,
) -> list[str]:
    """Runs the missing trainings and returns the table's lines."""
    build_base(config, data, base, overwrite, print)
    prepared = read_prepared(base)
    held = ablation_part(prepared, "valid")
    everyone = Slice("all users", "", np.arange(len(held.users)), held.relevant)

    def lists(variant: Variant) -> list[np.ndarray]:
        for seed in seeds:
            print(f"{variant.name}, seed {seed}", flush=True)
            run_variant(config, base, variant, seed, [MEASURE_VALID], overwrite=overwrite, say=lambda line: None)
        return [read_lists(variant_folder(base, variant, seed), "valid") for seed in seeds]

    default, rows = lists(DEFAULT), []
    for name, changed in [(DEFAULT.name, {}), *(change for change in CHANGES if change[0] in wanted)]:
        reason = skip_reason(config, name, changed, len(prepared.items)) if changed else None
        if reason is not None:
            rows.append([name, _settings(changed), reason, "", "", "", ""])
            continue
        variant = Variant(_file_name(name), name, settings=changed) if changed else DEFAULT
        found = lists(variant) if changed else default
        rows.append([name, _settings(changed), *_cells(everyone, found, default, config, base, variant, seeds)])
    head = ["variant", "settings", "NDCG@10", "less the default's", "by seed", "epochs", "seconds"]
    return [
        f"### {prepared.info['name'] or data.name}: {config_name}, {len(held.users):,} users, "
        f"seeds {', '.join(map(str, seeds))}, {config.train.epochs} epochs at most",
        "",
        *table(head, rows, left=2),
        "",
        "Validation part, full rankings by the vectors alone. NDCG@10: mean and lowest to highest over the seeds. "
        "Difference: paired by seed and user, 95% bootstrap interval over users, not corrected for the number of "
        "rows; by seed: from the lowest to the highest seed's, and how many seeds are better. Epochs: the best one, "
        "mean over the seeds. Seconds: of one training, median.",
    ]


def skip_reason(config: Config, name: str, changed: dict[str, Any], n_items: int) -> str | None:
    """Why a variant is not trained: it is the configuration itself, or it is refused; None where it is trained."""
    try:
        variant = with_settings(config, changed, name)
    except ConfigError as error:
        return f"skipped: {error}".replace("|", "/")
    loss = config.train.loss
    if loss == "auto":
        loss = "softmax" if n_items <= FULL_SOFTMAX_ITEMS else "sampled-softmax"
    return "the default" if variant in (config, with_settings(config, {"train.loss": loss}, name)) else None


def _cells(
    part: Slice,
    ours: list[np.ndarray],
    default: list[np.ndarray],
    config: Config,
    base: Path,
    variant: Variant,
    seeds: Sequence[int],
) -> list[str]:
    by_seed = [float(part.metrics(found)[METRIC].mean()) for found in ours]
    folders = [variant_folder(base, variant, seed) for seed in seeds]
    counts = [json.loads((folder / "model" / "train.json").read_text()) for folder in folders]
    logs = [(folder / "model" / "log.jsonl").read_text().splitlines() for folder in folders]
    seconds = [sum(json.loads(line)["train_seconds"] for line in log) for log in logs]
    paired, better = "", ""
    if variant is not DEFAULT:
        found = difference(part, ours, default, config.evaluate.bootstrap_samples, config.run.seed)[METRIC]
        values = found["by_seed"]
        paired = interval(found)
        better = f"{min(values):+.4f} to {max(values):+.4f}, {sum(v > 0 for v in values)} of {len(seeds)}"
    return [
        f"{np.mean(by_seed):.4f} ({min(by_seed):.4f} to {max(by_seed):.4f})",
        paired,
        better,
        f"{np.mean([count['best_epoch'] for count in counts]):.0f}",
        f"{np.median(seconds):.1f}",
    ]


def _settings(changed: dict[str, Any]) -> str:
    return ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in changed.items())


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


if __name__ == "__main__":
    main()
