"""The model of a later state: training goes on for a few epochs over the interactions known by then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from tqdm import tqdm

from reckg.config.run_config import Config
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.linear.spectral import fit_spectral, with_shares
from reckg.model.training.train import collect_trained_state, continue_training, load_trained_state
from reckg.pipeline.run.folder import Prepared
from reckg.pipeline.training.model_inputs import build_model, load_graph, served_shares
from reckg.pipeline.training.objective import objective_of, schedule_of
from reckg.pipeline.training.plan import fitting_plan
from reckg.pipeline.training.trained_model import TrainedModel

SHARE = 6  # of the epochs to the best one, a part in so many; two of Beauty's 12 gain all that three or more do


def refresh_epochs(config: Config, run: Path) -> int:
    """Returns train.refresh_epochs; if it is not set, a sixth of the epochs to the run's best, at least one."""
    if config.train.refresh_epochs is not None:
        return config.train.refresh_epochs
    return max(1, round(int(_training_figures(run)["best_epoch"]) / SHARE))


def refresh_model(config: Config, run: Path, prepared: Prepared, trained: TrainedModel, state: str) -> TrainedModel:
    """Trains a copy of the trained model further over the interactions known in a state.

    Nodes whose first interaction is newer than training get an ID of their own. The linear part is fitted anew, with
    the shares that validation chose.

    Args:
        trained: as of training.
        state: test or serving.
    Returns:
        The copy; the model itself if no more interactions are known.
    """
    known, epochs = prepared.known(state, config), refresh_epochs(config, run)
    if not epochs or len(known) == len(prepared.known("train", config)):
        return trained
    later = replace(prepared, interactions=known.with_columns(pl.lit("train").alias("split")))
    device = trained.model.embedding.device
    torch.manual_seed(config.run.seed)
    shares = served_shares(run)
    graph = load_graph(run, later, config, "train", attention=shares)
    newer = build_model(config, run, later, graph, device)
    has_id = newer.known.clone()
    load_trained_state(newer, collect_trained_state(trained.model))
    newer.known.copy_(has_id)
    tensors = GraphTensors(graph, device)
    plan = fitting_plan(config, run, later, device)
    objective = objective_of(config, newer, tensors, later, plan, shares)
    continue_training(newer, tensors, objective, schedule_of(config, plan.batch_size), epochs, progress=tqdm)
    figures = _training_figures(run)
    newer.update_attention(tensors)
    text = None if newer.text is None else newer.text.vectors.cpu().numpy()
    fitted = fit_spectral(graph, config.model.linear_rank, text)
    linear = figures["linear_share"], figures["linear_share_new_items"], figures["earned_by_new_item"]
    return TrainedModel(newer, with_shares(fitted, newer.embeddings(tensors), graph, *linear))


def _training_figures(run: Path) -> dict[str, float]:
    """Reads the figures of the run's training."""
    figures: dict[str, float] = json.loads((run / "model" / "train.json").read_text(encoding="utf-8"))
    return figures
