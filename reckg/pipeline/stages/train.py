"""Stage train: the joint model over the training graph, early-stopped on the validation part."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from reckg.config.run_config import Config
from reckg.files.file_hash import file_sha256
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.training.checkpoint import load_tensors
from reckg.model.training.memory import Plan, keep_freed_memory
from reckg.model.training.objective import Objective
from reckg.model.training.train import Progress, load_trained_state
from reckg.model.training.train import train as train_model
from reckg.pipeline.run.folder import n_threads, read_prepared, write_json
from reckg.pipeline.run.state import StageCounts
from reckg.pipeline.training.model_inputs import GraphShares, build_model, load_graph, pick_device
from reckg.pipeline.training.objective import objective_of, schedule_of
from reckg.pipeline.training.plan import training_plan
from reckg.pipeline.training.validation import (
    LinearFit,
    choose_shares_of_graph,
    fit_linear_part,
    validation_score,
)

SMALL_GRAPH = 200_000  # edges in both directions: up to here a second thread makes steps no faster


def train(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes model/: the best epoch's weights, the log and train.json. Resumes its own checkpoint.

    Args:
        config: of the run.
        data: dataset folder; not read.
        run: run folder with prepared/ and graph/.
    Returns:
        Counts for the log.
    """
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
    validate = validation_score(prepared, config)
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
    shares = choose_shares_of_graph(config, run, model, prepared, validate)
    tensors = GraphTensors(load_graph(run, prepared, config, "train", attention=shares), device)
    linear = fit_linear_part(config, run, model, tensors, prepared, validate)
    counts = _counts(model, objective, result, plan, shares, linear)
    write_json(run / "model" / "train.json", counts | _relation_weights(model, tensors))
    for name in ("checkpoint.safetensors", "plan.json"):
        (run / "model" / name).unlink(missing_ok=True)
    return counts


def _counts(
    model: JointModel,
    objective: Objective,
    result: Progress,
    plan: Plan,
    shares: GraphShares,
    linear: LinearFit,
) -> StageCounts:
    """Collects the figures of a finished training."""
    n_examples = len(objective.histories.examples())
    return {
        "epochs": result.epoch,
        "best_epoch": result.best_epoch,
        "valid_ndcg@10": round(linear["valid"], 5),
        "valid_ndcg@10_graph_alone": round(result.best_score, 5),
        "recency_half_life": shares.half_life,
        "interaction_share": shares.interaction_share,
        "linear_share": linear["share"],
        "linear_share_new_items": linear["new_share"],
        "earned_by_new_item": linear["earned"],
        "content_weights": linear["content_weights"],
        "examples": n_examples,
        "interactions_without_history": len(objective.histories.item) - n_examples,
        "examples_per_second": round(n_examples * result.epoch / max(result.seconds, 1e-9)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "texts": 0 if model.text is None else len(model.text.tokens),
        "texts_empty": 0 if model.text is None else model.text.tokens.n_empty,
        "texts_cut": 0 if model.text is None else model.text.tokens.n_cut,
        "device": model.embedding.device.type,
        "plan": str(plan),
        "batch_size": plan.batch_size,
    }


def _step_threads(config: Config, model: JointModel, graph: KnowledgeGraph) -> int:
    """Returns 1 if run.threads is 0, the graph is small and no text encoder trains; else the threads of the run."""
    trains_text = model.text is not None and model.text.trains
    return 1 if config.run.threads == 0 and not trains_text and len(graph.head) <= SMALL_GRAPH else n_threads(config)


def _relation_weights(model: JointModel, tensors: GraphTensors) -> dict[str, dict[str, dict[str, float]]]:
    """Lists the learned weights of relations by name; inverse relations have "-1" behind it.

    Each has the learned factor of its edges, and their share of a node's attention now and before training.
    """
    if model.attention != "relation":
        return {}
    names = [*tensors.graph.relations, *(f"{name}-1" for name in tensors.graph.relations)]
    shares = (tensors.relation_shares(of) for of in (tensors.shares, tensors.prior))
    rows = torch.stack([model.relation_logit.detach().exp(), *shares], dim=1).tolist()
    parts = ("factor", "share", "share_before")
    weights = [{part: round(value, 4) for part, value in zip(parts, row, strict=True)} for row in rows]
    return {"relation_weights": dict(zip(names, weights, strict=True))}


def _key(config: Config, run: Path) -> str:
    """Hashes the model's configuration and the prepared data, which a checkpoint belongs to."""
    digest = hashlib.sha256()
    for section in (config.run, config.text, config.model, config.train):
        digest.update(section.model_dump_json(exclude={"threads", "device"}).encode())
    for path in sorted([*(run / "prepared").iterdir(), *(run / "graph").iterdir()]):
        digest.update(f"{path.name} {file_sha256(path)}".encode())
    return digest.hexdigest()
