"""Stage train: the joint model over the training graph, early-stopped on the validation part."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jobs.model_files import build_model, load_graph, pick_device
from jobs.questions import asked, new_items
from jobs.run_folder import Prepared, n_threads, read_prepared, write_json
from reckg.config import Config
from reckg.evaluation.metrics import ranking_metrics
from reckg.file_hash import file_sha256
from reckg.model.graph_tensors import GraphTensors
from reckg.model.histories import Histories
from reckg.model.joint_model import Embeddings, JointModel
from reckg.model.objective import Objective
from reckg.model.sampling import SeenItems
from reckg.model.train import Schedule
from reckg.model.train import train as train_model
from reckg.retrieval.exact import exact_search

VALIDATION_USERS = 5000  # at most; drawn by seed
FULL_SOFTMAX_ITEMS = 20_000


def train(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes model/: the best epoch's weights, the log and train.json. Resumes its own checkpoint."""
    torch.set_num_threads(n_threads(config))
    torch.manual_seed(config.run.seed)
    device = pick_device(config)
    prepared = read_prepared(run)
    graph = load_graph(run, prepared, config, "train")
    model = build_model(config, run, prepared, graph, device)
    tensors = GraphTensors(graph, device)
    objective = _objective(config, model, tensors, prepared)
    result = train_model(
        model,
        tensors,
        objective,
        _schedule(config),
        folder=run / "model",
        validate=_validation(prepared, config),
        key=_key(config, run),
        progress=tqdm,
    )
    n_examples = len(objective.histories.examples())
    counts = {
        "epochs": result.epoch,
        "best_epoch": result.best_epoch,
        "valid_ndcg@10": round(result.best_score, 5),
        "examples": n_examples,
        "interactions_without_history": len(objective.histories.item) - n_examples,
        "examples_per_second": round(n_examples * result.epoch / max(result.seconds, 1e-9)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "texts": 0 if model.text is None else len(model.text.tokens),
        "texts_empty": 0 if model.text is None else model.text.tokens.n_empty,
        "texts_cut": 0 if model.text is None else model.text.tokens.n_cut,
        "device": str(device),
    }
    write_json(run / "model" / "train.json", counts)
    (run / "model" / "checkpoint.safetensors").unlink(missing_ok=True)
    return counts


def _objective(config: Config, model: JointModel, tensors: GraphTensors, prepared: Prepared) -> Objective:
    settings = config.train
    history = prepared.history("train", config)
    histories = Histories(
        history.indptr,
        history.item_idx,
        tensors,
        ordered=prepared.in_order,
        half_life=config.model.recency_half_life,
        interaction_share=config.model.interaction_share,
    )
    user, item = histories.user.cpu(), histories.item.cpu()
    count = torch.bincount(item, minlength=model.n_items).float()
    loss = settings.loss
    if loss == "auto":
        loss = "softmax" if model.n_items <= FULL_SOFTMAX_ITEMS else "sampled-softmax"
    return Objective(
        loss=loss,
        temperature=settings.temperature,
        negatives=settings.negatives,
        popularity_correction=settings.popularity_correction,
        kg_loss=settings.kg_loss,
        kg_weight=settings.kg_weight,
        text_weight=settings.text_weight,
        l2_weight=settings.l2_weight,
        text_batch_tokens=config.text.batch_tokens,
        generator=torch.Generator().manual_seed(config.run.seed),
        histories=histories,
        seen=SeenItems(user, item, model.n_users, model.n_items),
        popularity=(count + 1) / (count + 1).sum(),
    )


def _schedule(config: Config) -> Schedule:
    settings = config.train
    return Schedule(
        batch_size=settings.batch_size,
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
    )


def _validation(prepared: Prepared, config: Config) -> Any:
    """NDCG@10 of the validation part for at most VALIDATION_USERS: over full rankings, training items left out, or,
    where the items are split, among the part's new items alone."""
    sample = asked(prepared, "valid").sample(VALIDATION_USERS, config.run.seed)
    candidates = new_items(prepared, "valid") if prepared.cold_items else None

    def validate(embeddings: Embeddings) -> float:
        users = embeddings.users[sample.users]
        if candidates is None:
            listed = exact_search(users, embeddings.items, 10, seen=sample.excluded).item_idx
        else:
            place = exact_search(users, embeddings.items[candidates], 10).item_idx
            listed = np.append(candidates, -1)[place]  # -1 takes the last: it stays -1
        return float(ranking_metrics(listed, sample.relevant, (10,))["ndcg@10"].mean())

    return validate


def _key(config: Config, run: Path) -> str:
    """Names what a checkpoint belongs to: the model's configuration and the prepared data."""
    digest = hashlib.sha256()
    for section in (config.run, config.text, config.model, config.train):
        digest.update(section.model_dump_json(exclude={"threads", "device"}).encode())
    for path in sorted([*(run / "prepared").iterdir(), *(run / "graph").iterdir()]):
        digest.update(f"{path.name} {file_sha256(path)}".encode())
    return digest.hexdigest()
