"""The training objective and schedule that a configuration gives."""

from __future__ import annotations

import math

import torch

from reckg.config.run_config import Config
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Histories
from reckg.model.joint.joint_model import JointModel
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.training.batches import SeenItems
from reckg.model.training.memory import Plan
from reckg.model.training.objective import Objective
from reckg.model.training.train import Schedule
from reckg.pipeline.run.folder import Prepared
from reckg.pipeline.training.model_inputs import GraphShares, training_shares
from reckg.pipeline.training.plan import training_loss


def objective_of(
    config: Config,
    model: JointModel,
    tensors: GraphTensors,
    prepared: Prepared,
    plan: Plan,
    shares: GraphShares | None = None,
) -> Objective:
    """Makes the objective over the training interactions.

    Args:
        tensors: the training graph.
        shares: half-life and share of interactions that the graph was built with. None: those of training.
    """
    settings = config.train
    shares = shares or training_shares(config, prepared)
    history = prepared.history("train", config)
    histories = Histories(
        history.indptr,
        history.item_idx,
        tensors,
        ordered=prepared.in_order,
        half_life=shares.half_life,
        interaction_share=shares.interaction_share,
        weight=history.weight,
        repeats=prepared.target != "new",
    )
    user, item = histories.user.cpu(), histories.item.cpu()
    count = torch.bincount(item, minlength=model.n_items).float()
    generator = torch.Generator().manual_seed(config.run.seed)
    return Objective(
        loss=training_loss(config, model.n_items, plan),
        temperature=settings.temperature or derive_temperature(len(history.item_idx) / max(model.n_users, 1)),
        negatives=settings.negatives,
        popularity_correction=settings.popularity_correction,
        kg_loss=settings.kg_loss,
        kg_weight=settings.kg_weight,
        text_weight=settings.text_weight,
        l2_weight=settings.l2_weight,
        text_batch_tokens=config.text.batch_tokens,
        generator=generator,
        histories=histories,
        seen=SeenItems(user, item, model.n_users, model.n_items),
        popularity=(count + 1) / (count + 1).sum(),
        sampler=NeighbourSampler(tensors, settings.fanout, generator) if plan.propagation == "sampled" else None,
    )


def derive_temperature(interactions_per_user: float) -> float:
    """Short histories say less each, and bear a sharper softmax: chosen on the validation parts of three data sets."""
    return min(max(0.1 * math.sqrt(interactions_per_user / 10), 0.07), 0.25)


def schedule_of(config: Config, batch_size: int) -> Schedule:
    settings = config.train
    return Schedule(
        batch_size=batch_size,
        learning_rate=settings.learning_rate,
        text_learning_rate=config.text.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        clip_norm=settings.clip_norm,
        epochs=settings.epochs,
        patience=settings.patience,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
        attention_every=config.model.attention_every,
        refresh_every=config.text.refresh_every,
        average_decay=settings.average_decay,
        targets=settings.targets,
    )
