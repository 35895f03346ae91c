"""Stage train: the joint model over the training graph, early-stopped on the validation part."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jobs.run.folder import Prepared, n_threads, read_prepared, write_json
from jobs.run.held_out import asked, new_items
from jobs.stages.model_inputs import build_model, load_graph, pick_device
from jobs.stages.training_plan import training_loss, training_plan
from reckg.config.run_config import Config
from reckg.files.file_hash import file_sha256
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.metrics.ranking import ranking_metrics
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Histories
from reckg.model.joint.joint_model import Embeddings, JointModel
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.linear.spectral import clearly_best, fit_spectral, weighed
from reckg.model.training.batches import SeenItems
from reckg.model.training.checkpoint import load_tensors
from reckg.model.training.memory import Plan, keep_freed_memory
from reckg.model.training.objective import Objective
from reckg.model.training.train import Schedule, load_trained_state
from reckg.model.training.train import train as train_model
from reckg.retrieval.exact import exact_search

Validate = Callable[[Embeddings], np.ndarray]  # the scores (n,) of validation users
VALIDATION_USERS = 5000  # at most; drawn by seed
SMALL_GRAPH = 200_000  # edges in both directions: up to here a second thread makes steps no faster
HALF_LIFE_TIMES = (1.0, 0.25, 0.35, 0.5, 0.7, 1.4, 2.0)  # the training's half-life, and what is tried beside it


def train(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes model/: the best epoch's weights, the log and train.json. Resumes its own checkpoint."""
    keep_freed_memory()
    torch.set_num_threads(n_threads(config))
    torch.manual_seed(config.run.seed)
    device = pick_device(config)
    prepared = read_prepared(run)
    key = _key(config, run)
    plan = training_plan(config, run, prepared, device, key)
    tqdm.write(f"training on the {plan}", file=sys.stderr)
    graph = load_graph(run, prepared, config, "train")
    model = build_model(config, run, prepared, graph, device)
    tensors = GraphTensors(graph, device)
    objective = objective_of(config, model, tensors, prepared, plan)
    validate = _validation(prepared, config)
    torch.set_num_threads(_step_threads(config, model, graph))
    result = train_model(
        model,
        tensors,
        objective,
        schedule_of(config, plan.batch_size),
        folder=run / "model",
        validate=lambda embeddings: float(validate(embeddings).mean()),
        key=key,
        progress=tqdm,
    )
    torch.set_num_threads(n_threads(config))
    state, _ = load_tensors(run / "model" / "model.safetensors")
    load_trained_state(model, state)
    half_life = _served_half_life(config, run, model, prepared, validate)
    if half_life != prepared.half_life(config):
        tensors = GraphTensors(load_graph(run, prepared, config, "train", half_life=half_life), device)
    linear = _linear_part(config, run, model, tensors, prepared, validate)
    n_examples = len(objective.histories.examples())
    counts = {
        "epochs": result.epoch,
        "best_epoch": result.best_epoch,
        "valid_ndcg@10": round(linear["valid"], 5),
        "valid_ndcg@10_graph_alone": round(result.best_score, 5),
        "recency_half_life": half_life,
        "linear_share": linear["share"],
        "linear_share_new_items": linear["new_share"],
        "content_weights": linear["content_weights"],
        "examples": n_examples,
        "interactions_without_history": len(objective.histories.item) - n_examples,
        "examples_per_second": round(n_examples * result.epoch / max(result.seconds, 1e-9)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "texts": 0 if model.text is None else len(model.text.tokens),
        "texts_empty": 0 if model.text is None else model.text.tokens.n_empty,
        "texts_cut": 0 if model.text is None else model.text.tokens.n_cut,
        "device": str(device),
        "plan": str(plan),
        "batch_size": plan.batch_size,
    }
    write_json(run / "model" / "train.json", counts | _relation_weights(model, tensors))
    for name in ("checkpoint.safetensors", "plan.json"):
        (run / "model" / name).unlink(missing_ok=True)
    return counts


def _step_threads(config: Config, model: JointModel, graph: KnowledgeGraph) -> int:
    """One where run.threads leaves it open, the graph is small, and no text encoder trains; else as elsewhere."""
    trains_text = model.text is not None and model.text.trains
    return 1 if config.run.threads == 0 and not trains_text and len(graph.head) <= SMALL_GRAPH else n_threads(config)


def _served_half_life(config: Config, run: Path, model: JointModel, prepared: Prepared, validate: Validate) -> float:
    """The half-life of histories at inference: that of training, unless another is clearly better on validation."""
    usual = prepared.half_life(config)
    if usual == 0 or config.model.recency_half_life is not None:
        return usual
    scores = dict[float, np.ndarray]()
    for half_life in (usual * times for times in HALF_LIFE_TIMES):
        tensors = GraphTensors(load_graph(run, prepared, config, "train", half_life=half_life), model.embedding.device)
        model.update_attention(tensors)
        scores[half_life] = validate(model.embeddings(tensors))
    return clearly_best(scores, usual)


def _relation_weights(model: JointModel, tensors: GraphTensors) -> dict[str, Any]:
    """relation_weights, where they are learned. By the relation's name, its inverse's with "-1" after it: the learned
    factor of its edges, the share of a node's attention that they have with it, and what they had before training."""
    if model.attention != "relation":
        return {}
    names = [*tensors.graph.relations, *(f"{name}-1" for name in tensors.graph.relations)]
    shares = (tensors.relation_shares(of) for of in (tensors.shares, tensors.prior))
    rows = torch.stack([model.relation_logit.detach().exp(), *shares], dim=1).tolist()
    parts = ("factor", "share", "share_before")
    told = [{part: round(value, 4) for part, value in zip(parts, row, strict=True)} for row in rows]
    return {"relation_weights": dict(zip(names, told, strict=True))}


def _linear_part(
    config: Config, run: Path, model: JointModel, tensors: GraphTensors, prepared: Prepared, validate: Validate
) -> dict[str, Any]:
    """Writes model/spectral.safetensors: the linear part beside the best epoch's vectors, its share chosen on
    validation; returns the shares, the validation score with them, and the weights of what items are told by."""
    model.update_attention(tensors)
    embeddings = model.embeddings(tensors)
    text = None if model.text is None else model.text.vectors.cpu().numpy()
    fitted = fit_spectral(tensors.graph, config.model.linear_rank, text)
    spectral, share, new_share, valid = weighed(
        fitted, embeddings, tensors.graph, validate, new_items=prepared.cold_items
    )
    spectral.save(run / "model" / "spectral.safetensors")
    weights = {} if spectral.content is None else spectral.content.weights
    return {"share": share, "new_share": new_share, "valid": valid, "content_weights": weights}


def objective_of(config: Config, model: JointModel, tensors: GraphTensors, prepared: Prepared, plan: Plan) -> Objective:
    settings = config.train
    history = prepared.history("train", config)
    histories = Histories(
        history.indptr,
        history.item_idx,
        tensors,
        ordered=prepared.in_order,
        half_life=prepared.half_life(config),
        interaction_share=config.model.interaction_share,
    )
    user, item = histories.user.cpu(), histories.item.cpu()
    count = torch.bincount(item, minlength=model.n_items).float()
    generator = torch.Generator().manual_seed(config.run.seed)
    return Objective(
        loss=training_loss(config, model.n_items, plan),
        temperature=settings.temperature or derived_temperature(len(history.item_idx) / max(model.n_users, 1)),
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


def derived_temperature(interactions_per_user: float) -> float:
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


def _validation(prepared: Prepared, config: Config) -> Validate:
    """NDCG@10 (n,) of at most VALIDATION_USERS users of the validation part: over full rankings, training items left
    out, or, where the items are split, among the part's new items alone."""
    sample = asked(prepared, "valid").sample(VALIDATION_USERS, config.run.seed)
    candidates = new_items(prepared, "valid") if prepared.cold_items else None

    def validate(embeddings: Embeddings) -> np.ndarray:
        users = embeddings.users[sample.users]
        if candidates is None:
            listed = exact_search(users, embeddings.items, 10, seen=sample.excluded).item_idx
        else:
            place = exact_search(users, embeddings.items[candidates], 10).item_idx
            listed = np.append(candidates, -1)[place]  # -1 takes the last: it stays -1
        return ranking_metrics(listed, sample.relevant, (10,))["ndcg@10"]

    return validate


def _key(config: Config, run: Path) -> str:
    """Names what a checkpoint belongs to: the model's configuration and the prepared data."""
    digest = hashlib.sha256()
    for section in (config.run, config.text, config.model, config.train):
        digest.update(section.model_dump_json(exclude={"threads", "device"}).encode())
    for path in sorted([*(run / "prepared").iterdir(), *(run / "graph").iterdir()]):
        digest.update(f"{path.name} {file_sha256(path)}".encode())
    return digest.hexdigest()
