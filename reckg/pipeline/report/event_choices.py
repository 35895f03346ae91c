"""The target event and the weights of the others in words, with figures of other weights on validation."""

from __future__ import annotations

from contextlib import suppress

import polars as pl

from reckg.config.run_config import Config
from reckg.data.history import History
from reckg.evaluation.als import fit_als
from reckg.evaluation.protocol import NoTargetError
from reckg.evaluation.tuning import validation_ndcg
from reckg.pipeline.run.folder import Prepared, n_threads
from reckg.pipeline.run.held_out import held_out_part

USERS = 2000  # validation users that the weights are compared on, at most


def event_words(config: Config, prepared: Prepared) -> list[str]:
    """Describes the choice of the events; nothing for data whose types all mean the same."""
    task = prepared.info.get("task")
    if task is None or len(task["event_weights"]) <= len(task["target_events"]):
        return []
    chosen = "derived from the training part" if task["events_derived"] else "from [events]"
    worth = ", ".join(f"{name} {weight:.3g}" for name, weight in task["event_weights"].items())
    words = [f"Events: {', '.join(task['target_events'])} is predicted ({chosen}). Mean weights in training: {worth}."]
    with suppress(NoTargetError):
        figures = compare_weights(config, prepared)
        listed = ", ".join(f"{value:.4f} {name}" for name, value in figures.items())
        words.append(f"On validation ALS, which is not tuned here, has the NDCG@10 {listed}.")
    return words


def compare_weights(config: Config, prepared: Prepared) -> dict[str, float]:
    """Measures ALS on validation with the chosen weights, with equal ones, and with target events alone.

    Raises:
        NoTargetError: validation has no target.
    """
    held = held_out_part(prepared, "valid").sample(USERS, config.run.seed)
    known = prepared.known("train", config)
    choices = {
        "with these weights": known,
        "if all events count alike": known.with_columns(pl.lit(1.0, pl.Float32).alias("weight")),
        "from the target event alone": known.filter("taken"),
    }
    figures = {}
    for name, rows in choices.items():
        history = History.from_interactions(rows, len(prepared.users))
        model = fit_als(history, len(prepared.items), seed=config.run.seed, threads=n_threads(config))
        figures[name] = validation_ndcg(model, history, held, len(prepared.items))
    return figures
